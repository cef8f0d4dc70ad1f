"""A sweep whose processes are killed all the time ends with the tables of one that was left alone.

    python scripts/check_kills.py [--kills 100] [--writers 4] [--seed 0]

Sixty cells on the embedded data (a memory bank, a training with checkpoints, a floor; five seeds) run with
launch=local. Every second a random worker is killed with SIGKILL, now and then the supervisor. A command
that ends before its kills are spent is given again; at last it runs undisturbed until nothing is missing.
Compared are the bytes of every score table (tables/ but the costs, which are seconds), of every samples.csv,
and all metrics of all records; `adbench clean` must leave no temporary file. Exit code 1 where any differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SUITE = """\
overrides: [variant=kills, backbone=bundled, "dataset.input.size=[64,64]", runtime.latency_repeats=0]
runs:
  - {method: [mean_image, patchcore], dataset: [synthetic]}
  - {method: [stfpm], dataset: [synthetic], overrides: [method.model.epochs=8]}
"""
SWEEP = ["suite=kills", "seed=0,1,2,3,4", "launch=local", "launch.threads=1", "runtime.device=cpu"]
SWEEP += ["runtime.checkpoint_minutes=0"]
TEMPORARY = (".tmp", ".old", ".building", ".record", ".samples")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--writers", type=int, default=4)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    draw = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        disturbed, quiet = Path(folder, "disturbed"), Path(folder, "quiet")
        suite = Path(folder, "mine", "suite", "kills.yaml")
        suite.parent.mkdir(parents=True)
        suite.write_text(SUITE)
        words = [*SWEEP, f"launch.workers_per_device={chosen.writers}"]
        words += ["--config-dir", str(suite.parents[1])]
        start = time.monotonic()
        if adbench(quiet, "run", *words).returncode:
            print("the undisturbed sweep failed")
            return 1
        print(f"undisturbed: {len(records(quiet))} cells in {time.monotonic() - start:.0f} s")
        start = time.monotonic()
        killed, commands = disturb(disturbed, words, chosen.kills, draw)
        failed = Counter(r["status"] for r in records(disturbed).values())
        print(
            f"disturbed: {killed['worker']} workers and {killed['supervisor']} supervisors killed in "
            f"{time.monotonic() - start:.0f} s, {commands} commands; then {dict(failed)}"
        )
        for _ in range(3):
            answer = adbench(disturbed, "run", *words, "rerun=failed")
            if answer.returncode == 0:
                break
        problems = [] if answer.returncode == 0 else [f"the last command failed: {answer.stderr[-500:]}"]
        problems += differences(quiet, disturbed)
        print(adbench(disturbed, "clean").stdout.strip().splitlines()[-1])
        left = [p for p in disturbed.rglob("*") if p.name.startswith(TEMPORARY)]
        problems += [f"left over: {path.relative_to(disturbed)}" for path in left]
        for problem in problems:
            print(problem)
        print("equal to the last byte, nothing left over" if not problems else "NOT the same")
        return bool(problems)


def disturb(home: Path, words: list[str], kills: int, draw: random.Random) -> tuple[Counter[str], int]:
    """Kill once a second until all kills are spent; the command is given again whenever it ends."""
    killed: Counter[str] = Counter()
    commands, process = 0, None
    while killed.total() < kills:
        if process is None or process.poll() is not None:
            done = len([r for r in records(home).values() if r["status"] == "done"])
            again = "rerun=always" if done == 60 else "rerun=failed"
            process = subprocess.Popen(
                [sys.executable, "-m", "ad_bench", "run", *words, again],
                cwd=folder_of(home),
                env=environment(home),
                stderr=subprocess.DEVNULL,
            )
            commands += 1
        time.sleep(1.0)
        workers = descendants(process.pid)
        if workers and process.poll() is None:
            victim = "supervisor" if draw.random() < 0.05 else "worker"
            os.kill(process.pid if victim == "supervisor" else draw.choice(workers), signal.SIGKILL)
            killed[victim] += 1
    if process is not None:
        process.send_signal(signal.SIGINT)
        process.wait()
    return killed, commands


def descendants(pid: int) -> list[int]:
    """The workers: children of the children of a supervisor, which forked them from its server."""

    def children(of: int) -> list[int]:
        try:
            return [int(one) for one in Path(f"/proc/{of}/task/{of}/children").read_text().split()]
        except OSError:
            return []

    return [grandchild for child in children(pid) for grandchild in children(child)]


def folder_of(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    return home


def environment(home: Path) -> dict[str, str]:
    root = Path(__file__).resolve().parents[1]
    return {**os.environ, "PYTHONPATH": str(root), "ADBENCH_CACHE": str(home / "cache")}


def adbench(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ad_bench", *words],
        cwd=folder_of(home),
        env=environment(home),
        capture_output=True,
        text=True,
    )


def records(home: Path) -> dict[str, dict]:
    found = {}
    for path in (home / "results" / "cells").rglob("record.json"):
        found[str(path.parent.relative_to(home))] = json.loads(path.read_text())
    return found


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two folders of results, seconds and dates apart."""
    for home in (one, other):
        adbench(home, "report")
    problems = []
    first, second = records(one), records(other)
    if first.keys() != second.keys():
        problems.append(f"{len(first.keys() ^ second.keys())} records stand in one alone")
    for name in first.keys() & second.keys():
        if first[name]["status"] != "done" or second[name]["status"] != "done":
            problems.append(f"{name}: {first[name]['status']} and {second[name]['status']}")
        elif first[name]["metrics"] != second[name]["metrics"]:
            problems.append(f"{name}: other metrics")
        elif (one / name / "samples.csv").read_bytes() != (other / name / "samples.csv").read_bytes():
            problems.append(f"{name}: other scores")
    tables = [p for p in (one / "results" / "tables").rglob("*.*") if p.stem != "costs"]
    if len(tables) < 12:
        problems.append(f"only {len(tables)} tables")
    for path in tables:
        twin = other / path.relative_to(one)
        if not twin.is_file() or twin.read_bytes() != path.read_bytes():
            problems.append(f"{path.relative_to(one)} differs")
    return problems


if __name__ == "__main__":
    sys.exit(main())

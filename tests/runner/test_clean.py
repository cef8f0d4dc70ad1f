"""`adbench clean`: what killed processes left goes, what living ones and other machines work on stays."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ad_bench import processes
from ad_bench.processes import DAY
from ad_bench.runner import clean as cleaning
from ad_bench.runner.clean import clean, human
from ad_bench.runner.status import status_of
from tests.runner.test_status import RANDOM, finish, remember

Call = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
WORK = """
import sys, time
from pathlib import Path
from ad_bench import records
from ad_bench.datasets import building
from ad_bench.processes import temporary
from ad_bench.records import CellId
from ad_bench.running import Presence
results, cache, name = Path("results"), Path("cache"), sys.argv[1]
presence = Presence(results)
presence.cell([CellId("mtd", "mtd", "random", "", "full", 0)], "cpu")
store = cache / "images" / name
(cache / "images").mkdir(parents=True, exist_ok=True)
mine = building.temporary(store)
building.claim(store, mine)
mine.mkdir()
(mine / "images.npy").write_bytes(b"x" * 1000)
folder = cache / "checkpoints" / name
folder.mkdir(parents=True)
(folder / "00-00000001.pt").write_bytes(b"x" * 500)
temporary(folder).write_bytes(b"half")

def stop(path):
    path.write_text("half")
    with records.scratch(results) as inside:
        (inside / "record.json").write_text("{")
        print("ready", flush=True)
        time.sleep(600)

records.replace_file(results / "tables" / "mtd" / "table.csv", stop)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A process that has begun one of everything below <tmp>, results and cache."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORK, name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while not list((tmp_path / "results" / "running").glob(f"*-{process.pid}.json")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def there(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()}


def test_of_a_dead_and_a_living_process(
    adbench: Call, start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    living = start("living")
    before = there(tmp_path)
    dead = start("dead")
    dead.kill()
    dead.communicate()
    words = ("paths.results=results", "paths.cache=cache")
    planned = adbench("clean", "--dry-run", *words)
    assert planned.returncode == 0, planned.stderr
    lines = [line for line in planned.stdout.splitlines() if line.startswith("would remove  ")]
    kinds = [line.rpartition("  ")[2].partition(",")[0] for line in lines]
    assert sorted(kinds) == [
        "half-built image store", "half-built image store", "half-written checkpoint",
        "half-written file", "half-written record", "note of a dead process",
    ]  # fmt: skip  # a store with its claim
    assert any(line.endswith("half-built image store, 1.0 kB") for line in lines)
    assert "6 left-overs, 1." in planned.stdout
    assert len(there(tmp_path)) == len(before) * 2  # nothing was removed
    done = adbench("clean", *words)
    assert done.returncode == 0, done.stderr
    kept = "cache/checkpoints/dead/00-00000001.pt"
    assert there(tmp_path) == before | {kept}
    assert "2 trainings have checkpoints to go on from in cache/checkpoints, 1.0 kB; they stay" in done.stdout
    again = adbench("clean", "--checkpoints", *words)
    assert "nothing is left over" in again.stdout
    assert "1 processes are at work" in again.stdout
    assert (tmp_path / kept).exists()
    living.kill()
    living.communicate()
    adbench("clean", "--checkpoints", *words)
    assert there(tmp_path) == set()


def test_a_killed_run_leaves_nothing(
    adbench: Call, data: Path, mine: Path, tmp_path: Path, cache: Path
) -> None:
    words = ("run", "method=slow", "category=bottle", "dataset=mvtec", "runtime.device=cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "ad_bench", *words, "--config-dir", str(mine)],
        cwd=tmp_path,
        env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT), "SLOW": "60"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "results" / "running").glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert adbench("clean").returncode == 0
    left = {path for path in there(tmp_path / "results") if not path.startswith("sweeps/")}
    assert left == set()
    assert "the same command runs what is missing" in adbench("status").stdout  # it is remembered


def test_other_machines_have_a_day(tmp_path: Path) -> None:
    results, cache = tmp_path / "results", tmp_path / "cache"
    names = [
        "results/cells/.tmp-node~01234567-12-aa/record.json",
        "results/cells/.tmp-node-12-aa/record.json",  # as earlier versions named them
        "results/cells/.old-node-12-aabb/record.json",
        "results/.leaderboard.csv.0a1b2c3d",
        "results/tables/mtd/.table9.csv.0a1b2c3d",
        "results/running/node~01234567-12.json",
        "results/running/torn.json",
        "cache/images/.building-aa-node~01234567-12-aa/images.npy",
        "cache/probes/.building-aa-node~01234567-12-aa",
        "cache/.synthetic-v1-making-12-aa/a.png",
        "cache/checkpoints/aa/.tmp-12-aa",
    ]
    kept = [
        "results/leaderboard.csv",
        "results/.gitignore",
        "cache/images/aa/images.npy",
        "cache/checkpoints/aa/1.pt",
    ]
    said = {
        "cells": [], "since": "2026-11-23T10:00:00+00:00", "stage": "", "done": 0, "total": None,
        "device": "cpu", "job": None, "machine": "node~01234567", "pid": 12,
    }  # fmt: skip
    for name in (*names, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(said))

    def age(days: float) -> None:
        past = time.time() - days * DAY
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.utime(path, (past, past), follow_symlinks=False)

    age(0.9)
    assert clean(results, cache) == 0
    assert there(tmp_path) == {*names, *kept}
    age(1.1)
    assert clean(results, cache) == 0
    assert there(tmp_path) == set(kept)


def test_sweeps_that_are_complete_or_forgotten(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results, cache = tmp_path / "results", tmp_path / "cache"
    month = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=31)).isoformat()
    complete = remember(tmp_path, *RANDOM, "category=bottle")
    missing = remember(tmp_path, *RANDOM)
    lives = remember(tmp_path, *RANDOM, "category=bottle", "rerun=never", pid=os.getpid())
    away = remember(
        tmp_path, *RANDOM, "category=bottle", machine="node~01234567"
    )  # may live, for all we know
    forgotten = remember(tmp_path, "method=gone", started=month)
    broken = remember(tmp_path, "method=gone")  # nobody can plan it: it is kept for a month
    for sweep in (complete, missing, forgotten):
        (sweep.packs / "123_log.out").parent.mkdir()
        (sweep.packs / "123_log.out").write_text("log")
    found, _ = status_of([*RANDOM, "category=bottle"])
    for cell in found.cells:
        finish(found, cell.id)
    assert clean(results, cache) == 0
    left = {path.name for path in (results / "sweeps").iterdir()}
    assert left == {*(one.path.name for one in (missing, lives, away, broken)), missing.packs.name}


def test_what_cannot_be_removed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cells" / f".tmp-{processes.machine()}-999999999-aa"
    folder.mkdir(parents=True)
    monkeypatch.setattr(cleaning.shutil, "rmtree", lambda *_, **__: None)
    assert clean(tmp_path, tmp_path / "cache") == 1
    text = capsys.readouterr().out
    assert f"cannot remove  {folder}" in text
    assert "0 left-overs, 0 B, removed" in text


def test_a_link_is_removed_and_not_what_it_points_at(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x" * 5000)
    images = tmp_path / "cache" / "images"
    images.mkdir(parents=True)
    link = images / f".building-aa-{processes.machine()}-999999999-aa"
    link.symlink_to(tmp_path / "precious")
    os.utime(link, (0, 0), follow_symlinks=False)
    (found,) = cleaning.left_overs(tmp_path / "results", tmp_path / "cache")
    assert found.size == 0
    clean(tmp_path / "results", tmp_path / "cache")
    assert not link.is_symlink()
    assert (tmp_path / "precious" / "file").exists()


def test_nothing_there_and_wrong_use(adbench: Call, tmp_path: Path) -> None:
    answer = adbench("clean", "paths.cache=nowhere")
    assert (answer.returncode, answer.stdout) == (0, "nothing is left over\n")
    assert list(tmp_path.iterdir()) == []
    for words in (("results",), ("--checkpoint",), ("method=random",)):
        answer = adbench("clean", *words)
        assert answer.returncode == 2, words
        assert "Traceback" not in answer.stderr


def test_sizes() -> None:
    assert [human(n) for n in (0, 999, 1000, 3_140_000, 2.5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "3.1 MB",
        "2.5 TB",
    ]

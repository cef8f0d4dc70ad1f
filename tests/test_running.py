"""What a process says of its work: seen by others, gone with it, and never in its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ad_bench import processes, records, running
from ad_bench.records import CellId
from ad_bench.running import Presence, job_id, read

ROOT = Path(__file__).resolve().parents[1]
CELLS = [CellId("mtd", "mtd", "patchcore", "coreset_ratio=0.01", "full", seed) for seed in (0, 1)]
WORK = """
import sys, time
from pathlib import Path
from ad_bench.records import CellId
from ad_bench.running import Presence
presence = Presence(Path(sys.argv[1]))
cells = [CellId("mtd", "mtd", "patchcore", "coreset_ratio=0.01", "full", seed) for seed in (0, 1)]
presence.cell(cells, "cuda:1")
presence.stage("train (9 epochs)", 3, 9)
sys.stdin.read()
presence.close()
"""


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(results: Path, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(results)],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    until(lambda: read(results))
    return process


def test_others_see_it_while_it_works(tmp_path: Path) -> None:
    process = start(tmp_path, SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID="3", SLURM_JOB_ID="81")
    until(lambda: read(tmp_path)[0].stage)
    (one,) = read(tmp_path)
    assert one.cells == tuple(CELLS)
    assert (one.stage, one.done, one.total, one.device) == ("train (9 epochs)", 3, 9, "cuda:1")
    assert (one.machine, one.pid, one.job) == (processes.machine(), process.pid, "77_3")
    assert not one.stale
    assert one.host == processes.host(processes.machine())
    assert one.since.endswith("+00:00")
    process.communicate("")
    assert read(tmp_path) == []
    assert list((tmp_path / "running").iterdir()) == []


def test_a_killed_process_is_stale(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.kill()
    process.communicate()
    (one,) = read(tmp_path)
    assert one.stale
    assert one.pid == process.pid


@pytest.mark.parametrize(("seconds", "stale"), [(0.9 * running.SILENT, False), (1.1 * running.SILENT, True)])
def test_of_another_machine_silence_is_all_that_tells(tmp_path: Path, seconds: float, stale: bool) -> None:
    path = tmp_path / "running" / "elsewhere~01234567-999999999.json"
    said = {
        "cells": [],
        "since": "2026-11-23T10:00:00+00:00",
        "stage": "",
        "done": 0,
        "total": None,
        "device": "cpu",
        "job": None,
        "machine": "elsewhere~01234567",
        "pid": 999_999_999,
    }
    records.replace_text(path, json.dumps(said))
    past = time.time() - seconds
    os.utime(path, (past, past))
    (one,) = read(tmp_path)
    assert one.stale is stale
    assert one.silent == pytest.approx(seconds, abs=5)


def test_torn_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()
    for name, text in {"a": "", "b": "[]", "c": '{"pid": 1}', "d": "{"}.items():
        (tmp_path / "running" / f"{name}.json").write_text(text)
    assert read(tmp_path) == []
    assert read(tmp_path / "nowhere") == []


def test_ten_thousand_steps_are_not_ten_thousand_writings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = records.replace_text
    monkeypatch.setattr(running, "EVERY", 0.1)
    monkeypatch.setattr(records, "replace_text", lambda path, text: (written.append(path), real(path, text)))
    presence = Presence(tmp_path)
    presence.cell(CELLS, "cpu")
    start = time.monotonic()
    for step in range(10_000):
        presence.stage("coreset", step, 10_000)
    until(lambda: read(tmp_path) and read(tmp_path)[0].done == 9_999)  # the last word is said, too
    seconds = time.monotonic() - start
    presence.close()
    assert len(written) <= 2 + seconds / 0.1
    assert not list((tmp_path / "running").iterdir())


def test_a_long_silent_stage_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY", 0.02)
    monkeypatch.setattr(running, "SIGN_OF_LIFE", 0.1)
    presence = Presence(tmp_path)
    presence.cell(CELLS, "cpu")
    until(lambda: read(tmp_path))
    os.utime(presence.path, (0, 0))
    until(lambda: read(tmp_path)[0].silent < 10)
    presence.close()


def test_where_nothing_can_be_written_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY", 0.01)
    (tmp_path / "running").write_text("a file where the folder should be")
    presence = Presence(tmp_path)
    presence.cell(CELLS, "cpu")
    presence.stage("fit", 1)
    time.sleep(0.1)
    assert presence._thread is not None
    assert presence._thread.is_alive()  # it tries again: there may be room later
    (tmp_path / "running").unlink()
    until(lambda: read(tmp_path))
    presence.close()
    assert read(tmp_path) == []


def test_a_forked_child_does_not_end_its_parents_word(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    presence.cell(CELLS, "cpu")
    until(lambda: read(tmp_path))
    child = os.fork()
    if not child:
        presence.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(read(tmp_path)) == 1
    presence.close()


def test_jobs_of_slurm_go_by_their_array() -> None:
    assert job_id({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "9"}) == "7_0"
    assert job_id({"SLURM_JOB_ID": "9"}) == "9"
    assert job_id({}) is None

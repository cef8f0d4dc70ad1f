"""`adbench status`: real records, real processes that live and die, and a Slurm that answers or does not."""

from __future__ import annotations

import datetime
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ad_bench import processes, records, running
from ad_bench.records import CellId
from ad_bench.runner import history, status_view
from ad_bench.runner.status import Status, as_json, status_of
from ad_bench.runner.status_view import duration
from tests.runner.conftest import records as by_name

Call = Callable[..., subprocess.CompletedProcess[str]]
MVTEC = ("dataset=mvtec", "runtime.device=cpu", "runtime.latency_repeats=1")
RANDOM = ("method=random", "seed=0,1", *MVTEC)
CABLE = CellId("mvtec", "cable", "random", "", "full", 0)
ROOT = Path(__file__).resolve().parents[2]


def remember(tmp_path: Path, *words: str, **facts: Any) -> history.Sweep:
    """The file that `adbench run` of these words leaves; its process has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    content = {
        "schema": 1,
        "words": list(words),
        "config_dirs": [],
        "launch": "inline",
        "machine": processes.machine(),
        "pid": ended.pid,
        "started": (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat(),
        "cells": 4,
        "jobs": [],
        "folder": str(tmp_path),
        **facts,
    }
    results = tmp_path / "results"
    name = f"{content['started'][:19].replace(':', '')}-{ended.pid:x}"
    records.replace_text(results / "sweeps" / f"{name}.json", json.dumps(content))
    return next(sweep for sweep in history.sweeps(results) if sweep.path.stem == name)


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a real process that says it works on bottle, seed 0, of `random`."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        code = (
            "import sys; from pathlib import Path; from ad_bench.records import CellId\n"
            "from ad_bench.running import Presence; presence = Presence(Path(sys.argv[1]))\n"
            "presence.cell([CellId('mvtec', 'bottle', 'random', '', 'full', 0)], 'cpu')\n"
            "presence.stage('train', 3, 9); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "results")],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        deadline = time.monotonic() + 30
        while not any(one.pid == process.pid for one in running.read(tmp_path / "results")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_finished_sweep_with_failures(adbench: Call, data: Path, mine: Path, tmp_path: Path) -> None:
    words = ("-m", "method=crash,nan_on_the_third,brightness", *MVTEC, "--config-dir", str(mine))
    adbench("run", *words)
    answer = adbench("status", *words)
    assert answer.returncode == 1, answer.stderr
    text = answer.stdout
    assert "2 done, 4 failed of 6 cells" in text
    assert "2 x RuntimeError: this method is broken" in text
    assert "2 x PredictionError: the anomaly score of" in text  # two images, one reason
    found = by_name(tmp_path)["crash/bottle"]
    line = next(line for line in text.splitlines() if "mvtec/bottle crash full-seed0:" in line)
    record = json.loads((tmp_path / line.rpartition(": ")[2]).read_text())
    assert "my_methods.py" in record["error"]["traceback"]
    assert record["fingerprint"] == found["fingerprint"]
    assert "mvtec/zipper" in text  # the 13 that are not on the disk
    again = text.splitlines()[-1]
    assert again.startswith("rerun=failed runs the failed cells again: adbench run -m method=crash")
    assert again.endswith("rerun=failed")
    command = shlex.split(again.partition(": adbench ")[2])
    assert "6 cells: 4 to run" in adbench(*command, "--dry-run").stdout  # the line can be pasted


def test_of_what_runs_and_what_was_killed(
    adbench: Call, status: Status, tmp_path: Path, working: Callable[[], subprocess.Popen[str]]
) -> None:
    status.sweep.path.unlink()  # type: ignore[union-attr]  another program's cells, as it were
    finish(status, CABLE)
    process = working()
    deadline = time.monotonic() + 30
    while "train" not in running.read(tmp_path / "results")[0].stage:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    answer = adbench("status", *RANDOM)
    assert answer.returncode == 0, answer.stderr
    assert "1 done, 1 running, 2 waiting of 4 cells" in answer.stdout
    (line,) = (line for line in answer.stdout.splitlines() if "mvtec/bottle random full-seed0" in line)
    for part in ("train 3/9", processes.host(processes.machine()), "cpu", f"pid {process.pid}", "since"):
        assert part in line
    assert "the same command" not in answer.stdout
    process.kill()
    process.communicate()
    text = adbench("status", *RANDOM).stdout
    assert "1 done, 3 waiting of 4 cells" in text
    assert "the same command runs what is missing: adbench run method=random seed=0,1" in text


def test_without_words_the_newest_sweep_from_any_folder(
    adbench: Call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = adbench("status")
    assert none.returncode == 2
    assert "knows of no sweep" in none.stderr
    monkeypatch.chdir(tmp_path)
    made, _ = status_of(RANDOM)
    for cell in made.cells[:2]:
        finish(made, cell.id)
    earlier = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    remember(tmp_path, "method=mean_image", *MVTEC, started=earlier.isoformat(), pid=os.getpid())
    remember(tmp_path, *RANDOM, "paths.results=results")
    elsewhere = tmp_path / "else where, 'quoted'"
    elsewhere.mkdir()
    answer = adbench("status", f"paths.results={tmp_path / 'results'}", cwd=elsewhere)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("adbench run method=random seed=0,1")
    assert "2 done, 2 waiting of 4 cells; 2.0 cells an hour" in answer.stdout
    assert "nothing of it runs any more" in answer.stdout
    (other,) = (line for line in answer.stdout.splitlines() if line.startswith("also open"))
    assert "adbench run method=mean_image" in other
    said = as_json(*status_of([]))
    json.dumps(said)
    assert (said["done"], said["waiting"], said["living"], said["seconds_left"]) == (2, 2, False, None)
    assert [one["command"].split()[2] for one in said["other_sweeps"]] == ["method=mean_image"]
    assert said["next"][0].startswith("the same command runs what is missing")
    shutil.move(tmp_path / "results", elsewhere / "results")  # as where another machine mounts it
    moved, _ = status_of([f"paths.results={elsewhere / 'results'}"])
    assert moved.counts["done"] == 2


def test_a_sweep_begun_where_this_machine_has_no_folder(adbench: Call, tmp_path: Path) -> None:
    remember(tmp_path, *RANDOM, folder=str(tmp_path / "gone"))
    answer = adbench("status")
    assert answer.returncode == 2
    assert "adbench status method=random seed=0,1" in answer.stderr


def test_wrong_use(adbench: Call, data: Path) -> None:
    for words, said in (
        (("--watch", "--json"), "one of them"),
        (("method=randm",), "Did you mean random"),
        (("--wacth",), "Did you mean --watch"),
    ):
        answer = adbench("status", *words)
        assert answer.returncode == 2
        assert said in answer.stderr
        assert "Traceback" not in answer.stderr


def test_status_imports_no_torch(adbench: Call, data: Path, tmp_path: Path, cache: Path) -> None:
    code = (
        "import sys; from ad_bench.cli import main\n"
        f"assert main({['status', *RANDOM]!r}) == 0\n"
        "assert main(['clean', '--dry-run']) == 0\n"
        "print(sorted({'torch', 'timm', 'pandas', 'sklearn', 'submitit'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ADBENCH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.splitlines()[-1] == "[]"


# --- one plan, looked at again and again ---


@pytest.fixture
def status(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Status:
    """Of the four cells of RANDOM, begun an hour ago by a process that lives; none has run."""
    monkeypatch.chdir(tmp_path)
    remember(tmp_path, *RANDOM, pid=os.getpid())
    found, _ = status_of(RANDOM)
    assert len(found.open) == 4
    return found


def finish(of: Status, cell: CellId, **facts: Any) -> Path:
    """Leave the record of a cell."""
    (tracked,) = (one for one in of.cells if one.id == cell)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"schema": records.SCHEMA, "status": "done", "date": now, **facts}
    with records.writing(of.results, cell, tracked.path.parent.name, replace=True) as folder:
        records.write_json(folder / "record.json", record)
    return tracked.path


def test_a_second_look_reads_what_is_new_and_nothing_else(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = records.read
    monkeypatch.setattr(records, "read", lambda path: (read.append(path), real(path))[1])
    path = finish(status, status.cells[0].id)
    for _ in range(3):
        status.look()
    assert read == [path]
    assert status.counts == {"done": 1, "failed": 0, "skipped": 0, "running": 0, "waiting": 3}
    status.cells[1].path.parent.mkdir(parents=True)
    status.cells[1].path.write_text('{"schema": 1, "sta')  # torn: the cell runs again, and is not done
    status.look()
    assert status.counts["waiting"] == 3


def test_rate_and_time_left(status: Status) -> None:
    assert status.rate is None
    assert status.seconds_left is None
    finish(status, status.cells[0].id)
    finish(status, status.cells[1].id, status="failed", error={"type": "E", "message": "why\nmore"})
    status.look()
    assert status.rate == pytest.approx(2.0, rel=0.02)
    assert status.seconds_left == pytest.approx(3600, rel=0.02)  # half of it took an hour
    for cell, seconds in zip(status.cells, (100.0, 100.0, 400.0, None), strict=True):
        cell.seconds = seconds  # what is left is three times as much: (400 + the mean 200) / 200
    assert status.seconds_left == pytest.approx(3 * 3600, rel=0.02)
    assert status.failures[0].reason == "E: why"
    for cell in status.cells:
        finish(status, cell.id)
    status.look()
    assert status.seconds_left is None
    assert not status.open


def test_records_of_earlier_sweeps_say_nothing_of_the_rate(status: Status) -> None:
    finish(status, status.cells[0].id, date="2025-01-01T00:00:00+00:00")
    status.look()
    assert status.counts["done"] == 1
    assert status.rate is None


def test_what_shall_run_again_waits_until_it_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    before = "2025-01-01T00:00:00+00:00"
    first, second = status.cells[0].id, status.cells[1].id
    finish(status, first, date=before)
    finish(status, second, status="failed", date=before, error={"type": "E", "message": "why"})
    for rerun, done, failed in (("never", 1, 1), ("failed", 1, 0), ("always", 0, 0)):
        words = (*RANDOM, f"rerun={rerun}")
        remember(tmp_path, *words, pid=os.getpid())
        again, _ = status_of(words)
        assert (again.counts["done"], again.counts["failed"]) == (done, failed), rerun
        assert again.sweep is not None
    with monkeypatch.context() as patched:
        patched.setattr(records, "read", pytest.fail)  # what waits to be replaced is not read at every look
        again.look()
    finish(again, second, status="failed", error={"type": "E", "message": "once more"})
    again.look()
    assert again.counts["failed"] == 1
    assert again.failures[0].reason == "E: once more"


def test_watching_in_a_log_says_what_changes_and_ends_with_all(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_view, "EVERY", 0.05)
    out = io.StringIO()

    def work() -> None:
        for cell in status.cells:
            time.sleep(0.3)
            finish(status, cell.id)

    worker = threading.Thread(target=work)
    worker.start()
    status_view.watch(status, [], Console(file=out))
    worker.join()
    lines = out.getvalue().splitlines()
    short = [line for line in lines if line[2] == ":"]  # with the time of day
    assert [line.partition(" ")[2].partition(" cells")[0] for line in short[:2]] == [
        "4 waiting of 4",
        "1 done, 3 waiting of 4",
    ]
    assert 4 <= len(short) < 40
    assert lines[-1] == "every cell has a record: adbench report makes the tables"


def test_watching_on_a_terminal_draws_again(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_view, "EVERY", 0.05)
    out = io.StringIO()
    timers = [threading.Timer(0.2, finish, (status, cell.id)) for cell in status.cells]
    for timer in timers:
        timer.start()
    status_view.watch(status, [], Console(file=out, force_terminal=True, width=100, legacy_windows=False))
    text = out.getvalue()
    assert "4 waiting" in text
    assert "\x1b[2K" in text  # lines are erased and drawn again
    assert "\x1b[?25h" in text  # the cursor is back
    assert "every cell has a record" in text


def test_watching_ends_with_130_on_ctrl_c(data: Path, cache: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ad_bench", "status", "--watch", *RANDOM],
        cwd=tmp_path,
        env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    assert "4 waiting of 4 cells" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "the same command runs what is missing" in out
    assert "Traceback" not in err


# --- jobs ---


def shown() -> str:
    """What `adbench status` prints here."""
    out = io.StringIO()
    status_view.print_status(*status_of([]), Console(file=out))
    return out.getvalue()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of lines as `7_0|RUNNING`, which squeue answers with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path / 'queue'}\n")
    (folder / "sacct").write_text("#!/bin/sh\nexit 1\n")
    for path in folder.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "queue"


def test_jobs_and_what_they_left(
    data: Path, tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("method=random", "seed=0,1,2", *MVTEC)
    made, _ = status_of(words)
    folder = tmp_path / "results" / "sweeps" / "s"
    cells = [(cell.id.category, cell.id.seed) for cell in made.cells]
    jobs = []
    for number, part in enumerate((cells[:2], cells[2:4], cells[4:])):
        pack = {"entries": [{"words": list(made.cells[0].words), "cells": part}], "config_dirs": []}
        records.replace_text(folder / f"{number}.json", json.dumps(pack))
        jobs.append({"id": f"7_{number}", "pack": f"sweeps/s/{number}.json"})
    remember(tmp_path, *words, launch="slurm", jobs=jobs)
    finish(made, made.cells[0].id)
    cluster.write_text("7_0|CANCELLED\n7_1|RUNNING\n7_2|PENDING\n")
    text = shown()
    assert "launch=slurm, 3 jobs: it goes on" in text
    assert "jobs: 1 CANCELLED, 1 RUNNING, 1 PENDING" in text
    assert "1 jobs ended and left 1 cells without a record" in text
    assert "7_0 CANCELLED: 1 cells" in text
    assert "when the other jobs have ended, the same command runs what is missing" in text
    cluster.write_text("7_0|CANCELLED\n7_1|TIMEOUT\n")  # the third is long forgotten
    text = shown()
    assert "nothing of it runs any more" in text
    assert "7_2 UNKNOWN: 2 cells" in text
    assert "\nthe same command runs what is missing: adbench run method=random" in text
    cluster.unlink()  # Slurm does not answer
    text = shown()
    assert "Slurm says nothing of them here" in text
    assert "if nothing of it runs any more, the same command" in text


def test_a_process_of_a_job_is_a_sign_of_life(tmp_path: Path) -> None:
    sweep = remember(tmp_path, launch="slurm", jobs=[{"id": "7_0", "pack": "x"}])
    assert sweep.living([], {}) is None
    record = records.replace_text
    said = {
        "cells": [], "since": "2026-11-23T10:00:00+00:00", "stage": "", "done": 0, "total": None,
        "device": "cpu", "job": "7_0", "machine": "node~00000000", "pid": 7,
    }  # fmt: skip
    record(tmp_path / "results" / "running" / "node~00000000-7.json", json.dumps(said))
    assert sweep.living(running.read(tmp_path / "results"), {}) is True


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["method=a", "seed=0,1"], "adbench run method=a seed=0,1"),
        (["method=a,b"], "adbench run -m method=a,b"),
        (["method=glob(*)"], "adbench run -m 'method=glob(*)'"),
        (["method=a", "metric.x=[1,2]"], "adbench run method=a 'metric.x=[1,2]'"),
    ],
)
def test_commands_can_be_pasted(words: list[str], shown: str) -> None:
    assert history.command(words) == shown


def test_durations() -> None:
    assert [duration(s) for s in (5, 89, 90, 3599, 11100, 187200)] == [
        "5 s", "89 s", "2 min", "1 h 00 min", "3 h 05 min", "2 d 4 h",
    ]  # fmt: skip

"""What goes wrong in one fit stays in it, and a process that is stopped or runs out of disk loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ad_bench.records import Record, read_all
from tests.runner.conftest import write_category

Call = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
BASE = (
    "dataset=mvtec",
    "runtime.device=cpu",
    "runtime.latency_repeats=0",
    "save.pictures=false",
    "metric.intervals.replicates=0",
)
EPOCHS = 30

METHODS = '''"""Methods that are stopped, run out of memory or fill the disk."""
import gc
import os
import random
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import torch

from ad_bench.contract import Method, Prediction
from ad_bench.runner import stopping

TOO_MUCH = 1 << 50  # bytes
HELD = []


def held(tensor):
    """Keeps watch over a tensor without keeping it."""
    HELD.append(weakref.ref(tensor))


def check_freed():
    if any(one() is not None for one in HELD):
        raise AssertionError("what ran out of memory is still held")


class Plain(Method):
    """Scores by the distance to the mean image's brightness, times a factor that training moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def fit(self, train, run):
        pass

    def predict(self, inputs):
        maps = (inputs.images.mean(1) - 0.45).abs() * self.factor
        return Prediction(maps.amax((1, 2)), maps)


class Counting(Plain):
    """A training that draws from every generator; it says each epoch that begins, and takes its time."""

    def fit(self, train, run):
        noise = run.generator("noise")
        for epoch in run.epochs(int(os.environ.get("EPOCHS", "30"))):
            if "TRACE" in os.environ:
                with open(os.environ["TRACE"], "a") as file:
                    file.write(f"{epoch} ")
            time.sleep(float(os.environ.get("SLOW", "0")))
            draw = torch.rand((), generator=noise) + torch.rand(()) + random.random() + np.random.rand()
            self.factor = (self.factor + draw).float()


class Hungry(Plain):
    """Two images at once are all that it has memory for."""

    def predict(self, inputs):
        check_freed()
        if len(inputs.images) > 2:
            held(inputs.images)
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return super().predict(inputs)


class Starving(Plain):
    """Not even one image fits."""

    def predict(self, inputs):
        torch.empty(TOO_MUCH, dtype=torch.uint8)


class Greedy(Plain):
    def fit(self, train, run):
        check_freed()
        self.big = torch.zeros(1000, requires_grad=True)
        held(self.big)
        batch = next(iter(train.batches()))
        held(batch.images)
        loss = (self.big * 2).sum()
        held(loss)
        np.empty(TOO_MUCH, np.uint8) if len(HELD) > 3 else torch.empty(TOO_MUCH, dtype=torch.uint8)


class Quits(Plain):
    def fit(self, train, run):
        sys.exit("bye")


class Diverges(Plain):
    def fit(self, train, run):
        for epoch in run.epochs(3):
            for step in range(4):
                run.loss(torch.tensor(float("inf") if (epoch, step) == (1, 2) else 1.0))


class SlowToKeep(Plain):
    """The limit strikes when its state is asked for a second time, which is to write it down."""

    asked = 0

    def state_dict(self, *args, **kwargs):
        self.asked += 1
        if self.asked == 2:
            stopping._state.limit = time.monotonic()
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(0.1)
            print("struck while the record is written")
        return super().state_dict(*args, **kwargs)


class Spoils(Plain):
    """Before it learns the second category something happens to the disk."""

    fits = 0

    def __init__(self):
        super().__init__()
        self.register_buffer("large", torch.rand(300_000))

    def fit(self, train, run):
        Spoils.fits += 1
        if Spoils.fits == 2 and "SPOIL" in os.environ:
            subprocess.run(os.environ["SPOIL"], shell=True)
        for epoch in run.epochs(3):
            self.factor = self.factor + torch.rand(())
'''
NAMES = {
    "plain": "Plain",
    "counting": "Counting",
    "hungry": "Hungry",
    "starving": "Starving",
    "greedy": "Greedy",
    "quits": "Quits",
    "diverges": "Diverges",
    "slow_to_keep": "SlowToKeep",
    "spoils": "Spoils",
}


def write_methods(folder: Path) -> None:
    (folder / "method").mkdir(parents=True)
    (folder / "isolated_methods.py").write_text(METHODS)
    for ident, name in NAMES.items():
        (folder / "method" / f"{ident}.yaml").write_text(
            f"title: {name}\ntaxonomy: baseline\nsource: ours\nneeds: []\n"
            f"model: {{_target_: isolated_methods.{name}}}\ninput: {{size: 48}}\n"
            "paper_eval: {size: 48, mask_interpolation: nearest, mask_rule: nearest}\n"
            "loader: {batch_size: 5}\npaper: {arxiv: null, selection: last}\n"
        )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two categories of six test images each, and `mine` with the methods above."""
    for category in ("bottle", "cable"):
        write_category(tmp_path / "data" / "mvtec", category)
    write_methods(tmp_path / "mine")
    return tmp_path


def words(method: str, *more: str) -> tuple[str, ...]:
    return ("run", "-m", f"method={method}", *BASE, *more, "--config-dir", "mine")


def start(place: Path, *given: str, **env: str) -> subprocess.Popen[str]:
    """The command with a cache of its own below `place`."""
    return subprocess.Popen(
        [sys.executable, "-m", "ad_bench", *given],
        cwd=place,
        env={**os.environ, "ADBENCH_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(place: Path, *given: str, **env: str) -> subprocess.CompletedProcess[str]:
    process = start(place, *given, **env)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(given, process.returncode, out, err)


def records(results: Path) -> dict[str, Record]:
    found, problems = read_all(results)
    assert problems == []
    return {f"{r['method']}/{r['category']}": r for r in found}


def numbers(results: Path) -> dict[str, Any]:
    """All that a run computes: the metrics and every score."""
    found = {path.parts[-5]: path.read_text() for path in (results / "cells").rglob("samples.csv")}
    return {key: (r["metrics"], found[r["category"]]) for key, r in records(results).items()}


def left_over(*folders: Path) -> list[str]:
    """Names of temporary things, wherever they lie."""
    return [p.name for folder in folders for p in folder.rglob(".*")]


# --- memory


def test_too_little_memory_halves_the_batch_and_no_score_depends_on_it(place: Path) -> None:
    answer = run(place, *words("hungry,plain", "category=bottle", "save.model=true"))
    assert answer.returncode == 0, answer.stderr
    found = records(place / "results")
    (warning,) = found["hungry/bottle"]["warnings"]
    assert warning.startswith("memory ran out with 5 images at once")
    assert "2 were scored at once" in warning
    assert "hungry on mvtec/bottle: memory ran out with 5 images" in answer.stderr
    assert found["plain/bottle"]["warnings"] == []
    assert found["hungry/bottle"]["metrics"] == found["plain/bottle"]["metrics"]
    sheets = sorted((place / "results").rglob("samples.csv"))
    assert len(sheets) == 2
    assert sheets[0].read_text() == sheets[1].read_text()
    (model,) = (path.parent for path in (place / "results").rglob("hungry/*/*/model.safetensors"))
    predicted = run(place, "predict", str(model), "data/mvtec/bottle/test", "--config-dir", "mine")
    assert predicted.returncode == 0, predicted.stderr
    assert "memory ran out with 5 images at once" in predicted.stderr
    assert "6 images scored" in predicted.stdout


def test_what_fails_in_any_way_is_a_record_and_the_sweep_goes_on(place: Path) -> None:
    answer = run(place, *words("greedy,starving,quits,diverges,plain"))
    assert answer.returncode == 1, answer.stderr
    assert "2 done, 8 failed" in answer.stderr
    found = records(place / "results")
    error = {key: r["error"] for key, r in found.items() if r["status"] == "failed"}
    assert error["greedy/bottle"]["type"] == "RuntimeError"
    assert "isolated_methods.py" in error["greedy/bottle"]["traceback"]
    # The second fit found that of the first nothing was held any more; then numpy ran out of memory.
    assert error["greedy/cable"]["type"].endswith("MemoryError"), error["greedy/cable"]
    for key in ("greedy/bottle", "greedy/cable", "starving/bottle"):
        assert "try a smaller method.loader.batch_size or input" in error[key]["message"]
    assert (error["quits/bottle"]["type"], error["quits/bottle"]["message"]) == ("SystemExit", "bye")
    assert error["diverges/cable"]["type"] == "TrainingError"
    assert error["diverges/cable"]["message"].startswith("the loss is inf in epoch 2, step 3;")
    assert found["plain/cable"]["status"] == "done"


# --- time


def test_a_time_limit_fails_a_fit_which_goes_on_with_a_higher_one(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    given = words("counting", "category=bottle")
    answer = run(place, *given, "runtime.max_minutes=0.1", SLOW="0.6")
    assert answer.returncode == 1, answer.stderr
    (record,) = records(place / "results").values()
    assert record["error"]["type"] == "TimeLimitError"
    message = record["error"]["message"]
    assert message.startswith("stopped after 0.1 minutes (runtime.max_minutes) in: train (30 epochs), epoch ")
    assert "is kept: rerun=failed with a higher limit goes on from there" in message
    kept = int(message.partition("The checkpoint of epoch ")[2].split()[0])
    assert 0 < kept < EPOCHS
    assert "time.sleep" in record["error"]["traceback"]  # where it was
    again = run(place, *given)
    assert "1 already failed" in again.stderr
    answer = run(place, *given, "rerun=failed", "runtime.max_minutes=5")
    assert answer.returncode == 0, answer.stderr
    (record,) = records(place / "results").values()
    assert record["notes"]["resumed_at_epoch"] == kept
    assert numbers(place / "results") == undisturbed
    assert not list((place / "cache" / "checkpoints").iterdir())


def test_a_limit_never_cuts_a_record_short(place: Path) -> None:
    given = words("slow_to_keep", "category=bottle", "save.model=true", "runtime.max_minutes=60")
    answer = run(place, *given)
    assert "struck while the record is written" in answer.stdout
    assert answer.returncode == 0, answer.stderr
    (record,) = records(place / "results").values()
    assert record["status"] == "done"
    assert list((place / "results").rglob("model.safetensors"))


def test_a_limit_that_means_nothing_is_refused(place: Path) -> None:
    answer = run(place, *words("plain", "runtime.max_minutes=0"))
    assert answer.returncode == 2
    assert "runtime.max_minutes=0: expected minutes above 0" in answer.stderr
    assert not list((place / "results").rglob("record.json"))


# --- signals


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `counting` gives on bottle when nobody disturbs it."""
    place = tmp_path_factory.mktemp("undisturbed")
    write_category(place / "data" / "mvtec", "bottle")
    write_methods(place / "mine")
    answer = run(place, *words("counting", "category=bottle"))
    assert answer.returncode == 0, answer.stderr
    return numbers(place / "results")


def in_epoch(place: Path, process: subprocess.Popen[str], epoch: int) -> None:
    """Return when the training has begun this epoch."""
    trace, deadline = place / "trace", time.monotonic() + 120
    while not trace.exists() or str(epoch) not in trace.read_text().split():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_saves_the_training_and_the_same_command_goes_on(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    given = words("counting", "category=bottle", "runtime.checkpoint_minutes=60")
    process = start(place, *given, SLOW="1", TRACE=str(place / "trace"))
    in_epoch(place, process, 2)
    time.sleep(0.2)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # from Slurm, and once more from a supervisor
    _, text = process.communicate(timeout=30)
    assert time.monotonic() - sent < 25
    assert process.returncode == 130, text
    kept = int(text.partition("finished cells and the checkpoint of epoch ")[2].split()[0])
    assert f"epoch {kept} of 30 are kept, the same command goes on" in text
    assert kept >= 3
    assert "Traceback" not in text
    (checkpoint,) = (place / "cache" / "checkpoints").rglob("*.pt")
    assert checkpoint.name == f"00-{kept - 1:08}.pt"
    assert left_over(place / "results", place / "cache") == []
    assert not list((place / "results").rglob("record.json"))
    answer = run(place, *given)
    assert answer.returncode == 0, answer.stderr
    (record,) = records(place / "results").values()
    assert record["notes"]["resumed_at_epoch"] == kept
    assert numbers(place / "results") == undisturbed


@pytest.mark.parametrize(
    ("setting", "signals"),
    [
        ("runtime.grace_seconds=1", [signal.SIGTERM]),  # shorter than an epoch
        ("runtime.checkpoint_minutes=null", [signal.SIGTERM]),  # nothing to wait for
        ("runtime.grace_seconds=60", [signal.SIGTERM, signal.SIGTERM]),  # a second one does not wait
        ("runtime.grace_seconds=60", [signal.SIGINT]),  # nor does Ctrl-C
    ],
)
def test_a_long_epoch_does_not_hold_up_a_stop(place: Path, setting: str, signals: list[int]) -> None:
    process = start(
        place, *words("counting", "category=bottle", setting), SLOW="120", TRACE=str(place / "trace")
    )
    in_epoch(place, process, 0)
    for number, signum in enumerate(signals):
        if number:
            time.sleep(2.3)
            assert process.poll() is None
        process.send_signal(signum)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 130, text
    assert "interrupted; finished cells are kept, the same command goes on" in text
    assert "Traceback" not in text
    assert left_over(place / "results", place / "cache") == []


# --- disks


@pytest.fixture
def disk(place: Path) -> Iterator[Callable[[str], Path]]:
    """disk("size=1m") -> an empty file system of that size, gone at the end."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = place / "disk"
        folder.mkdir()
        tried = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if tried.returncode:
            pytest.skip(f"a small file system needs root and mount: {tried.stderr.strip()}")
        mounted.append(folder)
        return folder

    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("a small file system (tmpfs) needs Linux and mount")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FILL = "cat /dev/zero > disk/filler 2> /dev/null"
LEAVE_SOME = "head -c $(($(df --output=avail -B1 disk | tail -n 1) - 400000)) /dev/zero > disk/filler"
NO_NAMES = "mkdir disk/files; i=0; while : 2> /dev/null > disk/files/$i; do i=$((i + 1)); done"
READ_ONLY = "mount -o remount,ro disk"
ON_DISK = ("paths.results=disk/results", "store=false", "runtime.checkpoint_minutes=null")
CACHED = ("paths.cache=disk/cache",)


def repair(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    shutil.rmtree(disk / "files", ignore_errors=True)
    (disk / "filler").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("options", "given", "spoil", "said"),
    [
        ("size=4m", ON_DISK, FILL, "cannot write the record of mvtec/cable spoils"),
        ("size=4m", (*ON_DISK, "save.model=true"), LEAVE_SOME, "cannot write the record of mvtec/cable"),
        ("size=4m,nr_inodes=60", ON_DISK, NO_NAMES, "cannot write the record of mvtec/cable spoils"),
        ("size=4m", ON_DISK, READ_ONLY, "cannot write the record of mvtec/cable spoils"),
        ("size=8m", (*CACHED, "runtime.checkpoint_minutes=null"), FILL, "cannot keep images below"),
        ("size=8m", (*CACHED, "runtime.checkpoint_minutes=null"), READ_ONLY, "cannot keep images below"),
        (
            *("size=8m", (*CACHED, "store=false", "runtime.checkpoint_minutes=0")),
            *(LEAVE_SOME, "cannot write the checkpoint"),
        ),
    ],
    ids=[
        *("full-records", "full-model", "no-inodes", "read-only-records"),
        *("full-store", "read-only-store", "full-checkpoints"),
    ],
)
def test_a_disk_that_fails_stops_the_run_and_costs_no_record(
    place: Path, disk: Callable[[str], Path], options: str, given: tuple[str, ...], spoil: str, said: str
) -> None:
    here = disk(options)
    results = here / "results" if given[0] == ON_DISK[0] else place / "results"
    answer = run(place, *words("spoils", *given), SPOIL=spoil)
    assert answer.returncode == 1, answer.stderr
    assert said in answer.stderr.replace("\n", " ")
    assert "Traceback" not in answer.stderr
    assert [r["status"] for r in records(results).values()] == ["done"]
    before = {path: path.read_bytes() for path in results.rglob("cells/**/*.*")}
    if spoil == READ_ONLY and results.is_relative_to(here):
        refused = run(place, *words("spoils", *given))
        assert refused.returncode == 1
        assert "Nothing was run" in refused.stderr
        assert "Traceback" not in refused.stderr
    repair(here)
    answer = run(place, *words("spoils", *given))
    assert answer.returncode == 0, answer.stderr
    assert "1 already done" in answer.stderr
    assert {key: r["status"] for key, r in records(results).items()} == {
        "spoils/bottle": "done",
        "spoils/cable": "done",
    }
    assert before.items() <= {path: path.read_bytes() for path in results.rglob("cells/**/*.*")}.items()
    assert left_over(results / "cells", here) == []

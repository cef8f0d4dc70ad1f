"""launch=local: real workers, and real deaths."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from ad_bench import config
from ad_bench.errors import UsageError
from ad_bench.processes import alive
from ad_bench.runner import workers
from ad_bench.runner.plan import Sharing, make_plan
from ad_bench.runner.progress import Watch
from ad_bench.runner.workers import Supervisor, Tasks, slots, visible_devices
from tests.runner.conftest import records

Call = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
TWO = ("launch=local", "launch.workers_per_device=2", "launch.threads=1", "runtime.threads=1")
MVTEC = ("dataset=mvtec", "runtime.device=cpu", "runtime.latency_repeats=0", "save.pictures=false")


@pytest.fixture
def mortal(tmp_path: Path) -> Path:
    """A method that trains, and dies as it is told."""
    folder = tmp_path / "mortal"
    (folder / "method").mkdir(parents=True)
    (folder / "mortals.py").write_text(
        '''
import ctypes
import hashlib
import os
import signal
import time
from pathlib import Path

import torch

from ad_bench.contract import Method, Prediction

HERE = Path(__file__).parent


class Learner(Method):
    """A mean, learnt by noisy steps: its state, that of its speed and its generators all count."""

    def __init__(self, epochs: int, seconds: float, end: str):
        super().__init__()
        self.count, self.seconds, self.end = epochs, seconds, end
        self.register_buffer("mean", torch.zeros(3))

    def fit(self, train, run):
        run.note(devices=os.environ.get("CUDA_VISIBLE_DEVICES", "none"), workers=torch.get_num_threads())
        speed = torch.nn.BatchNorm1d(3, momentum=0.1)  # torch's optimisers would import its compiler, for 2 s
        noise = run.generator("noise")
        for epoch in run.epochs(self.count, {"speed": speed}):
            for batch in train.batches(batch_size=2, shuffle=True):
                target = batch.images.mean((2, 3)) + 0.1 * torch.randn(3, generator=noise)
                speed(target - self.mean)
                run.loss(speed.running_mean.square().sum())
                self.mean += 0.1 * speed.running_mean
            time.sleep(self.seconds)
            with (HERE / "epochs").open("a") as log:
                log.write(f"{os.getpid()} {epoch}\\n")
        self.last(train)

    def last(self, train):
        """A death, in every other category than bottle."""
        if self.end == "life" or train.samples[0].category == "bottle":
            return
        if self.end == "segfault":
            ctypes.string_at(0)
        elif self.end == "deaf":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000_000)
        elif self.end == "exit":
            os._exit(3)
        elif not (HERE / "killed").exists() or self.end == "always_killed":
            (HERE / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def predict(self, inputs):
        maps = (inputs.images - self.mean[:, None, None]).abs().mean(1)
        return Prediction(maps.amax((1, 2)), maps)
'''
    )
    (folder / "method" / "learner.yaml").write_text(
        "title: Learner\ntaxonomy: baseline\nsource: ours\nneeds: []\n"
        "model: {_target_: mortals.Learner, epochs: 3, seconds: 0, end: life}\n"
        "input: {size: 48}\npaper_eval: {size: 48, mask_interpolation: nearest, mask_rule: nearest}\n"
        "loader: {batch_size: 4}\npaper: {arxiv: null, selection: last}\n"
    )
    return folder


def metrics(tmp_path: Path) -> dict[str, object]:
    """The numbers of every record, by its folder's name within the results."""
    return {f"{key}-{r['seed']}": r["metrics"] for key, r in each(tmp_path)}


def each(tmp_path: Path) -> list[tuple[str, dict]]:  # type: ignore[type-arg]
    from ad_bench.records import read_all

    found, problems = read_all(tmp_path / "results")
    assert problems == []
    return [(f"{r['method']}/{r['category']}", r) for r in found]


def test_workers_give_what_one_process_gives(adbench: Call, data: Path, mortal: Path, tmp_path: Path) -> None:
    words = ("run", "-m", "method=learner,random", "seed=0,1", *MVTEC, "--config-dir", str(mortal))
    assert adbench(*words, "runtime.threads=1").returncode == 0
    inline = metrics(tmp_path)
    shutil.rmtree(tmp_path / "results")
    answer = adbench(*words, *TWO)
    assert answer.returncode == 0, answer.stderr
    assert "[8/8]" in answer.stderr
    assert metrics(tmp_path) == inline
    assert len(inline) == 8
    for _, record in each(tmp_path):
        assert record["hardware"]["workers_on_device"] == 2
        assert record["hardware"]["threads"] == 1
    pids = {line.split()[0] for line in (mortal / "epochs").read_text().splitlines()}
    assert len(pids) in (2, 3)  # one inline, and one or two of the workers
    again = adbench(*words, *TWO)
    assert again.returncode == 0
    assert "0 to run, 8 already done" in again.stderr


DEATHS = {
    "always_killed": "was killed by SIGKILL",
    "segfault": "was killed by SIGSEGV",
    "exit": "ended with exit code 3",
}


def test_a_worker_that_dies_fails_its_cell_alone(
    adbench: Call, data: Path, mortal: Path, tmp_path: Path
) -> None:
    words = ("run", "-m", "method=learner", f"method.model.end={','.join(DEATHS)}", *MVTEC, *TWO)
    answer = adbench(*words, "--config-dir", str(mortal))
    assert answer.returncode == 1, answer.stderr
    assert "3 done, 3 failed" in answer.stderr
    ended = {(r["category"], r["variant"].partition("=")[2]): r for _, r in each(tmp_path)}
    assert len(ended) == 6
    for (category, end), record in ended.items():
        assert record["status"] == ("done" if category == "bottle" else "failed")
        if category == "cable":
            error = record["error"]
            assert error["type"] == "WorkerError"
            assert DEATHS[end] in error["message"]
            assert "2 times now" in error["message"]
            assert "fit learner" in error["message"] or "train (3 epochs)" in error["message"]
            assert ("memory" in error["message"]) == (end == "always_killed")


def test_a_worker_that_hears_no_limit_is_killed(
    data: Path, mortal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(mortal))
    monkeypatch.setattr(workers, "SLACK", 1.0)
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    words = ["method=learner", "method.model.end=deaf", *MVTEC, "launch=local", "store=false"]
    words += ["runtime.max_minutes=0.1", "runtime.grace_seconds=1"]
    fits = make_plan(config.choices(words, [mortal])).fits
    places = slots(launch(threads=1, attempts=2), True, 2)
    with Watch(2, Console(file=StringIO())) as watch:
        ended = Supervisor(fits, [None, None], places, watch, attempts=2, grace=1.0).run()
    assert ended == {"done": 1, "failed": 1}
    error = records(tmp_path)["learner/cable"]["error"]
    assert "did not end within runtime.max_minutes=0.1 and was killed by SIGKILL" in error["message"]


def test_a_worker_killed_once_costs_nothing(adbench: Call, data: Path, mortal: Path, tmp_path: Path) -> None:
    words = ("run", "method=learner", *MVTEC, *TWO, "--config-dir", str(mortal))
    answer = adbench(*words, "method.model.end=killed_once")
    assert answer.returncode == 0, answer.stderr
    assert "was killed by SIGKILL" in answer.stderr
    assert "tried once more" in answer.stderr
    assert "2 done" in answer.stderr


def start(tmp_path: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ad_bench", *words],
        cwd=tmp_path,
        env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_when_the_supervisor_ends_its_workers_end_and_the_same_command_goes_on(
    adbench: Call, data: Path, mortal: Path, tmp_path: Path
) -> None:
    words = ("run", "method=learner", "method.model.epochs=8", "method.model.seconds=0.3", *MVTEC, *TWO)
    words += ("--config-dir", str(mortal))
    found = []
    for sent in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        interrupt(tmp_path, mortal, words, sent)
        answer = adbench(*words, env={"ADBENCH_CACHE": str(tmp_path / "own")})
        assert answer.returncode == 0, answer.stderr
        resumed = ["resumed_at_epoch" in r["notes"] for _, r in each(tmp_path)]
        assert any(resumed) == (sent != signal.SIGINT)  # Ctrl-C stops at once
        found.append(metrics(tmp_path))
    shutil.rmtree(tmp_path / "results")
    adbench(*words, "method.model.seconds=0", "variant=undisturbed")
    assert len(found[0]) == 2
    for other in found:
        assert other == metrics(tmp_path)


def interrupt(tmp_path: Path, mortal: Path, words: tuple[str, ...], sent: signal.Signals) -> None:
    """Start the sweep, signal its supervisor in the middle, and see that all of it ends."""
    log = mortal / "epochs"
    log.write_text("")
    process = start(tmp_path, tmp_path / "own", *words)

    def seen() -> set[int]:
        return {int(line.split()[0]) for line in log.read_text().splitlines() if " " in line}

    # Both of them: a worker that is still to begin would be looked for by nobody afterwards.
    wait_until(lambda: len(log.read_text().splitlines()) >= 3 and len(seen()) == 2)
    pids = seen()
    process.send_signal(sent)
    _, text = process.communicate(timeout=60)
    assert process.returncode == (-9 if sent == signal.SIGKILL else 130), text
    assert "Traceback" not in text
    if sent == signal.SIGTERM:
        assert text.count("of 8") == len(pids), text  # what each training kept
    wait_until(lambda: not any(map(alive, pids)), 20)
    assert not list(tmp_path.rglob("record.json"))
    kept = list((tmp_path / "own" / "checkpoints").rglob("*.pt"))
    assert bool(kept) == (sent != signal.SIGINT)


def test_a_worker_is_dismissed_when_it_has_put_things_away(
    adbench: Call, data: Path, mortal: Path, tmp_path: Path
) -> None:
    """The last record is told before the checkpoint goes and the fit is taken apart."""
    with (mortal / "mortals.py").open("a") as code:
        code.write(
            "\n    def __del__(self):\n        time.sleep(0.7)\n"
            "        with (HERE / 'gone').open('a') as log:\n            log.write('x')\n"
        )
    words = ("run", "method=learner", *MVTEC, *TWO, "--config-dir", str(mortal))
    answer = adbench(*words, env={"ADBENCH_CACHE": str(tmp_path / "own")})
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    assert (mortal / "gone").read_text() == "xx"


def test_random_kills_lose_nothing(adbench: Call, data: Path, mortal: Path, tmp_path: Path) -> None:
    words = ("run", "method=learner", "method.model.seconds=0.1", "seed=0,1,2,3,4", *MVTEC, *TWO)
    words += ("--config-dir", str(mortal), "runtime.checkpoint_minutes=0")
    draws, kills, log = random.Random(0), 0, mortal / "epochs"
    process = start(tmp_path, tmp_path / "own", *words)
    while process.poll() is None:
        time.sleep(0.4)
        living = [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []
        living = sorted({pid for pid in living if alive(pid)} - {process.pid})
        if living and kills < 8:
            os.kill(draws.choice(living), signal.SIGKILL)
            kills += 1
    process.communicate()
    assert kills >= 3
    answer = adbench(*words, "rerun=failed", env={"ADBENCH_CACHE": str(tmp_path / "own")})
    assert answer.returncode == 0, answer.stderr
    adbench("report")
    disturbed = tables(tmp_path)
    shutil.rmtree(tmp_path / "results")
    assert adbench(*words).returncode == 0
    adbench("report")
    assert tables(tmp_path) == disturbed
    assert len(disturbed) >= 12


def tables(tmp_path: Path) -> dict[str, bytes]:
    found = (tmp_path / "results" / "tables").rglob("*.*")
    return {path.name: path.read_bytes() for path in found if path.stem != "costs"}


def launch(**settings: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{"devices": None, "workers_per_device": 1, "threads": None, "attempts": 2, **settings}
    )


def test_workers_are_divided_among_devices_and_threads_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-f00")
    assert visible_devices() == ["2", "GPU-f00"]
    assert [(s.device, s.threads, s.sharing) for s in slots(launch(), False, 9)] == [
        ("2", 8, 1),
        ("GPU-f00", 8, 1),
    ]
    four = slots(launch(workers_per_device=2), False, 9)
    assert [s.device for s in four] == ["2", "GPU-f00", "2", "GPU-f00"]
    assert {(s.threads, s.sharing) for s in four} == {(4, 2)}
    two = slots(launch(workers_per_device=2), False, 2)  # two fits do not share a device
    assert [(s.device, s.threads, s.sharing) for s in two] == [("2", 4, 1), ("GPU-f00", 4, 1)]
    assert [s.device for s in slots(launch(devices=[1]), False, 9)] == ["GPU-f00"]
    three = [(s.device, s.threads) for s in slots(launch(workers_per_device=3), True, 9)]
    assert three == [(None, 5)] * 3
    assert slots(launch(threads=7), True, 9)[0].threads == 7
    with pytest.raises(UsageError, match=r"launch.devices=\[2\].*0 to 1"):
        slots(launch(devices=[2]), False, 9)
    with pytest.raises(UsageError, match=r"launch.devices=\[0\].*none"):
        slots(launch(devices=[0]), True, 9)
    for key in ("workers_per_device", "attempts"):
        with pytest.raises(UsageError, match=f"launch.{key}=0"):
            slots(launch(**{key: 0}), False, 9)


def test_devices_are_found_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_devices() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    assert visible_devices() == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_devices() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


def test_each_worker_sees_its_device_alone(adbench: Call, data: Path, mortal: Path, tmp_path: Path) -> None:
    words = (
        "run",
        "method=learner",
        "dataset=mvtec",
        "method.model.seconds=0.5",
        "runtime.latency_repeats=0",
    )
    words += ("launch=local", "--config-dir", str(mortal))
    answer = adbench(*words, env={"CUDA_VISIBLE_DEVICES": "5,7"})  # no such devices: torch takes the CPU
    assert answer.returncode == 0, answer.stderr
    assert {r["notes"]["devices"] for r in records(tmp_path).values()} == {"5", "7"}
    refused = adbench(*words, "rerun=always", "runtime.device=cuda:1")
    assert refused.returncode == 2
    assert "launch.devices=[1]" in refused.stderr


def test_long_fits_come_first_and_a_worker_stays_with_its_kind() -> None:
    def fit(dataset: str, name: str) -> SimpleNamespace:
        ident = SimpleNamespace(dataset=dataset)
        return SimpleNamespace(
            cells=[SimpleNamespace(id=ident)], geometry="g", weights=(), name=name, sharing=None
        )

    fits = [fit("a", "a1"), fit("b", "b1"), fit("a", "a2"), fit("b", "b2"), fit("a", "long")]
    tasks = Tasks(fits, [1.0, 1.0, 1.0, None, 90.0], workers=2)  # type: ignore[arg-type, list-item]
    kinds = workers.kind(fits[0]), workers.kind(fits[1])  # type: ignore[arg-type]
    taken = tasks.take(None, Counter())
    assert taken is not None
    assert taken.fit.name == "long"  # type: ignore[attr-defined]
    other = tasks.take(None, Counter([kinds[0]]))
    assert other is not None
    assert other.fit.name == "b2"  # type: ignore[attr-defined]  # unknown counts a minute
    names = [tasks.take(kinds[0], Counter()).fit.name for _ in range(3)]  # type: ignore[union-attr, attr-defined]
    assert names == ["a1", "a2", "b1"]
    assert tasks.take(None, Counter()) is None
    assert not tasks


def test_a_worker_stays_with_features_that_it_has_and_others_take_others() -> None:
    shared = {name: Sharing((name,), frozenset({1})) for name in "ab"}

    def fit(name: str) -> SimpleNamespace:
        ident = SimpleNamespace(dataset="d")
        cells = [SimpleNamespace(id=ident)]
        sharing = shared.get(name[0])
        return SimpleNamespace(cells=cells, geometry="g", weights=(), name=name, sharing=sharing)

    fits = [fit(name) for name in ("a1", "a2", "b1", "lone", "b2", "a3")]
    tasks = Tasks(fits, [1.0] * 6, workers=1)  # type: ignore[arg-type]
    warm = workers.kind(fits[0])  # type: ignore[arg-type]

    def take(own: str, others: str) -> str:
        taken = tasks.take(warm, Counter(), shared.get(own), {shared[one] for one in others})
        assert taken is not None
        return taken.fit.name  # type: ignore[attr-defined, no-any-return]

    asked = [("b", "a"), ("", "ab"), ("", "a"), ("", "a"), ("a", ""), ("b", "a")]
    assert [take(*one) for one in asked] == ["b1", "lone", "b2", "a1", "a2", "a3"]

"""Trainings that are killed go on with the same result; what cannot go on says where it stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ad_bench.errors import PredictionError, ResultsError, TrainingError
from ad_bench.runner.best import Tested
from ad_bench.runner.progress import Watch
from ad_bench.runner.training import Checkpoints, WatchedRun
from tests import tiny

CPU = torch.device("cpu")
EPOCHS = 6


class Net(nn.Module):
    """Two trainings one after the other; the second starts from what the first made."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)
        self.norm = nn.BatchNorm2d(4)
        self.trained: list[tuple[int, int]] = []

    def fit(self, train: tiny.TensorTrainSet, run: WatchedRun, stop: tuple[int, int] | None = None) -> None:
        noise = run.generator("noise")
        for loop, part in enumerate((self.first, self.second)):
            optimizer = torch.optim.Adam(part.parameters(), 0.01)
            for epoch in run.epochs(EPOCHS, {"optimizer": optimizer}):
                self.trained.append((loop, epoch))
                for batch in train.batches(4, shuffle=True):
                    features = self.norm(self.first(batch.images))
                    made = self.second(features) if loop else features
                    # every source of randomness that a method may draw from
                    wanted = torch.rand(1, generator=noise) + torch.rand(1)
                    wanted = wanted + random.random() + float(np.random.rand())  # noqa: NPY002
                    optimizer.zero_grad()
                    run.loss((made - wanted).square().mean()).backward()
                    optimizer.step()
                if stop == (loop, epoch):
                    os.kill(os.getpid(), signal.SIGKILL)


def trained(
    folder: Path | None, stop: tuple[int, int] | None = None, seed: int = 3
) -> tuple[Net, WatchedRun]:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    net, train = Net(), tiny.TensorTrainSet(tiny.textures(12))
    kept = Checkpoints(folder, 0.0) if folder else None
    run = WatchedRun(seed, CPU, Watch(1), kept, method=net, train=train)  # type: ignore[arg-type]
    net.fit(train, run, stop)
    return net, run


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("stop", [(0, 0), (0, 3), (0, 5), (1, 0), (1, 4)])
def test_a_killed_training_goes_on_with_the_same_result(tmp_path: Path, stop: tuple[int, int]) -> None:
    code = f"from tests.runner.test_training import *; trained(Path({str(tmp_path)!r}), {stop!r})"
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    whole, _ = trained(None)
    rest, run = trained(tmp_path)
    assert same(rest, whole)
    # the epoch that was killed before its end is trained again, nothing before it is
    assert rest.trained == [turn for turn in whole.trained if turn >= stop]
    assert (run.resumed is None) == (stop == (0, 0))


def test_a_finished_training_trains_nothing_again(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path)
    again, run = trained(tmp_path)
    assert same(again, whole)
    assert again.trained == []
    assert run.resumed == EPOCHS


def test_the_last_two_are_kept_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["01-00000004.pt", "01-00000005.pt"]
    (tmp_path / "01-00000005.pt").write_bytes(b"torn")
    again, _ = trained(tmp_path)
    assert again.trained == [(1, 5)]
    assert same(again, whole)
    Checkpoints(tmp_path, 0.0).remove()
    assert not tmp_path.exists()


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    trained(tmp_path)
    newest = sorted(tmp_path.iterdir())[-1]

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    torch.save({"method": Hostile()}, newest)
    again, _ = trained(tmp_path)
    assert again.trained == [(1, 5)]  # refused, so the one before it is taken
    assert not (tmp_path / "hacked").exists()


def test_checkpoints_are_not_written_more_often_than_asked(tmp_path: Path) -> None:
    run = WatchedRun(0, CPU, Watch(1), Checkpoints(tmp_path / "few", 3600.0))
    assert list(run.epochs(3)) == [0, 1, 2]
    assert not (tmp_path / "few").exists()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    run = WatchedRun(0, CPU, Watch(1), Checkpoints(blocked, 0.0))
    with pytest.raises(ResultsError, match=r"cannot write the checkpoint .*runtime.checkpoint_minutes=null"):
        list(run.epochs(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_says_epoch_and_step(value: float) -> None:
    run, epochs = WatchedRun(0, CPU, Watch(1)), 0
    for epoch in run.epochs(2):
        for _ in range(2):
            run.loss(torch.tensor(1.0))
        epochs = epoch + 1
        if epochs == 2:
            with pytest.raises(TrainingError, match=rf"the loss is {value} in epoch 2, step 3"):
                run.loss(torch.tensor(value))
    assert epochs == 2


def test_debug_runs_train_few_epochs() -> None:
    run = WatchedRun(0, CPU, Watch(1), max_epochs=2)
    assert list(run.epochs(9)) == [0, 1]


@pytest.mark.parametrize(
    ("count", "wanted", "on_the_way"),
    [(9, 3, [3, 6]), (3, 10, [1, 2]), (10, 4, [3, 5, 8]), (1, 10, []), (1000, 2, [500]), (5, 1, [])],
)
def test_the_test_epochs_are_spread_evenly_and_the_last_is_scored_after_the_fit(
    count: int, wanted: int, on_the_way: list[int]
) -> None:
    seen: list[object] = []
    tested = Tested(lambda: seen.append("score") or {}, wanted)
    run = WatchedRun(0, CPU, Watch(1), tested=tested)
    list(run.epochs(count, ready=lambda: seen.append("ready")))
    assert [one["epoch"] for one in tested.held] == on_the_way
    assert seen == ["ready", "score"] * len(on_the_way)


def test_the_best_epoch_of_each_metric_is_kept_with_its_number() -> None:
    nan = float("nan")
    made = iter([(0.7, nan), (0.9, 0.5)])

    def score() -> dict[str, dict[str, dict[str, float]]]:
        image, pixel = next(made)
        return {"bottle": {"image": {"a": image}, "full": {"p": pixel, "never": nan}}}

    tested = Tested(score, 3)
    tested.take(0)
    tested.take(1)
    last = {"image": {"a": 0.8}, "full": {"p": 0.6, "never": nan}}
    best = tested.best("bottle", last)
    assert best["tested"] == 3
    assert best["metrics"]["image"] == {"a": {"value": 0.9, "epoch": 2}}
    assert best["metrics"]["full"] == {"p": {"value": 0.6, "epoch": "last"}}


def test_an_epoch_without_finite_scores_is_left_out() -> None:
    def broken() -> dict[str, dict[str, dict[str, float]]]:
        raise PredictionError("the anomaly score is nan")

    tested = Tested(broken, 3)
    tested.take(0)
    assert tested.best("bottle", {"image": {"a": 0.8}})["tested"] == 1


def test_looking_at_test_epochs_changes_nothing_in_the_training() -> None:
    """Not even where scoring draws random numbers, passes over the images and leaves evaluation mode on."""

    def fitted(look: bool) -> Net:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        net, train = Net(), tiny.TensorTrainSet(tiny.textures(12))

        def score() -> dict[str, dict[str, dict[str, float]]]:
            assert not net.training
            torch.rand(5), random.random(), np.random.rand(3)  # noqa: NPY002
            torch.rand(2, generator=run._generators["noise"])
            list(train.batches(4, shuffle=True))
            return {}

        tested = Tested(score, EPOCHS) if look else None
        run = WatchedRun(3, CPU, Watch(1), None, None, tested, net, train)  # type: ignore[arg-type]
        net.fit(train, run)
        assert net.training
        return net

    assert same(fitted(look=True), fitted(look=False))

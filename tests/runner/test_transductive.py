"""Methods that score the images of a test set by one another."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import PredictionError
from ad_bench.records import read_all
from ad_bench.runner.scoring import Scorer

Call = Callable[..., subprocess.CompletedProcess[str]]
IMAGES = np.random.default_rng(0).integers(0, 255, (7, 8, 8, 3)).astype(np.uint8)


class Above(Method):
    """By how much an image is brighter than the mean of all, `memory` images at once at most."""

    def __init__(self, memory: int = 99, answers: int | None = None) -> None:
        super().__init__()
        self.memory, self.answers = memory, answers

    def fit(self, train: TrainSet, run: Run) -> None:
        raise AssertionError("is fitted by nobody here")

    def predict(self, inputs: Inputs) -> Prediction:
        return next(iter(self.predict_all([inputs])))

    def predict_all(self, batches: Iterable[Inputs]) -> Iterator[Prediction]:
        assert not torch.is_grad_enabled()
        found = []
        for inputs in batches:
            if len(inputs.images) > self.memory:
                raise MemoryError
            found.append(inputs.images.mean(1))
        mean = torch.cat(found).mean()
        for maps in (found * 2)[: self.answers or len(found)]:
            yield Prediction(maps.mean((1, 2)) - mean, maps - mean)


def scores(method: Method, size: int) -> tuple[np.ndarray, Scorer, list[int]]:
    scorer, seen = Scorer(method, torch.device("cpu"), size, together=True), []  # type: ignore[var-annotated]
    found = scorer.all(IMAGES, [""] * len(IMAGES), seen.append)
    maps = [one for _, maps in found if maps is not None for one in maps]
    assert len(maps) == len(IMAGES)
    return np.concatenate([one for one, _ in found]), scorer, seen


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_the_size_of_batches_does_not_matter(size: int) -> None:
    found, _, seen = scores(Above(), size)
    wanted = IMAGES.mean((1, 2, 3)) / 255
    np.testing.assert_allclose(found, wanted - wanted.mean(), atol=1e-6)
    assert seen[-1] == len(IMAGES)


def test_too_little_memory_begins_anew_with_half_the_images() -> None:
    wanted, _, _ = scores(Above(), 7)
    found, scorer, _ = scores(Above(memory=2), 7)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert scorer.size == 1
    assert "memory ran out with 3 images at once" in scorer.warnings[0]
    with pytest.raises(MemoryError):
        scores(Above(memory=0), 7)


@pytest.mark.parametrize(
    ("answers", "match"), [(2, "2 answers for 3 batches"), (4, "more answers than the 3")]
)
def test_an_answer_for_every_batch(answers: int, match: str) -> None:
    with pytest.raises(PredictionError, match=f"Above.predict_all gave {match}"):
        scores(Above(answers=answers), 3)


def test_a_run_is_marked_and_sees_the_whole_test_set(adbench: Call, data: Path, tmp_path: Path) -> None:
    words = ["run", "method=patchcore_ensemble", "dataset=mvtec", "category=bottle", "runtime.device=cpu"]
    words += [f"dataset.input={{size: [{48}, {48}]}}", "runtime.latency_repeats=0", "save.pictures=false"]
    for member in range(3):
        node = f"method.model.members.{member}"
        words += [f"{node}.backbone.name=test_resnet.adbench", f"{node}.backbone.weights=bundled"]
        words += [f"{node}.coreset_ratio=0.1", f"{node}.backbone.layers=[{member + 1}]"]
    for extra in (
        [],
        ["runtime.batch_size=1", "variant=one_by_one"],
        ["method.model.transductive=false", "variant=calibrated"],
    ):
        answer = adbench(*words, *extra)
        assert answer.returncode == 0, answer.stderr
    found, problems = read_all(tmp_path / "results")
    assert (len(found), problems) == (3, [])
    (alone,) = (record for record in found if record["variant"] == "one_by_one")
    (calibrated,) = (record for record in found if record["variant"] == "calibrated")
    (whole,) = (record for record in found if record is not alone and record is not calibrated)
    assert whole["metrics"] == alone["metrics"] != calibrated["metrics"]
    assert "transductive" in whole["marks"]
    assert "transductive" not in calibrated["marks"]

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from ad_bench.metrics import PixelTruth, evaluate
from ad_bench.metrics.bounded import rank_bounded
from ad_bench.metrics.curves import POINTS, curves
from ad_bench.metrics.ranking import rank_images, rank_pixels


def scores_and_labels(count: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    labels = (rng.random(count) < 0.3).astype(int)
    scores = (rng.normal(size=count) + labels).astype(np.float32)
    return (np.round(scores, 1) if ties else scores), labels


def off_the_line(curve: dict[str, list[float]], x: np.ndarray, y: np.ndarray) -> float:
    """The farthest that a point of the curve lies from the polyline (x, y), measured along y."""
    worst = 0.0
    for at, value in zip(curve["x"], curve["y"], strict=True):
        same = np.abs(x - at) < 2e-6
        reachable = [y[same].min(), y[same].max()] if same.any() else [np.interp(at, x, y)] * 2
        worst = max(worst, reachable[0] - value, value - reachable[1])
    return worst


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [40, 3000])
def test_the_points_of_roc_lie_on_that_of_scikit_learn(count: int, ties: bool) -> None:
    scores, labels = scores_and_labels(count, ties)
    found = curves(rank_images(scores, labels))["roc"]
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert len(found["x"]) <= POINTS
    assert (found["x"][0], found["y"][0], found["x"][-1], found["y"][-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(found["x"]) >= 0)
    assert np.all(np.diff(found["y"]) >= 0)
    assert off_the_line(found, fpr, tpr) < 2e-6
    area = np.trapezoid(found["y"], found["x"])
    assert abs(area - np.trapezoid(tpr, fpr)) < (1e-6 if count == 40 else 2e-3)  # thin, but no other curve


def test_points_stand_evenly_along_a_curve_however_its_scores_crowd() -> None:
    crowded = np.linspace(10, 11, 9900)  # found at once: 99 % of the points of the exact curve
    spread = np.linspace(0, 1, 100)
    normal = np.linspace(0, 1, 5000)
    scores = np.concatenate([crowded, spread, normal])
    found = curves(rank_images(scores, np.arange(len(scores)) < 10_000))["roc"]
    steps = np.hypot(np.diff(found["x"]), np.diff(found["y"]))
    assert len(found["x"]) > 100
    assert steps.max() < 3 * 2 / (POINTS - 1)


@pytest.mark.parametrize("ties", [False, True])
def test_the_points_of_precision_and_recall_are_those_of_scikit_learn(ties: bool) -> None:
    scores, labels = scores_and_labels(60, ties)
    found = curves(rank_images(scores, labels))["pr"]
    precision, recall, _ = precision_recall_curve(labels, scores)
    theirs = {(round(r, 6), round(p, 6)) for r, p in zip(recall, precision, strict=True)}
    assert {(x, y) for x, y in zip(found["x"], found["y"], strict=True)} <= theirs
    assert found["x"][-1] == 1


def test_the_overlap_of_regions_counts_small_ones_as_much_as_large_ones() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    mask[4:, 4:] = True  # 16 pixels
    scores = np.zeros((8, 8), np.float32)
    scores[0, 0] = 2  # half of the overlap is found at once
    scores[2, 2] = 1
    found = curves(rank_pixels([scores], PixelTruth.of([mask]), regions=True))["pro"]
    assert list(zip(found["x"], found["y"], strict=True))[:3] == [(0, 0), (0, 0), (0, 0.5)]
    negatives = 64 - 17
    assert (round(1 / negatives, 6), 0.5) in zip(found["x"], found["y"], strict=True)


def test_bounded_rankings_have_the_same_curves() -> None:
    rng = np.random.default_rng(3)
    mask = np.zeros((64, 64), bool)
    mask[20:30, 5:40] = True
    maps = [(rng.normal(size=(64, 64)) + mask).astype(np.float32)]
    truth = PixelTruth.of([mask])
    exact, bounded = (
        curves(ranked)
        for ranked in (rank_pixels(maps, truth, regions=True), rank_bounded(maps, truth, regions=True))
    )
    assert set(exact) == set(bounded) == {"roc", "pr", "pro"}
    for name in exact:
        at = np.linspace(0.01, 0.99, 50)
        a, b = (np.interp(at, c[name]["x"], c[name]["y"]) for c in (exact, bounded))
        assert np.abs(a - b).max() < 0.03  # both thinned to 129 points, at other places


def test_curves_are_given_where_asked_for_and_two_classes_are_there() -> None:
    mask, scores = np.eye(4, dtype=bool), np.eye(4, dtype=np.float32)
    assert set(evaluate([scores], [mask], [1.0], [1], draw=True).curves) == {"roc", "pr", "pro"}
    assert evaluate([scores], [mask], [1.0], [1]).curves == {}
    assert evaluate([scores], [np.zeros((4, 4))], [1.0], [1], draw=True).curves == {}

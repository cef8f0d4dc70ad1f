"""Greedy k-centre selection against brute force in double precision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ad_bench.parts import coreset
from ad_bench.parts.coreset import approximate_greedy_coreset, greedy_coreset, random_projection


def table(points: torch.Tensor) -> NDArray[np.float64]:
    """All distances, from plain differences."""
    x = points.double().numpy()
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


def brute_force(distance: NDArray[np.float64], initial: NDArray[np.float64], count: int) -> list[int]:
    """The reference's loop: farthest first, over the whole table of distances."""
    far, chosen = initial.copy(), []
    for _ in range(count):
        far[chosen] = -1
        chosen.append(int(far.argmax()))
        far = np.minimum(far, distance[:, chosen[-1]])
    return chosen


def radius(distance: NDArray[np.float64], chosen: list[int]) -> float:
    return float(distance[:, chosen].min(1).max())


@pytest.mark.parametrize("offset", [0.0, 1000.0])  # features of real networks lie far from the origin
def test_greedy_equals_brute_force(offset: float) -> None:
    points = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + offset
    distance = table(points)
    for start in (0, 17, -1):
        chosen = greedy_coreset(points, 25, start).tolist()
        assert chosen == [start % 40, *brute_force(distance, distance[:, start], 24)]
        radii = [radius(distance, chosen[:count]) for count in range(1, 26)]
        assert radii == sorted(radii, reverse=True)


@pytest.mark.parametrize("starts", [1, 10, 100])
def test_approximate_equals_brute_force(starts: int) -> None:
    """Without projection: the first distance is the mean to the starts, which are not chosen by that."""
    points = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)) + 3
    chosen = approximate_greedy_coreset(points, 30, torch.Generator().manual_seed(4), None, starts)
    seeds = torch.randperm(60, generator=torch.Generator().manual_seed(4))[:starts].numpy()
    distance = table(points)
    assert chosen.tolist() == brute_force(distance, distance[:, seeds].mean(1), 30)


def test_projected_equals_brute_force_in_the_projection() -> None:
    points = torch.rand(80, 64, generator=torch.Generator().manual_seed(2))
    chosen = approximate_greedy_coreset(
        points, 20, torch.Generator().manual_seed(6), projection_dim=8, starts=10
    )
    generator = torch.Generator().manual_seed(6)
    projected = random_projection(points, 8, generator)
    seeds = torch.randperm(80, generator=generator)[:10].numpy()
    distance = table(projected)
    assert chosen.tolist() == brute_force(distance, distance[:, seeds].mean(1), 20)


def test_the_projection_is_torchs_untrained_linear_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.eye(64)
    matrix = random_projection(points, 2000, torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(64, 2000, bias=False).weight
    bound = 1 / 8
    assert matrix.abs().max() <= bound
    assert matrix.abs().max() > 0.999 * bound
    assert matrix.std() == pytest.approx(layer.std().item(), rel=0.02)
    monkeypatch.setattr(coreset, "ROWS", 7)
    assert torch.equal(matrix, random_projection(points, 2000, torch.Generator().manual_seed(0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 4))
def test_radius_is_at_most_twice_the_optimum(seed: int, size: int, count: int) -> None:
    points = torch.rand(size, 2, generator=torch.Generator().manual_seed(seed))
    distance, count = table(points), min(count, size)
    best = min(radius(distance, list(c)) for c in itertools.combinations(range(size), count))
    assert radius(distance, greedy_coreset(points, count, 0).tolist()) <= 2 * best + 1e-6


def test_no_point_twice_even_among_equals() -> None:
    points = torch.cat([torch.zeros(20, 3), torch.ones(2, 3)])
    for chosen in (
        approximate_greedy_coreset(points, 15, torch.Generator(), None),
        greedy_coreset(points, 15, 0),
    ):
        assert len(set(chosen.tolist())) == 15
    assert {20, 21} & set(approximate_greedy_coreset(points, 2, torch.Generator(), None).tolist())


def test_as_many_as_there_are_is_all() -> None:
    points = torch.rand(7, 3)
    assert approximate_greedy_coreset(points, 7, torch.Generator()).tolist() == list(range(7))
    assert sorted(greedy_coreset(points, 99, 3).tolist()) == list(range(7))


@pytest.mark.parametrize("shape", [(30, 1), (30, 4)])
def test_the_points_stay_as_they_were(shape: tuple[int, int]) -> None:
    points = torch.rand(shape) + 5
    before = points.clone()
    approximate_greedy_coreset(points, 5, torch.Generator(), None)
    greedy_coreset(points, 5, 0)
    assert torch.equal(points, before)


def test_seed_decides() -> None:
    points = torch.rand(300, 200)
    one, two, other = (
        approximate_greedy_coreset(points, 20, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_progress_is_reported() -> None:
    seen = []

    def track(items, total, text):  # type: ignore[no-untyped-def]
        seen.append((total, text))
        return iter(items)

    approximate_greedy_coreset(torch.rand(30, 4), 5, torch.Generator(), None, track=track)
    assert seen == [(5, "coreset")]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        greedy_coreset(torch.rand(5, 2), 0, 0)
    with pytest.raises(ValueError, match="one of 5 points; got 5"):
        greedy_coreset(torch.rand(5, 2), 2, 5)
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        approximate_greedy_coreset(torch.rand(0, 2), 2, torch.Generator())

"""Greedy k-centre selection against brute force in double precision."""

from __future__ import annotations

import itertools
import math

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
    far, chosen = initial.copy(), list[int]()
    for _ in range(count):
        far[chosen] = -1
        chosen.append(int(far.argmax()))
        far = np.minimum(far, distance[:, chosen[-1]])
    return chosen


def plain(points: torch.Tensor, initial: NDArray[np.float64], count: int) -> list[int]:
    """The same loop without the table, for more points."""
    x, far, chosen = points.double().numpy(), initial.copy(), list[int]()
    for _ in range(count):
        far[chosen] = -1
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.sqrt(((x - x[chosen[-1]]) ** 2).sum(1)))
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


def data(kind: str, size: int = 150) -> torch.Tensor:
    """Points on which distances are near ties, exact ties, or far apart in scale."""
    random = torch.Generator().manual_seed(8)
    if kind == "random":
        return torch.randn(size, 7, generator=random)
    if (
        kind == "clusters"
    ):  # 1e-3 wide and 100 apart: |x|^2 - 2xy + |y|^2 in single precision sees nothing in them
        centres = torch.randn(5, 3, generator=random) * 100
        return centres.repeat(size // 5, 1) + torch.randn(size, 3, generator=random) * 1e-3
    if kind == "tiny":  # squares are too small for a float
        return torch.randn(size, 4, generator=random) * 1e-26
    if kind == "outlier":
        return torch.cat([torch.randn(size - 1, 4, generator=random), torch.full((1, 4), 1e6)])
    if kind == "duplicates":
        return torch.randn(size // 3, 5, generator=random).repeat(3, 1)
    if kind == "line":
        return torch.randperm(size, generator=random)[:, None] * torch.tensor([[1.0, 2.0, -2.0]])
    if kind == "grid":  # distances are roots of whole numbers: many are equal, and exactly so
        return torch.randint(0, 6, (size, 3), generator=random) + 40.0
    if kind == "same":
        return torch.full((size, 3), 0.1)
    if kind == "double":  # 1e-4 apart at 1e6: lost if made single before the mean is taken off
        return torch.randn(size, 3, generator=random, dtype=torch.float64) * 1e-4 + 1e6
    assert kind == "half"
    return torch.randn(size, 6, generator=random).half()


KINDS = ["random", "clusters", "tiny", "outlier", "duplicates", "line", "grid", "same", "double", "half"]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("pool", "catch_up", "picks", "lane"),
    [(1, 40, 20, 1), (5, 20, 4, 2), (16, 3, 64, 8), (149, 4, 64, 64), (1024, 8192, 2048, 64)],
)
def test_picks_are_those_of_the_plain_loop(
    kind: str, pool: int, catch_up: int, picks: int, lane: int, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pool, which here runs out and is refilled often; up to the last point, ties included."""
    sizes = {"POOL": pool, "CATCH_UP": catch_up, "PICKS": picks, "STEP": lane, "LANE": lane}
    monkeypatch.setattr(coreset, "half_is_fast", lambda device: half)
    for name, size in sizes.items():
        monkeypatch.setattr(coreset, name, size)
    points = data(kind)
    distance = table(points)
    first = distance[:, 20].copy()
    first[20] = -1
    assert greedy_coreset(points, 150, 20).tolist() == [20, *brute_force(distance, first, 149)]
    assert greedy_coreset(points, 1, 20).tolist() == [20]
    seeds = torch.randperm(150, generator=torch.Generator().manual_seed(3))[:10].numpy()
    expected = brute_force(
        distance, np.add.reduce(distance.T[seeds], 0) / 10, 149
    )  # in the order of the seeds
    for count in (1, 149):
        chosen = approximate_greedy_coreset(points, count, torch.Generator().manual_seed(3), None)
        assert chosen.tolist() == expected[:count]


def test_many_points_of_which_none_is_in_doubt() -> None:
    """With the pool and the blocks as they are: several pools, and several blocks in every update."""
    points = torch.rand(12_000, 16, generator=torch.Generator().manual_seed(5))
    initial = np.sqrt(((points.double() - points[7].double()) ** 2).sum(1).numpy())
    initial[7] = -1
    chosen = greedy_coreset(points, 500, 7).tolist()
    assert chosen == [7, *plain(points, initial, 499)]


def test_few_passes_over_all_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pool and catching up are for: the plain loop passes over all points for every pick."""
    refills, pairs = [], []
    refill, approach = coreset._Loop._refill, coreset._Loop._approach

    def counted_refill(loop: coreset._Loop) -> None:
        refills.append(loop)
        refill(loop)

    def counted_approach(
        loop: coreset._Loop, rows: torch.Tensor, places: tuple[torch.Tensor, ...], begin: int, end: int
    ) -> None:
        pairs.append(len(rows) * (end - begin))
        approach(loop, rows, places, begin, end)

    monkeypatch.setattr(coreset._Loop, "_refill", counted_refill)
    monkeypatch.setattr(coreset._Loop, "_approach", counted_approach)
    for name, size in {"POOL": 100, "CATCH_UP": 300, "PICKS": 64, "STEP": 8, "LANE": 8}.items():
        monkeypatch.setattr(coreset, name, size)
    points = torch.randn(6000, 8, generator=torch.Generator().manual_seed(5))
    approximate_greedy_coreset(points, 900, torch.Generator().manual_seed(3), None)
    assert 2 <= len(refills) < 900 / 8
    assert 0 < sum(pairs) < 0.8 * 6000 * 900


@pytest.mark.parametrize("precision", ["high", "medium"])  # products of fewer digits, where the CPU has such
def test_less_precise_products_change_nothing(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "POOL", 300)
    points = torch.rand(1000, 64, generator=torch.Generator().manual_seed(5))
    expected, before = greedy_coreset(points, 400, 0), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu"):
            assert torch.equal(greedy_coreset(points, 400, 0), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_number_of_threads_changes_nothing() -> None:
    points = torch.rand(6000, 32, generator=torch.Generator().manual_seed(5))
    before, chosen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            chosen.append(approximate_greedy_coreset(points, 300, torch.Generator().manual_seed(3), None))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(chosen[0], chosen[1])
    assert torch.equal(chosen[1], chosen[2])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No table is larger than a block, even where every distance is in doubt (all points are the same)."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    monkeypatch.setattr(coreset, "_block", lambda points, width: max(1, 4000 // width))
    monkeypatch.setattr(coreset, "POOL", 200)
    monkeypatch.setattr(coreset, "CATCH_UP", 500)
    monkeypatch.setattr(coreset, "PICKS", 20)
    monkeypatch.setattr(coreset, "STEP", 4)
    monkeypatch.setattr(coreset, "LANE", 4)
    for points in (torch.rand(1500, 4), torch.full((1500, 4), 0.1)):
        largest = 0
        with Watch():
            approximate_greedy_coreset(points, 60, torch.Generator().manual_seed(3), None)
        assert largest <= 2 * 4000  # a pair in doubt is two numbers


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

    def track(items, total, text):
        seen.append((total, text))
        return iter(items)

    approximate_greedy_coreset(torch.rand(30, 4), 5, torch.Generator(), None, track=track)
    assert seen == [(5, "coreset")]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        greedy_coreset(torch.rand(5, 2), 0, 0)
    with pytest.raises(ValueError, match="one of 5 points; got 5"):
        greedy_coreset(torch.rand(5, 2), 2, 5)
    with pytest.raises(ValueError, match="nan or infinite"):
        greedy_coreset(torch.tensor([[0.0], [math.nan], [1.0]]), 2, 0)
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        approximate_greedy_coreset(torch.rand(0, 2), 2, torch.Generator())

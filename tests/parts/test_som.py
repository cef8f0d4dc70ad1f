"""The batch map against a plain loop, and as k-means."""

from __future__ import annotations

import math

import pytest
import torch

from ad_bench.parts.kmeans import closest, totals
from ad_bench.parts.som import batch_som, falling

GRID = (3, 4)


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def by_hand(given: torch.Tensor, nodes: torch.Tensor, radius: float) -> torch.Tensor:
    """One round, a row at a time."""
    total, mass = torch.zeros(nodes.shape, dtype=torch.float64), torch.zeros(len(nodes), dtype=torch.float64)
    for row in given.double():
        best = int((nodes.double() - row).square().sum(1).argmin())
        for node in range(len(nodes)):
            apart = (best // 4 - node // 4) ** 2 + (best % 4 - node % 4) ** 2
            weight = math.exp(-apart / (2 * radius**2))
            total[node] += weight * row
            mass[node] += weight
    return total / mass[:, None]


def test_rounds_equal_a_plain_loop() -> None:
    given, nodes = rows(200), rows(12, seed=1)
    after_one = by_hand(given, nodes, 2.0)
    after_two = by_hand(given, after_one, 0.8)
    found, owner = batch_som(given, nodes, GRID, [2.0, 0.8])
    torch.testing.assert_close(found.double(), after_two, rtol=1e-5, atol=1e-5)
    assert torch.equal(owner, closest(given, after_one.float()))  # before the last move


def test_a_radius_near_nothing_is_a_round_of_k_means() -> None:
    given, nodes = rows(60), rows(12, seed=1) * 0.5
    nodes[5] += 100
    total, count = totals(given, closest(given, nodes), 12)
    found, _ = batch_som(given, nodes, GRID, [1e-3])
    assert count[5] == 0
    assert (count > 0).sum() > 6
    for node in range(12):
        wanted = total[node] / count[node] if count[node] else nodes[node].double()
        torch.testing.assert_close(found[node].double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_wide_radius_draws_all_nodes_to_the_mean() -> None:
    given = rows(60)
    found, _ = batch_som(given, rows(12, seed=1), GRID, [1e4])
    torch.testing.assert_close(found, given.mean(0).expand(12, -1), rtol=1e-5, atol=1e-5)


def test_neighbours_on_the_grid_become_alike() -> None:
    """Points of a square, in any order: a map of it lies flat, near nodes at near places."""
    given = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    start = torch.rand(36, 2, generator=torch.Generator().manual_seed(1))
    found, _ = batch_som(given, start, (6, 6), [*falling(3, 1, 20), *falling(1, 0.5, 10)])
    square = found.view(6, 6, 2)
    down, right = square[1:] - square[:-1], square[:, 1:] - square[:, :-1]
    assert max(down.norm(dim=2).mean(), right.norm(dim=2).mean()) < 0.25 < torch.pdist(found).mean()


def test_radii_fall_in_equal_steps() -> None:
    assert falling(19, 4, 4) == pytest.approx([19, 14, 9, 4])
    assert falling(3, 1, 1) == [3]

"""k-means against scikit-learn, its steps against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from ad_bench.parts import kmeans as part
from ad_bench.parts.kmeans import closest, kmeans, totals


def rows(count: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_equals_scikit_learn_from_the_same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "CELLS", 100)  # blocks of 20 rows
    given = rows(300) + 4 * rows(5, seed=1)[torch.arange(300) % 5]
    known = KMeans(5, init=given[:5].numpy(), n_init=1, tol=0, algorithm="lloyd").fit(given.numpy())
    found = kmeans(given, given[:5], 300, 1e-6)
    np.testing.assert_allclose(found, known.cluster_centers_, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(closest(given, found), known.labels_)


def test_closest_is_brute_force_and_takes_the_first_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "CELLS", 100)
    centres = rows(9, seed=1)
    assert torch.equal(closest(rows(200), centres), torch.cdist(rows(200), centres).argmin(1))
    assert closest(rows(3), rows(1, seed=2).repeat(4, 1)).tolist() == [0, 0, 0]


def test_totals_are_sums_of_the_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "CELLS", 100)
    given, owner = rows(200), torch.arange(200) % 7 // 2
    total, count = totals(given, owner, 5)
    assert count.tolist() == [int((owner == one).sum()) for one in range(5)]
    for one in range(5):
        torch.testing.assert_close(total[one], given[owner == one].double().sum(0))


def test_a_centre_without_rows_stays_and_rounds_end() -> None:
    given = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    start = torch.tensor([[0.0], [9.0], [100.0]])
    assert kmeans(given, start, 50, 0.1).tolist() == [[0.5], [10.0], [100.0]]
    assert kmeans(given, start, 0, 0.1).tolist() == start.tolist()
    assert kmeans(given, torch.tensor([[0.0], [1.0]]), 1, 0.1).tolist() == [[0.0], [7.0]]
    # the first round moves the centres by 0.5 and 1: less than 5
    assert kmeans(given, torch.tensor([[0.0], [9.0]]), 50, 5.0).tolist() == [[0.5], [10.0]]


def test_owners_may_be_told() -> None:
    given = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    found = kmeans(given, given[:2], 3, 0.0, lambda *_: torch.tensor([0, 1, 1, 0]))
    assert found.tolist() == [[6.0], [5.5]]

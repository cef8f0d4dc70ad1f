"""The local outlier factor against scikit-learn, group by group."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor

from ad_bench.errors import UsageError
from ad_bench.parts import outliers
from ad_bench.parts.outliers import local_outlier_factor


@pytest.mark.parametrize("neighbors", [1, 5, 29, 80])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_scikit_learn(neighbors: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(neighbors)
    groups = torch.randn(4, 30, 6, generator=generator).double() + offset
    groups[:, 0] += 5
    factors = local_outlier_factor(groups, neighbors)
    for points, own in zip(groups, factors, strict=True):
        known = LocalOutlierFactor(n_neighbors=min(neighbors, 29), algorithm="brute").fit(points.numpy())
        torch.testing.assert_close(own, -torch.from_numpy(known.negative_outlier_factor_), rtol=1e-6, atol=0)
    if neighbors == 5:
        assert (factors.argmax(1) == 0).all()


def test_single_precision_keeps_its_digits_far_from_the_origin() -> None:
    groups = torch.randn(2, 60, 8, generator=torch.Generator().manual_seed(0)) + 50
    torch.testing.assert_close(
        local_outlier_factor(groups, 5).double(), local_outlier_factor(groups.double(), 5), rtol=1e-4, atol=0
    )


def test_pieces_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = torch.randn(7, 12, 3, generator=torch.Generator().manual_seed(0))
    whole = local_outlier_factor(groups, 3)
    monkeypatch.setattr(outliers, "CELLS", 300)
    assert torch.equal(local_outlier_factor(groups, 3), whole)


def test_inside_a_grid_it_is_one() -> None:
    line = torch.arange(21.0)[None, :, None]
    torch.testing.assert_close(local_outlier_factor(line, 2)[0, 5:-5], torch.ones(11))


def test_coinciding_points_are_finite() -> None:
    points = torch.zeros(1, 8, 3)
    points[0, 7] = 1
    factors = local_outlier_factor(points, 3)
    assert factors.isfinite().all()
    assert factors.argmax() == 7


def test_a_point_without_company_has_one() -> None:
    assert torch.equal(local_outlier_factor(torch.rand(3, 1, 4), 6), torch.ones(3, 1))
    torch.testing.assert_close(local_outlier_factor(torch.rand(3, 2, 4), 6), torch.ones(3, 2))


def test_no_neighbours() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        local_outlier_factor(torch.rand(1, 5, 2), 0)

"""The shrunk Gaussian against scikit-learn, SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn import covariance as sklearn_covariance
from torch import Tensor, nn

from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts import shrunk
from ad_bench.parts.shrunk import ShrunkGaussian, ledoit_wolf


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    """Correlated, of unequal spread, far from zero."""
    draws = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(count, dim, generator=draws, dtype=torch.float64) @ mixing + 5


@pytest.mark.parametrize(("count", "dim"), [(20, 6), (7, 30), (2, 3), (300, 1), (50, 50)])
def test_covariance_equals_scikit_learns(count: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrunk, "ROWS", 8)
    given = rows(count, dim)
    wanted = sklearn_covariance.LedoitWolf().fit(given.numpy())
    mean, covariance = ledoit_wolf(given)
    np.testing.assert_allclose(mean, wanted.location_, rtol=1e-12)
    np.testing.assert_allclose(covariance, wanted.covariance_, rtol=1e-9, atol=1e-9)


def test_distances_equal_scipys() -> None:
    given, tests = rows(20, 6), rows(5, 6, seed=1)
    gaussian = ShrunkGaussian(1e-12)
    gaussian.fit(given)
    found = sklearn_covariance.LedoitWolf().fit(given.numpy())
    wanted = [mahalanobis(one, found.location_, found.precision_) for one in tests.numpy()]
    np.testing.assert_allclose(gaussian.mahalanobis(tests), wanted, rtol=1e-6)
    np.testing.assert_allclose(gaussian.squared(tests), np.square(wanted), rtol=1e-6)


def test_squared_distance_of_many_rows_has_mean_d() -> None:
    draws = torch.Generator().manual_seed(0)
    train, fresh = (
        torch.randn(20_000, 12, generator=draws) * torch.arange(4.0, 16.0) + 100 for _ in range(2)
    )
    gaussian = ShrunkGaussian(1e-12)
    gaussian.fit(train)
    assert gaussian.squared(fresh).mean().item() == pytest.approx(12, rel=0.02)


def test_a_basis_measures_the_coordinates_alone() -> None:
    """As a Gaussian of the coordinates, but asked in the full space."""
    given, tests = rows(20, 6), rows(5, 6, seed=1)
    basis = torch.linalg.qr(rows(6, 6, seed=2))[0][:3]
    whole, along = ShrunkGaussian(1e-9), ShrunkGaussian(1e-9)
    whole.fit(given, basis)
    along.fit(given @ basis.T)
    torch.testing.assert_close(whole.mahalanobis(tests), along.mahalanobis(tests @ basis.T))
    off = tests + torch.linalg.qr(torch.cat([basis, tests]).T)[0][:, 3]  # orthogonal to the basis
    torch.testing.assert_close(whole.mahalanobis(off), whole.mahalanobis(tests))


def test_of_one_row_the_covariance_is_eps() -> None:
    gaussian = ShrunkGaussian(0.5)
    gaussian.fit(torch.zeros(1, 3))
    torch.testing.assert_close(gaussian.squared(torch.tensor([[3.0, 4.0, 0.0]])), torch.tensor([50.0]))


def test_travels_through_a_state() -> None:
    host, fresh = nn.Sequential(ShrunkGaussian(1e-6)), nn.Sequential(ShrunkGaussian(1e-6))
    host[0].fit(rows(9, 4))
    fresh.load_state_dict(host.state_dict())
    assert torch.equal(fresh[0].mahalanobis(rows(3, 4)), host[0].mahalanobis(rows(3, 4)))


def test_failures_are_named() -> None:
    with pytest.raises(UsageError, match="above 0; got 0"):
        ShrunkGaussian(0.0)
    with pytest.raises(ValueError, match="no training images"):
        ShrunkGaussian(1.0).fit(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="is empty"):
        ShrunkGaussian(1.0).squared(torch.zeros(1, 3))
    with pytest.raises(AdbenchError, match="of 4 rows of 3 is not positive definite"):
        ShrunkGaussian(1.0).fit(torch.full((4, 3), torch.nan))

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import nn

from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts import gaussian
from ad_bench.parts.bank import Bank
from ad_bench.parts.gaussian import PositionGaussian


def features(count: int, positions: int, dim: int, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    mixed = torch.randn(count, positions, dim, generator=generator) @ torch.randn(
        dim, dim, generator=generator
    )
    return mixed + offset


@pytest.mark.parametrize("sizes", [[20], [1] * 20, [7, 7, 6]])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_streaming_equals_numpy(sizes: list[int], offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "CELLS", 40)  # one position at a time
    x = features(20, 5, 6, offset)
    model = PositionGaussian(eps=0.01)
    model.fit(x.split(sizes))
    for position in range(5):
        rows = x[:, position].double().numpy()
        factor = model.factor.points[position]
        covariance = np.cov(rows, rowvar=False) + 0.01 * np.eye(6)
        np.testing.assert_allclose(model.mean.points[position], rows.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-4, atol=1e-4)


def test_distance_equals_scipy() -> None:
    x, queries = features(40, 7, 6, 2.0), features(3, 7, 6, 3.0)
    model = PositionGaussian(eps=0.01)
    model.fit(x.split(16))
    distance = model.mahalanobis(queries)
    assert distance.shape == (3, 7)
    for position in range(7):
        rows = x[:, position].double().numpy()
        inverse = np.linalg.inv(np.cov(rows, rowvar=False) + 0.01 * np.eye(6))
        for image in range(3):
            wanted = mahalanobis(queries[image, position].double().numpy(), rows.mean(0), inverse)
            assert distance[image, position].item() == pytest.approx(wanted, rel=1e-4)


def test_squared_distance_of_a_gaussian_has_mean_d() -> None:
    x = torch.randn(20_000, 1, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13)
    model = PositionGaussian(eps=1e-6)
    model.fit(x.split(5000))
    fresh = torch.randn(20_000, 1, 12, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 13)
    assert model.mahalanobis(fresh).square().mean().item() == pytest.approx(12, rel=0.02)


def test_one_image_leaves_eps() -> None:
    x = features(1, 3, 4)
    model = PositionGaussian(eps=0.25)
    model.fit([x])
    torch.testing.assert_close(model.mahalanobis(x + 1), torch.full((1, 3), 4.0))  # sqrt(4 / 0.25)


def test_failures_are_named() -> None:
    with pytest.raises(UsageError, match="above 0; got 0"):
        PositionGaussian(eps=0)
    with pytest.raises(ValueError, match="no training images"):
        PositionGaussian(eps=0.01).fit([])
    with pytest.raises(ValueError, match="is empty"):
        PositionGaussian(eps=0.01).mahalanobis(torch.zeros(1, 2, 3))
    with pytest.raises(AdbenchError, match="2 positions is not positive definite"):
        PositionGaussian(eps=0.01).fit([torch.full((4, 2, 3), torch.nan)])


def test_bank_keeps_its_length() -> None:
    host, fresh = nn.Sequential(Bank()), nn.Sequential(Bank())
    host[0].points = torch.arange(12).view(4, 3)
    fresh.load_state_dict(host.state_dict())
    assert torch.equal(fresh[0].points, host[0].points)
    assert fresh[0].points.dtype == torch.long
    assert len(fresh[0]) == 4
    host[0].points[0] = 99
    assert fresh[0].points[0, 0] == 0, "the state is shared with what it was loaded from"
    with pytest.raises(RuntimeError, match="points"):
        fresh.load_state_dict({})

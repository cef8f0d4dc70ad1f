from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import nn

from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts import gaussian
from ad_bench.parts.bank import Bank
from ad_bench.parts.gaussian import PositionGaussian, whiten_


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
    monkeypatch.setattr(gaussian, "BLOCK", 4)  # and rows 4 and 2 at a time
    x = features(20, 5, 6, offset)
    model = PositionGaussian(eps=0.01)
    model.fit(x.split(sizes))
    for position in range(5):
        rows = x[:, position].double().numpy()
        factor = np.linalg.inv(model.whitening.points[position].double().numpy())
        covariance = np.cov(rows, rowvar=False) + 0.01 * np.eye(6)
        np.testing.assert_allclose(model.mean.points[position], rows.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("correction", [0, 1])
def test_maps_are_positions_row_by_row(correction: int) -> None:
    x, queries = features(20, 6, 4), features(3, 6, 4, 1.0)
    by_rows, by_maps = PositionGaussian(0.01, correction), PositionGaussian(0.01, correction)
    by_rows.fit([x])
    by_maps.fit_maps(part.transpose(1, 2).unflatten(2, (2, 3)) for part in x.split(8))
    found = by_maps.distance_maps(queries.transpose(1, 2).unflatten(2, (2, 3)))
    torch.testing.assert_close(found.flatten(1), by_rows.mahalanobis(queries), rtol=1e-4, atol=1e-4)
    rows = x[:, 5].double().numpy()
    inverse = np.linalg.inv(np.cov(rows, rowvar=False, ddof=correction) + 0.01 * np.eye(4))
    wanted = mahalanobis(queries[1, 5].double().numpy(), rows.mean(0), inverse)
    assert found[1, 1, 2].item() == pytest.approx(wanted, rel=1e-4)


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


@pytest.mark.parametrize("block", [1, 7, 24, 30, 100])
def test_whitening_is_the_inverse_of_the_factor(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "BLOCK", block)
    x = features(40, 5, 24).double()
    covariance = torch.einsum("bpi,bpj->pij", x, x) / 40 + 0.01 * torch.eye(24)
    wanted = torch.linalg.inv(torch.linalg.cholesky(covariance))
    table = covariance.clone()
    assert not whiten_(table).any()
    assert torch.equal(table, table.tril())
    torch.testing.assert_close(table, wanted, rtol=1e-9, atol=1e-9)


def test_matrices_without_a_factor_are_found_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "BLOCK", 4)
    table = torch.eye(10).repeat(5, 1, 1)
    table[1, 2, 2], table[3, 9, 9] = -1, -1
    table[4, 9, 0] = table[4, 0, 9] = torch.nan
    assert whiten_(table).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize("eps", [1e-2, 1e-4])
def test_digits_are_those_of_a_triangular_solve(eps: float) -> None:
    """Fewer images than dimensions: the smallest eigenvalue is eps, the largest about 1000."""
    x, queries = features(30, 8, 60, 5.0), features(9, 8, 60, 6.0)
    model = PositionGaussian(eps)
    model.fit(x.split(8))
    rows = x.double() - x.double().mean(0)
    covariance = torch.einsum("bpi,bpj->pij", rows, rows) / 29 + eps * torch.eye(60)
    offset = (queries.double() - x.double().mean(0)).permute(1, 2, 0)

    def distance(covariance: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        factor = torch.linalg.cholesky(covariance)
        return torch.linalg.solve_triangular(factor, offset, upper=False).square().sum(1).sqrt().T

    wanted = distance(covariance, offset)
    error = (model.mahalanobis(queries) / wanted - 1).abs().max().item()
    plain = (distance(covariance.float(), offset.float()) / wanted - 1).abs().max().item()
    assert error < 3 * plain + 1e-6


def test_precision_of_the_run_does_not_reach_the_statistics() -> None:
    x, queries = features(40, 7, 64, 2.0), features(9, 7, 64, 3.0)
    plain, under = PositionGaussian(eps=0.01), PositionGaussian(eps=0.01)
    plain.fit(x.split(16))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            under.fit(x.split(16))
            distance = under.mahalanobis(queries)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(distance, plain.mahalanobis(queries))


def test_groups_are_rows_by_their_owner() -> None:
    """And each pair of a row and a group gives scipy's distance."""
    rows, owner = features(60, 1, 4, 2.0)[:, 0], torch.arange(60) % 7 % 4
    owner[owner == 3] = 4  # nobody belongs to 3, one row to 5
    owner[11] = 5
    model = PositionGaussian(eps=0.01)
    model.fit_groups(rows, owner, 6)
    queries, groups = features(5, 1, 4, 3.0)[:, 0], torch.tensor([[0, 4], [1, 5], [2, 0], [5, 3], [4, 4]])
    found = model.to_groups(queries, groups)
    assert found.shape == (5, 2)
    for query, (pair, distances) in enumerate(zip(groups.tolist(), found.tolist(), strict=True)):
        for group, distance in zip(pair, distances, strict=True):
            members = rows[owner == group].double().numpy()
            covariance = np.cov(members, rowvar=False) if len(members) > 1 else np.zeros((4, 4))
            mean = members.mean(0) if len(members) else np.zeros(4)
            inverse = np.linalg.inv(covariance + 0.01 * np.eye(4))
            wanted = mahalanobis(queries[query].double().numpy(), mean, inverse)
            assert distance == pytest.approx(wanted, rel=1e-4)


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

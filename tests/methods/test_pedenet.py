"""PEDENet: energies against torch's distributions, mixtures by loops, patches one by one against images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.pedenet import Encoder, Mixture, PEDENet, energies, mixed
from ad_bench.parts import windows
from tests import tiny

SETTINGS: dict[str, Any] = {
    "sizes": [32, 64],
    "strides": [4, 16],
    "widths": [4] * 7,
    "joining": 8,
    "dimensions": 3,
    "classifier": [16],
    "hidden": 8,
    "clusters": 2,
    "noise": 0.02,
    "energy": 0.1,
    "spread": 0.005,
    "eps": 1e-6,
    "repeats": 2,
    "epochs": 2,
    "batch_size": 8,
    "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
}


def pedenet(**settings: Any) -> PEDENet:
    torch.manual_seed(0)
    return PEDENet(**{**SETTINGS, **settings})


def mixture(clusters: int = 3, dim: int = 4) -> Mixture:
    torch.manual_seed(1)
    root = torch.randn(clusters, dim, dim, dtype=torch.float64)
    weights = torch.rand(clusters, dtype=torch.float64).softmax(0)
    means = torch.randn(clusters, dim, dtype=torch.float64)
    return Mixture(weights, means, root @ root.mT + 0.1 * torch.eye(dim))


def test_energy_is_that_of_torchs_mixture() -> None:
    given = mixture()
    rows = torch.randn(50, 4, dtype=torch.float64) * 3
    covariances = given.covariances + 1e-6 * torch.eye(4, dtype=torch.float64)
    known = MixtureSameFamily(Categorical(given.weights), MultivariateNormal(given.means, covariances))
    torch.testing.assert_close(energies(rows, given, 1e-6), -known.log_prob(rows))


def test_a_cluster_of_equal_rows_has_an_energy() -> None:
    """What no likelihood in single precision has: a singular covariance, and a row far away."""
    given = Mixture(torch.ones(1), torch.zeros(1, 3), torch.zeros(1, 3, 3))
    found = energies(torch.tensor([[0.0, 0, 0], [1, 1, 1]]), given, 1e-6)
    assert found.isfinite().all()
    assert found[1] > found[0] + 1e6


def test_mixture_is_the_one_of_weighted_moments() -> None:
    torch.manual_seed(2)
    rows, shares = torch.randn(30, 3), torch.rand(30, 2).softmax(1)
    found = mixed([(rows[:10], shares[:10]), (rows[10:], shares[10:])])
    torch.testing.assert_close(found.weights, shares.mean(0).double())
    for cluster in range(2):
        weight = shares[:, cluster] / shares[:, cluster].sum()
        mean = (weight[:, None] * rows).sum(0)
        covariance = sum(
            (w * torch.outer(row - mean, row - mean) for w, row in zip(weight, rows, strict=True))
        )
        torch.testing.assert_close(found.means[cluster], mean.double(), rtol=1e-5, atol=1e-6)
        assert isinstance(covariance, Tensor)
        torch.testing.assert_close(found.covariances[cluster], covariance.double(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("size", "stride"), [(32, 4), (32, 2), (64, 16)])
def test_patches_of_an_image_are_embedded_as_by_themselves(size: int, stride: int) -> None:
    torch.manual_seed(3)
    encoder, images = Encoder([4] * 7, 8, 3), torch.rand(2, 3, 100, 84)
    (found,) = encoder.slid(images, [size], [stride])
    patches = windows.grid(images, size, stride)
    assert found.shape[:3] == patches.shape[:3]
    alone = encoder(patches.flatten(0, 2)).view_as(found)
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-6)


def test_a_pixel_gets_the_mean_energy_of_its_patches_of_both_sizes() -> None:
    method, images = pedenet(), tiny.textures(8, 96)
    method.fit(tiny.TensorTrainSet(images), Run())
    method.requires_grad_(False)
    prediction = method.predict(Inputs(images[:1]))
    wanted = torch.zeros(())
    for level, (size, stride) in enumerate(zip([32, 64], [4, 16], strict=True)):
        patches = windows.grid(images[:1] - method.mean.points, size, stride)
        found = energies(method.encoder(patches.flatten(0, 2)), method.each()[level].kept(), 1e-6)
        rows, columns = patches.shape[1:3]
        covering = [
            float(found[row * columns + column])
            for row in range(rows)
            for column in range(columns)
            if row * stride <= 40 < row * stride + size and column * stride <= 50 < column * stride + size
        ]
        wanted = wanted + sum(covering) / len(covering)
    assert prediction.maps is not None
    assert prediction.maps[0, 40, 50].item() == pytest.approx(wanted.item(), rel=1e-3)
    assert prediction.scores[0] == prediction.maps.max()


def test_the_loss_is_the_sum_of_its_terms() -> None:
    method, images = pedenet(sizes=[32], strides=[4]).requires_grad_(False), tiny.textures(8, 64)
    method.mean.points = torch.zeros(3, 64, 64)

    def loss(energy: float, spread: float) -> float:
        method.energy, method.spread = energy, spread
        return float(method.loss(images, torch.Generator().manual_seed(0)))

    directions, with_energy, with_spread = loss(0, 0), loss(1, 0), loss(0, 1)
    assert 1 < directions < 3  # of 8 directions, about log 8
    assert loss(0.1, 0.005) == pytest.approx(
        directions + 0.1 * (with_energy - directions) + 0.005 * (with_spread - directions), rel=1e-4
    )
    assert with_spread - directions > 0


def test_the_penalty_keeps_the_embeddings_apart() -> None:
    """Without it the energy draws all patches together; with much of it they fill what tanh leaves."""

    def variance(spread: float) -> float:
        method = pedenet(sizes=[32], strides=[4], spread=spread, epochs=10, energy=1.0)
        method.fit(tiny.TensorTrainSet(tiny.textures(8)), Run())
        return float(method.each()[0].kept().covariances.diagonal(dim1=1, dim2=2).mean())

    assert variance(0.0) < 1e-4
    assert variance(0.5) > 10 * variance(0.0)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match="sizes are 32 or 64"):
        pedenet(sizes=[48], strides=[4])
    with pytest.raises(UsageError, match="strides are even"):
        pedenet(strides=[3, 16])
    with pytest.raises(UsageError, match="7 convolutions"):
        pedenet(widths=[4, 4])
    with pytest.raises(UsageError, match="eps is above 0"):
        pedenet(eps=0.0)

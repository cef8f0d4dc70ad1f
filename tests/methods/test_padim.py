"""PaDiM against its known implementation, against scipy, and the published draw of channels."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.padim import PaDiM
from ad_bench.parts.backbone import Backbone
from tests import tiny

REFERENCE = json.loads((Path(__file__).parent / "padim_reference.json").read_text())


class Written(nn.Module):
    """Stands for a backbone: the levels that scripts/make_padim_fixture.py gave to main()."""

    name, layers, channels = "written", (1, 2, 3), (64, 128, 256)

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = []
        for shape in REFERENCE["shapes"]:
            index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(*shape)
            moved = images[:, 0, 0, 0].double().view(-1, 1, 1, 1) * (1 + index % 7)
            levels.append(torch.sin(index * 0.37 + moved).float())
        return levels


def padim(dimensions: int = 12, dimension_seed: int = 1024, sigma: float = 4.0) -> PaDiM:
    backbone = Backbone("test_resnet.r160_in1k", [1, 2, 3], "random")
    return PaDiM(backbone, dimensions, dimension_seed, 0.01, sigma)


@pytest.fixture(scope="module")
def train() -> torch.Tensor:
    return tiny.textures(30)


def test_channels_are_those_of_the_known_implementation() -> None:
    """random.seed(1024); random.sample(range(1792), 550) stands there."""
    wide = random.Random(1024).sample(range(1792), 550)
    random.seed(1024)
    assert wide == random.sample(range(0, 1792), 550)
    assert len(set(padim(100).picked.tolist())) == 100
    assert padim(100).picked.tolist() == sorted(random.Random(1024).sample(range(272), 100))
    assert padim(100).picked.tolist() != padim(100, dimension_seed=1).picked.tolist()


def test_agrees_with_the_known_implementation() -> None:
    """Maps of its whole main(): draw of channels, replication, covariances, distance, smoothing."""
    side = REFERENCE["side"]

    def constant(values: list[float]) -> Tensor:
        return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, side, side)

    model = PaDiM(cast(Backbone, Written()), 100, 1024, 0.01, 4.0)
    model.fit(tiny.TensorTrainSet(constant(REFERENCE["train"]), batch_size=5), Run())
    prediction = model.predict(Inputs(constant(REFERENCE["test"])))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.scores.numpy(), REFERENCE["scores"], rtol=1e-4)
    np.testing.assert_allclose(prediction.maps[:, ::3, ::5].numpy(), REFERENCE["maps"], rtol=1e-4)


def test_no_global_seed_changes_the_channels() -> None:
    random.seed(1)
    torch.manual_seed(1)
    one = padim().picked
    random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(one, padim().picked)


@pytest.mark.parametrize("dimensions", [1, 3, 40, 272])  # few leave levels without any channel
def test_embedding_replicates_deeper_levels(dimensions: int) -> None:
    model = padim(dimensions)
    images = tiny.textures(2)
    embedded = model.embed(images)
    first, second, third = model.backbone(images)
    assert embedded.shape == (2, dimensions, 16, 16)
    for row, column in np.ndindex(16, 16):
        wanted = [
            first[:, :, row, column],
            second[:, :, row // 2, column // 2],
            third[:, :, row // 4, column // 4],
        ]
        assert torch.equal(embedded[:, :, row, column], torch.cat(wanted, 1)[:, model.picked])


def test_maps_equal_scipy(train: torch.Tensor) -> None:
    """The whole chain at a few positions and then on the map: np.cov, scipy's mahalanobis, scipy's filter."""
    model = padim()
    model.fit(tiny.TensorTrainSet(train, batch_size=7), Run())
    images = tiny.planted(tiny.textures(2, seed=9))[0]
    prediction = model.predict(Inputs(images))
    rows, queries = model.embed(train).double().numpy(), model.embed(images).double().numpy()
    distance = np.empty((2, 16, 16))
    for row, column in np.ndindex(16, 16):
        normal = rows[:, :, row, column]
        inverse = np.linalg.inv(np.cov(normal, rowvar=False) + 0.01 * np.eye(12))
        for image in range(2):
            distance[image, row, column] = mahalanobis(
                queries[image, :, row, column], normal.mean(0), inverse
            )
    big = F.interpolate(torch.tensor(distance)[:, None], size=(64, 64), mode="bilinear")[:, 0].numpy()
    wanted = np.stack([gaussian_filter(m, 4.0) for m in big])
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps.numpy(), wanted, rtol=1e-3)
    np.testing.assert_allclose(prediction.scores.numpy(), wanted.max((1, 2)), rtol=1e-3)


def test_batch_size_of_the_fit_changes_nothing_but_rounding(train: torch.Tensor) -> None:
    scores = []
    for batch_size in (1, 30):
        model = padim()
        model.fit(tiny.TensorTrainSet(train, batch_size=batch_size), Run())
        scores.append(model.predict(Inputs(tiny.textures(4, seed=3))).scores)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dimensions", [0, 273])
def test_impossible_dimensions_are_named(dimensions: int) -> None:
    with pytest.raises(UsageError, match=r"test_resnet.r160_in1k' has 272 channels .*take from 1 to 272"):
        padim(dimensions)

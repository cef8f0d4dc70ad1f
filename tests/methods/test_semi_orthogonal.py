"""Semi-orthogonal embedding against the authors' code and what its directions must keep."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.semi_orthogonal import SemiOrthogonal
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.gaussian import PositionGaussian
from tests import tiny
from tests.written_down import features

FIXTURE = Path(__file__).parent / "fixtures" / "semi_orthogonal.npz"


class Written(nn.Module):
    """Stands for a backbone: an image holds the number of its features, as in the fixture's script."""

    name, layers = "written", (1, 2, 3)

    def __init__(self, shapes: list[tuple[int, ...]], count: int, seed: int) -> None:
        super().__init__()
        self.channels = tuple(shape[0] for shape in shapes)
        self.levels = features(shapes, count, seed)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[images[:, 0, 0, 0].long()] for level in self.levels]


def numbered(numbers: range, side: int) -> Tensor:
    return torch.tensor([float(number) for number in numbers]).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def semi_orthogonal(dimensions: int) -> SemiOrthogonal:
    return SemiOrthogonal(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), dimensions, 0.01, 0.0)


def joined(model: SemiOrthogonal, images: Tensor) -> Tensor:
    """All channels on the grid of the first level."""
    first, *deeper = model.backbone(images)
    return torch.cat([first, *(F.interpolate(level, first.shape[2:]) for level in deeper)], 1)


def test_agrees_with_the_authors_code() -> None:
    """Maps of their whole main(): projection, covariances, distance, smoothing."""
    reference = np.load(FIXTURE)
    train, test, side, seed = reference["images"].tolist()
    backbone = Written([tuple(shape) for shape in reference["shapes"]], train + test, seed)
    model = SemiOrthogonal(cast(Backbone, backbone), reference["projection"].shape[1], 0.01, 4.0)
    model.projection = torch.from_numpy(reference["projection"])
    model.fit(tiny.TensorTrainSet(numbered(range(train), side), batch_size=5), Run())
    prediction = model.predict(Inputs(numbered(range(train, train + test), side)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::3, ::5].numpy(), reference["maps"], rtol=1e-6)
    np.testing.assert_allclose(prediction.scores.numpy(), reference["scores"], rtol=1e-6)


def test_the_embedding_is_the_joined_channels_times_the_directions() -> None:
    model, images = semi_orthogonal(40), tiny.textures(2)
    wanted = torch.einsum("bchw,ck->bkhw", joined(model, images), model.projection)
    torch.testing.assert_close(model.embed(images), wanted, rtol=1e-4, atol=1e-5)


def test_all_directions_lose_nothing() -> None:
    """Any orthogonal W leaves the Mahalanobis distance of all channels as it is."""
    model, train, test = semi_orthogonal(272), tiny.textures(8), tiny.planted(tiny.textures(2, seed=3))[0]
    model.fit(tiny.TensorTrainSet(train), Run())
    plain = PositionGaussian(0.01, correction=0)
    plain.fit_maps([joined(model, train)])
    wanted = plain.distance_maps(joined(model, test))
    torch.testing.assert_close(model.gaussian.distance_maps(model.embed(test)), wanted, rtol=1e-3, atol=1e-3)


def test_directions_are_orthonormal_and_of_all_alike() -> None:
    """W^T W = I, and on average over W a vector keeps k / C of its squared length."""
    x, kept = torch.randn(272, generator=torch.Generator().manual_seed(0)), []
    for seed in range(60):
        torch.manual_seed(seed)
        model = semi_orthogonal(68)
        torch.testing.assert_close(model.projection.T @ model.projection, torch.eye(68), rtol=0, atol=1e-5)
        kept.append(((x @ model.projection).square().sum() / x.square().sum()).item())
    assert np.mean(kept) == pytest.approx(68 / 272, rel=0.05)
    assert np.std(kept) > 0.001, "one W for all seeds"


@pytest.mark.parametrize("dimensions", [0, 273])
def test_impossible_dimensions_are_named(dimensions: int) -> None:
    with pytest.raises(UsageError, match=r"test_resnet.r160_in1k' has 272 channels .*take from 1 to 272"):
        semi_orthogonal(dimensions)

"""SPADE against its known implementation, and against plain searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ad_bench.config import compose
from ad_bench.contract import Inputs, Prediction, Run
from ad_bench.errors import UsageError
from ad_bench.methods.spade import Spade
from ad_bench.parts.backbone import Backbone
from tests import tiny

SETTINGS = {
    "image_layer": 4,
    "pixel_layers": [1, 2, 3],
    "pyramid": "each",
    "neighbors": 3,
    "squared": False,
    "sigma": 4.0,
}
REFERENCE = json.loads((Path(__file__).parent / "spade_reference.json").read_text())


class Written(nn.Module):
    """Stands for a backbone: the levels that scripts/make_spade_fixture.py gave to main()."""

    layers = (1, 2, 3, 4)

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = []
        for shape in REFERENCE["shapes"]:
            index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(*shape)
            moved = images[:, 0, 0, 0].double().view(-1, 1, 1, 1) * 0.05 * (1 + index % 3)
            levels.append(torch.sin(index * 0.37 + moved).float())
        return levels


class Pixels(nn.Module):
    """Stands for a backbone: the images themselves are the only level."""

    layers = (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def constant(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 224, 224)


def tiny_backbone() -> Backbone:
    return Backbone("test_resnet.r160_in1k", [1, 2, 3, 4], "random")


def spade(backbone: nn.Module | None = None, **changed: object) -> Spade:
    given = tiny_backbone() if backbone is None else cast(Backbone, backbone)
    return Spade(given, **{**SETTINGS, **changed})  # type: ignore[arg-type]


def fitted(images: Tensor, **changed: object) -> Spade:
    model = spade(**changed)
    model.fit(tiny.TensorTrainSet(images, batch_size=5), Run())
    return model


def predict(model: Spade, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        prediction: Prediction = model.predict(Inputs(images))
    assert prediction.maps is not None
    return prediction.scores, prediction.maps


def test_agrees_with_the_known_implementation() -> None:
    """Scores and maps of its whole main(): retrieval, three levels, mean, smoothing."""
    model = spade(Written(), neighbors=REFERENCE["neighbors"])
    model.fit(tiny.TensorTrainSet(constant(REFERENCE["train"]), batch_size=4), Run())
    scores, maps = predict(model, constant(REFERENCE["test"]))
    np.testing.assert_allclose(scores.numpy(), REFERENCE["scores"], rtol=1e-4)
    np.testing.assert_allclose(maps[:, ::13, ::17].numpy(), REFERENCE["maps"], rtol=1e-4)


def test_with_all_images_retrieved_it_is_a_global_search() -> None:
    train, query = tiny.textures(6), tiny.planted(tiny.textures(2, seed=9))[0]
    _, maps = predict(fitted(train, neighbors=6, sigma=0.0), query)
    with torch.no_grad():
        normal, asked = (tiny_backbone()(images)[:3] for images in (train, query))
    wanted = torch.zeros(2, 64, 64)
    for bank, level in zip(normal, asked, strict=True):
        rows = bank.permute(0, 2, 3, 1).flatten(0, 2).double()
        distance = torch.cdist(level.permute(0, 2, 3, 1).flatten(1, 2).double(), rows[None]).min(2).values
        grid = distance.float().view(2, 1, *level.shape[2:])
        wanted += F.interpolate(grid, size=(64, 64), mode="bilinear")[:, 0] / 3
    torch.testing.assert_close(maps, wanted, rtol=1e-3, atol=1e-5)


def test_pixels_are_sought_in_the_retrieved_images_alone() -> None:
    """Dark images are nearest to a dark image; that its bright spot is usual in bright ones is no help."""
    dark, bright = torch.full((3, 3, 32, 32), 0.1), torch.full((3, 3, 32, 32), 0.8)
    query = dark[:1].clone()
    query[..., 10:14, 10:14] = 0.8
    for neighbors, distance in ((3, 0.7 * 3**0.5), (6, 0.0)):
        model = spade(Pixels(), image_layer=1, pixel_layers=[1], neighbors=neighbors, sigma=0.0)
        model.fit(tiny.TensorTrainSet(torch.cat([dark, bright])), Run())
        _, maps = predict(model, query)
        assert maps[0, 12, 12].item() == pytest.approx(distance, abs=1e-6)
        assert maps[0, 0, 0].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("pyramid", ["each", "joined"])
def test_a_training_image_is_its_own_neighbour(pyramid: str) -> None:
    train = tiny.textures(5)
    scores, maps = predict(fitted(train, neighbors=1, pyramid=pyramid), train)
    assert scores.abs().max() < 1e-6
    assert maps.abs().max() < 1e-6


def test_few_images_are_all_retrieved() -> None:
    train, query = tiny.textures(3), tiny.textures(2, seed=4)
    torch.testing.assert_close(
        predict(fitted(train, neighbors=50), query), predict(fitted(train, neighbors=3), query)
    )


def test_the_papers_settings() -> None:
    """Squared distances; one search over the levels joined on the finest grid."""
    train, query = tiny.textures(4), tiny.planted(tiny.textures(1, seed=9))[0]
    scores, maps = predict(fitted(train, neighbors=4, squared=True, pyramid="joined"), query)
    with torch.no_grad():
        levels = tiny_backbone()(torch.cat([train, query]))
    means = levels[3].mean((2, 3)).double()
    torch.testing.assert_close(
        scores[0].double(), (means[:4] - means[4]).square().sum(1).mean(), rtol=1e-4, atol=1e-9
    )
    joined = torch.cat([F.interpolate(level, size=(16, 16), mode="bilinear") for level in levels[:3]], 1)
    rows = joined.permute(0, 2, 3, 1).double()
    distance = torch.cdist(rows[4].flatten(0, 1), rows[:4].flatten(0, 2)).min(1).values.square()
    whole = F.interpolate(distance.view(1, 1, 16, 16), size=(64, 64), mode="bilinear")[0, 0]
    np.testing.assert_allclose(maps[0].numpy(), gaussian_filter(whole.numpy(), 4.0), rtol=1e-3, atol=1e-6)


def test_without_layer4_layer3_retrieves() -> None:
    """`backbone=resnet18` reaches layer3 alone; a whole network takes two settings more."""
    model = compose(["method=spade", "dataset=mvtec", "backbone=resnet18"]).method.model
    assert (list(model.backbone.layers), model.image_layer) == ([1, 2, 3], 3)
    layer4 = [
        "method.backbones.resnet18.backbone.layers=[1,2,3,4]",
        "method.backbones.resnet18.image_layer=4",
    ]
    model = compose(["method=spade", "dataset=mvtec", "backbone=resnet18", *layer4]).method.model
    assert (list(model.backbone.layers), model.image_layer) == ([1, 2, 3, 4], 4)
    assert compose(["method=spade", "dataset=mvtec"]).method.model.image_layer == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_layer": 5}, "image_layer=5"),
        ({"pixel_layers": [1, 7]}, r"pixel_layers=\[1, 7\]"),
        ({"pixel_layers": []}, "pixel_layers"),
        ({"pyramid": "flat"}, "flat"),
        ({"neighbors": 0}, "neighbors"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        spade(**changed)


def test_no_training_images() -> None:
    with pytest.raises(ValueError, match="0 images"):
        spade().fit(tiny.TensorTrainSet(torch.empty(0, 3, 64, 64)), Run())

"""CFA against the authors' code and against its formulas worked out by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.cfa import CFA
from ad_bench.parts.backbone import Backbone
from tests import tiny

SETTINGS = {
    "centre_share": 1,
    "channel_share": 1,
    "attracted": 3,
    "repelled": 3,
    "margin": 0.1,
    "nu": 0.001,
    "radius": 1e-5,
    "epochs": 2,
    "batch_size": 4,
    "optimizer": partial(torch.optim.AdamW, lr=0.001, weight_decay=0.0005, amsgrad=True),
    "sigma": 4.0,
}
REFERENCE = json.loads((Path(__file__).parent / "cfa_reference.json").read_text())


class Written(nn.Module):
    """Stands for a backbone: the levels that scripts/make_cfa_fixture.py gave to the authors' code."""

    channels = tuple(shape[0] for shape in REFERENCE["shapes"])

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = []
        for shape in REFERENCE["shapes"]:
            index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(*shape)
            moved = images[:, 0, 0, 0].double().view(-1, 1, 1, 1) * 0.2 * (1 + index % 3)
            levels.append(torch.sin(index * 0.37 + moved).float())
        return levels


class Given(nn.Module):
    """Stands for a backbone: the images themselves are the only level."""

    channels = (3,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def weights(rows: int, columns: int) -> Tensor:
    index = torch.arange(rows * columns, dtype=torch.float64)
    return (0.05 * torch.sin(0.13 * index * (index % 997))).float().view(rows, columns)


def constant(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


def cfa(backbone: nn.Module, **changed: object) -> CFA:
    return CFA(cast(Backbone, backbone), **{**SETTINGS, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=["start", "inside_spheres"])
def test_agrees_with_the_authors_code(case: dict[str, Any]) -> None:
    """Centres, loss, gradients, three steps of training and the maps after these."""
    model = cfa(Written(), channel_share=case["channel_share"], radius=case["radius"], epochs=0)
    layer = model.descriptor
    layer.weight.data = weights(*layer.weight.shape[:2])[..., None, None]
    assert layer.bias is not None
    layer.bias.data = weights(1, len(layer.bias))[0]
    images = constant(REFERENCE["train"])
    model.fit(tiny.TensorTrainSet(images), Run())
    close = partial(np.testing.assert_allclose, rtol=1e-4)
    close(model.centres.points[::7, ::11].numpy(), case["centres"], atol=1e-5)

    optimizer = SETTINGS["optimizer"]([*layer.parameters(), model.radius])  # type: ignore[operator]
    for step, wanted in enumerate(case["losses"]):
        optimizer.zero_grad()
        loss = model.loss(
            model.describe(model.backbone(images[:4] if step % 2 == 0 else images[4:])).flatten(0, 2)
        )
        close(loss.item(), wanted)
        loss.backward()
        if step == 0:
            assert layer.weight.grad is not None and model.radius.grad is not None  # noqa: PT018
            gradient = layer.weight.grad[:, :, 0, 0]
            close(gradient.norm().item(), case["gradient_norm"])
            close(gradient[::29, ::31].numpy(), case["gradient"], atol=1e-4 * gradient.abs().max().item())
            close(model.radius.grad.item(), case["gradient_radius"])
        optimizer.step()
    close(model.radius.item(), case["radius_after"])
    with torch.no_grad():
        prediction = model.predict(Inputs(constant(REFERENCE["test"])))
    assert prediction.maps is not None
    close(prediction.scores.numpy(), case["scores"])
    close(prediction.maps[:, ::3, ::3].numpy(), case["maps"])


def by_hand(rows: Tensor, centres: Tensor, radius: float, attracted: int, repelled: int) -> float:
    squared = torch.cdist(rows.double(), centres.double()).square().sort(1).values
    pull = (squared[:, :attracted] - radius**2).clamp(min=0).mean()
    push = (radius**2 - squared[:, attracted : attracted + repelled] - 0.1).clamp(min=0).mean()
    return ((pull + push) / 0.001).item()


@pytest.mark.parametrize("radius", [1e-5, 1.5, 100.0])
def test_the_loss_is_its_formula(radius: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, centres = torch.randn(40, 3, generator=generator), torch.randn(30, 3, generator=generator)
    model = cfa(Given(), radius=radius, attracted=2, repelled=5)
    model.centres.points = centres
    loss = model.loss(rows)
    assert loss.item() == pytest.approx(by_hand(rows, centres, radius, 2, 5), rel=1e-5)
    if radius == 100.0:  # every patch lies within all its spheres: nothing attracts, only repulsion is left
        (slope,) = torch.autograd.grad(loss, model.radius)
        assert slope.item() == pytest.approx(2 * radius / 0.001)


def test_scores_lie_between_a_third_of_the_distance_and_the_distance() -> None:
    """Softmin over three distances: a patch as near to three centres gets a third of its distance."""
    model = cfa(Given(), sigma=0.0)
    generator = torch.Generator().manual_seed(3)
    model.centres.points = torch.randn(20, 3, generator=generator)
    images = torch.rand(2, 3, 5, 7, generator=generator)
    with torch.no_grad():
        rows = model.describe([images]).reshape(-1, 3)
        maps = model.predict(Inputs(images)).maps
        distance = torch.cdist(rows, model.centres.points).sort(1).values[:, :3]
    assert maps is not None
    scores = maps.flatten()
    assert (scores <= distance[:, 0] + 1e-6).all()
    assert (scores >= distance[:, 0] / 3 - 1e-6).all()
    torch.testing.assert_close(
        scores, torch.softmax(-distance, 1)[:, 0] * distance[:, 0], rtol=1e-4, atol=1e-6
    )


def test_features_are_pooled_resized_and_know_their_position() -> None:
    model = cfa(Written())
    model.descriptor.weight.data.zero_()
    model.descriptor.weight.data[:450] = torch.eye(450)[:448, :, None, None]
    assert model.descriptor.bias is not None
    model.descriptor.bias.data.zero_()
    levels = model.backbone(constant([0.2, 0.9]))
    described = model.describe(levels)
    assert described.shape == (2, 8, 8, 448)
    padded = F.pad(levels[0], (1, 1, 1, 1))
    mean = sum(padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9
    torch.testing.assert_close(described[..., :64].permute(0, 3, 1, 2), mean, rtol=1e-4, atol=1e-6)

    position = cfa(Given())
    position.descriptor.weight.data = torch.tensor([[0.0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])[
        ..., None, None
    ]
    assert position.descriptor.bias is not None
    position.descriptor.bias.data.zero_()
    grid = position.describe([torch.rand(1, 3, 3, 5)])[0]
    torch.testing.assert_close(grid[:, 0, 0], torch.tensor([-1.0, 0, 1]))  # rows
    torch.testing.assert_close(grid[0, :, 1], torch.tensor([-1.0, -0.5, 0, 0.5, 1]))  # columns


def test_centres_are_those_of_the_untrained_descriptor() -> None:
    images = tiny.textures(10, size=16)
    torch.manual_seed(0)
    model = cfa(Given(), epochs=3)
    with torch.no_grad():
        before = model.describe([images]).mean(0).flatten(0, 1)
    start = model.descriptor.weight.detach().clone()
    model.fit(tiny.TensorTrainSet(images, batch_size=3), Run())
    torch.testing.assert_close(model.centres.points, before, rtol=1e-4, atol=1e-6)
    assert not torch.equal(model.descriptor.weight, start)
    assert model.radius.item() != pytest.approx(1e-5)


def test_training_gathers_normal_patches_around_the_centres() -> None:
    images, fresh = constant([0.1 * step for step in range(16)]), constant([0.33, 0.87, 1.24])
    distances = []
    for epochs in (0, 10):
        torch.manual_seed(0)
        model = cfa(Written(), epochs=epochs)
        model.fit(tiny.TensorTrainSet(images), Run())
        with torch.no_grad():
            rows = model.describe(model.backbone(fresh)).flatten(0, 2)
            distances.append(torch.cdist(rows, model.centres.points).min(1).values.mean().item())
    assert distances[1] < 0.7 * distances[0]


def test_fewer_centres_come_from_k_means() -> None:
    images = tiny.textures(6, size=16)
    found = []
    for seed in (0, 0):
        torch.manual_seed(0)
        model = cfa(Given(), centre_share=4, epochs=0)
        model.fit(tiny.TensorTrainSet(images), Run(seed=seed))
        found.append(model.centres.points)
    assert found[0].shape == (64, 3)
    assert torch.equal(found[0], found[1])
    with torch.no_grad():
        rows = model.describe([images]).mean(0).flatten(0, 1)
    own = torch.cdist(rows, found[0]).argmin(1)
    means = torch.stack([rows[own == centre].mean(0) for centre in range(64)])
    torch.testing.assert_close(
        found[0], means, rtol=1e-3, atol=1e-4
    )  # each the mean of what it is nearest to


def test_the_map_is_smoothed_before_its_worst_pixel_is_taken() -> None:
    model = cfa(Given())
    model.centres.points = torch.zeros(6, 3)
    model.descriptor.weight.data = torch.eye(5)[:3, :, None, None]
    assert model.descriptor.bias is not None
    model.descriptor.bias.data.zero_()
    images = torch.zeros(1, 3, 32, 32)
    images[0, 0, 9, 12] = 0.9
    with torch.no_grad():
        prediction = model.predict(Inputs(images))
    raw = np.zeros((32, 32))
    raw[8:11, 11:14] = 0.1 / 3  # pooled over 3 x 3, and three centres equally near
    wanted = gaussian_filter(raw, 4.0)
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[0].numpy(), wanted, rtol=1e-4, atol=1e-7)
    assert prediction.scores.item() == pytest.approx(wanted.max(), rel=1e-4)


@pytest.mark.parametrize(
    "changed", [{"centre_share": 0}, {"channel_share": 0}, {"attracted": 0}, {"repelled": 0}]
)
def test_impossible_settings_are_named(changed: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        cfa(Given(), **changed)


def test_too_few_centres_are_said() -> None:
    with pytest.raises(UsageError, match="centre_share=100 leaves 2 of 256"):
        cfa(Given(), centre_share=100).fit(tiny.TensorTrainSet(torch.rand(2, 3, 16, 16)), Run())


def test_no_training_images() -> None:
    with pytest.raises(ValueError, match="no training images"):
        cfa(Given()).fit(tiny.TensorTrainSet(torch.empty(0, 3, 8, 8)), Run())

"""SoftPatch against the authors' code, and its promise: noise among the training images is thrown away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.softpatch import SoftPatch
from ad_bench.parts.backbone import Backbone
from tests import tiny

SETTINGS = {
    "patch_size": 3,
    "pretrain_dim": 64,
    "target_dim": 64,
    "outlier_neighbors": 6,
    "discarded": 0.15,
    "coreset_ratio": 0.1,
    "projection_dim": 32,
    "starts": 10,
    "sigma": 4.0,
    "backend": "auto",
}
REFERENCE = json.loads((Path(__file__).parent / "softpatch_reference.json").read_text())


class Written(nn.Module):
    """Stands for a backbone: the levels that scripts/make_softpatch_fixture.py gave to the authors' code."""

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = []
        for shape in REFERENCE["shapes"]:
            index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(*shape)
            moved = images[:, 0, 0, 0].double().view(-1, 1, 1, 1) * 0.2 * (1 + index % 3)
            levels.append(torch.sin(index * 0.37 + moved).float())
        return levels


class Given(nn.Module):
    """Stands for a backbone: the images themselves are the only level."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


class Notes(Run):
    """Keeps what a fit says of itself."""

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self.facts: dict[str, Any] = {}

    def note(self, **facts: object) -> None:
        self.facts.update(facts)


def softpatch(backbone: nn.Module, **changed: object) -> SoftPatch:
    return SoftPatch(backbone, **{**SETTINGS, **changed})  # type: ignore[arg-type]


def constant(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 64, 48)


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=["patches", "pixels"])
def test_agrees_with_the_authors_code(case: dict[str, Any]) -> None:
    """Threshold, discarded patches, scores and maps, with all patches kept that are not discarded."""
    settings = ("patch_size", "pretrain_dim", "target_dim", "outlier_neighbors", "discarded")
    model = softpatch(
        Written(), **{key: case[key] for key in settings}, coreset_ratio=1.0, projection_dim=None
    )
    run = Notes()
    model.fit(tiny.TensorTrainSet(constant(REFERENCE["train"]), batch_size=5), run)
    assert run.facts["threshold"] == pytest.approx(case["threshold"], rel=1e-4)
    assert run.facts["discarded"] == case["discarded_patches"]
    known = np.array(case["factors"])
    kept = known[known <= case["threshold"]]
    assert len(kept) < len(known)
    ours = model.factors.points.numpy()
    assert np.abs(ours[:, None] - kept).min(0).max() < 1e-4
    with torch.no_grad():
        prediction = model.predict(Inputs(constant(REFERENCE["test"])))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.scores.numpy(), case["scores"], rtol=1e-4)
    np.testing.assert_allclose(prediction.maps[:, ::7, ::6].numpy(), case["maps"], rtol=1e-4)


def noisy(count: int, injected: int) -> tuple[Tensor, Tensor]:
    """Training images of which the last few carry a defect, and where."""
    images = tiny.textures(count)
    masks = torch.zeros(count, 64, 64, dtype=torch.bool)
    images[-injected:], masks[-injected:] = tiny.planted(images[-injected:], seed=5)
    return images, masks


def test_injected_patches_are_among_the_discarded() -> None:
    """A tenth of the images is broken: four in five of their broken patches never reach the bank."""
    images, masks = noisy(40, 4)
    backbone = Backbone("test_resnet.r160_in1k", [2, 3], "random")
    model = softpatch(backbone, coreset_ratio=1.0)
    model.fit(tiny.TensorTrainSet(images, batch_size=8), Run())
    cells = masks.view(40, 8, 8, 8, 8).float().mean((2, 4)).flatten() > 0.4  # 8 x 8 patches an image
    with torch.no_grad():
        rows = model.embed(images).flatten(0, 2)
    here = (rows[cells][:, None] == model.bank.points).all(2).any(1)
    assert cells.sum() >= 10
    assert here.float().mean() < 0.2
    assert len(model.bank) == pytest.approx(0.85 * 40 * 64, abs=1)


def test_noise_hurts_less_than_without_the_discriminator() -> None:
    """A defect that was trained on is still found; with nothing discarded it lies in the bank."""
    backbone = Backbone("test_resnet.r160_in1k", [2, 3], "random")
    broken, masks = tiny.planted(tiny.textures(3, seed=9), seed=5)  # the same three that are injected
    contrasts = []
    for discarded in (0.15, 0.0):
        model = softpatch(backbone, discarded=discarded, coreset_ratio=1.0, sigma=0.0)
        model.fit(tiny.TensorTrainSet(noisy(30, 3)[0]), Run())
        with torch.no_grad():
            maps = model.predict(Inputs(broken)).maps
        assert maps is not None
        contrasts.append((maps[masks].mean() / maps[~masks].mean()).item())
    assert contrasts[0] > 2 * contrasts[1]


def test_scores_are_weighted_by_the_factor_of_the_nearest() -> None:
    model = softpatch(Given(), patch_size=1, pretrain_dim=3, target_dim=3, sigma=0.0)
    model.bank.points = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    model.factors.points = torch.tensor([1.5, 0.5])
    images = torch.tensor([[0.1, 0, 0], [1, 1, 0.6]]).T.reshape(1, 3, 1, 2)
    prediction = model.predict(Inputs(images))
    assert prediction.maps is not None
    torch.testing.assert_close(prediction.maps, torch.tensor([[[0.01 * 1.5, 0.16 * 0.5]]]))
    assert prediction.scores.item() == pytest.approx(0.08)


def test_the_factor_is_of_the_same_position() -> None:
    """What is usual at one position and strange at another is discarded at the other alone."""
    images = 0.02 * torch.rand(20, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    images[..., 1] += 0.8  # the right cell is bright in all
    images[0, :, 0, 0] = 0.81  # and the left one in the first
    model = softpatch(Given(), patch_size=1, pretrain_dim=3, target_dim=3, discarded=0.02, coreset_ratio=1.0)
    run = Notes()
    model.fit(tiny.TensorTrainSet(images), run)
    assert run.facts["discarded"] == 1
    assert not (model.bank.points == 0.81).all(1).any()


def test_the_bank_has_its_size_and_follows_the_seed() -> None:
    images = tiny.textures(10)
    backbone = Backbone("test_resnet.r160_in1k", [2, 3], "random")
    banks = []
    for seed in (0, 0, 1):
        model, run = softpatch(backbone), Notes(seed)
        model.fit(tiny.TensorTrainSet(images, batch_size=3), run)
        banks.append(model.bank.points)
        assert (run.facts["patches"], run.facts["coreset"], run.facts["discarded"]) == (640, 64, 96)
        assert model.factors.points.max() <= run.facts["threshold"]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_images(count: int) -> None:
    """Where nobody has neighbours to be compared with, nothing stands apart."""
    images = tiny.textures(count)
    model, run = softpatch(Backbone("test_resnet.r160_in1k", [2, 3], "random"), coreset_ratio=1.0), Notes()
    model.fit(tiny.TensorTrainSet(images), run)
    assert run.facts["discarded"] == 0
    assert model.predict(Inputs(images)).scores.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"discarded": 1.0}, "discarded"),
        ({"discarded": -0.1}, "discarded"),
        ({"coreset_ratio": 0.0}, "coreset_ratio"),
        ({"outlier_neighbors": 0}, "outlier_neighbors"),
        ({"starts": 0}, "starts"),
        ({"backend": "annoy"}, "annoy"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        softpatch(Given(), **changed)


def test_no_training_images() -> None:
    with pytest.raises(ValueError, match="0 images"):
        softpatch(Given()).fit(tiny.TensorTrainSet(torch.empty(0, 3, 8, 8)), Run())

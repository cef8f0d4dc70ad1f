"""CFLOW-AD against the authors' code, and what its paper says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Batch, Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.cflow_ad import CFlow, log_likelihood
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.base import Base
from ad_bench.parts.positions import sine_positions
from tests import tiny

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "cflow_ad.npz")
TRAIN, TEST = 8, 3  # images of the fixture


class LookUp(nn.Module):
    """Stands for a backbone: an image's first pixel says which of the given features are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = [torch.from_numpy(REFERENCE[f"level{i}"]) for i in range(2)]
        self.channels = [level.shape[1] for level in self.levels]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[images[:, 0, 0, 0].long()] for level in self.levels]


class InOrder(tiny.TensorTrainSet):
    """Gives its images in order even where it is asked to shuffle, as the fixture's loader did."""

    def batches(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        return super().batches(batch_size, False, augment)


def numbered(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


def cflow(backbone: nn.Module, **changed: object) -> CFlow:
    settings: dict[str, object] = {
        "padding": "reflect",
        "steps": 3,
        "clamp": 1.9,
        "base": "standard",
        "condition": 8,
        "rotation": 0.0,
        "meta_epochs": 5,
        "sub_epochs": 2,
        "batch_size": 4,
        "fiber": 256,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "warmup": 2,
        "warmup_from": 0.1,
        "decay_to": 0.001,
    }
    torch.manual_seed(0)
    return CFlow(backbone, **{**settings, **changed})  # type: ignore[arg-type]


def real(**changed: object) -> CFlow:
    return cflow(Backbone("test_resnet.r160_in1k", [2, 3], "random"), **changed)


def theirs(name: str) -> str:
    """Where the fixture keeps one of our flows' parameters."""
    level, _, block, *rest = name.split(".")[1:]
    tail = {"scale": "global_scale", "shift": "global_offset", "mixing": "w_perm"}
    return f"{level}/module_list.{block}.{tail.get(rest[0], '.'.join(rest))}"


@pytest.fixture(scope="module")
def trained() -> CFlow:
    """Begun with the fixture's weights and trained on its features, as its authors' code was."""
    method = cflow(LookUp())
    with torch.no_grad():
        for name, value in method.state_dict().items():
            if name.startswith("flows"):
                value.copy_(torch.from_numpy(REFERENCE[f"before/{theirs(name)}"]).view(value.shape))
    method.fit(InOrder(numbered(0, TRAIN)), Run(seed=0))
    return method.eval()


def test_a_whole_training_ends_with_the_authors_weights(trained: CFlow) -> None:
    """Ten passes, a warm-up and a cosine, two levels: scripts/make_cflow_ad_fixture.py."""
    moved = 0.0
    for name, value in trained.named_parameters():
        wanted = torch.from_numpy(REFERENCE[f"after/{theirs(name)}"]).view(value.shape)
        before = torch.from_numpy(REFERENCE[f"before/{theirs(name)}"]).view(value.shape)
        torch.testing.assert_close(value.detach(), wanted, rtol=1e-4, atol=1e-5, msg=name)
        moved = max(moved, float((wanted - before).abs().max()))
    assert moved > 0.05, "a training that moves nothing proves nothing"


def test_likelihoods_are_the_authors(trained: CFlow) -> None:
    with torch.no_grad():
        found = trained.likelihoods(numbered(TRAIN, TEST))
    for layer, level in enumerate(found):
        wanted = torch.from_numpy(REFERENCE[f"likelihood{layer}"])
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-5)


def test_maps_are_the_authors_with_their_peaks(trained: CFlow) -> None:
    """They divide by the largest likelihood of the test set, we by that of the training images."""
    images, peaks = numbered(TRAIN, TEST), trained.peaks.clone()
    with torch.no_grad():
        trained.peaks.copy_(torch.stack([level.max() for level in trained.likelihoods(images)]))
        prediction = trained.predict(Inputs(images))
    trained.peaks.copy_(peaks)
    assert prediction.maps is not None
    theirs = torch.from_numpy(REFERENCE["maps"])
    largest_sum = float(-prediction.maps.min())  # theirs: the largest sum of the test set minus the sum
    torch.testing.assert_close(prediction.maps + largest_sum, theirs, rtol=1e-4, atol=1e-5)
    scores = torch.from_numpy(REFERENCE["scores"]).float()
    torch.testing.assert_close(prediction.scores + largest_sum, scores, rtol=1e-4, atol=1e-5)


def test_positions_are_the_authors() -> None:
    torch.testing.assert_close(sine_positions(8, 5, 7), torch.from_numpy(REFERENCE["codes"]))


def test_the_backbone_is_the_authors() -> None:
    """Their ResNet pads by reflection; the fixture's has weights that anybody can write down."""
    backbone = Backbone("resnet18.tv_in1k", [2, 3, 4], "random")
    cflow(backbone, steps=1)
    with torch.no_grad():
        for name, value in backbone.network.state_dict().items():
            if value.ndim == 4:
                index = torch.arange(value.numel(), dtype=torch.float64).view_as(value)
                value.copy_(torch.sin(index * 0.37 + len(name)) * (2 / value[0].numel()) ** 0.5)
            elif name.endswith(("weight", "running_var")):
                value.fill_(1)
            else:
                value.zero_()
        images = torch.sin(torch.arange(3.0 * 64 * 64)).view(1, 3, 64, 64)
        levels = backbone(images * backbone.std + backbone.mean)
    for layer, level in enumerate(levels):
        wanted = torch.from_numpy(REFERENCE[f"backbone{layer}"])
        torch.testing.assert_close(level[0, ::8], wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_the_peaks_are_those_of_the_training_images(trained: CFlow) -> None:
    with torch.no_grad():
        levels = trained.likelihoods(numbered(0, TRAIN))
        maps = trained.predict(Inputs(numbered(0, TRAIN))).maps
    torch.testing.assert_close(trained.peaks, torch.stack([level.max() for level in levels]))
    assert maps is not None
    sums = sum(
        F.interpolate(torch.exp(level - peak)[:, None], size=(32, 32), mode="bilinear", align_corners=True)
        for level, peak in zip(levels, trained.peaks, strict=True)
    )
    torch.testing.assert_close(maps, -sums[:, 0])  # type: ignore[index]
    assert maps.min() >= -2 - 1e-5, "two levels, each at most 1"
    assert maps.max() <= 0


def test_the_likelihood_is_a_density() -> None:
    """Eq. 6 by hand: the normal density of z times the Jacobian's determinant, per dimension."""
    flow = real().flows[0]
    rows, places = torch.randn(3, 48), torch.randn(3, 8)
    found = log_likelihood(flow, Base(48, "standard"), rows, places)
    for i in range(3):

        def z(x: Tensor, i: int = i) -> Tensor:
            return flow(x[None], places[i : i + 1])[0][0]

        jacobian = torch.autograd.functional.jacobian(z, rows[i])
        normal = torch.distributions.Normal(0, 1).log_prob(z(rows[i])).sum()
        wanted = (normal + torch.linalg.slogdet(jacobian)[1]) / 48
        assert found[i].item() == pytest.approx(wanted.item(), abs=1e-4)


def test_the_learning_rate_rises_then_follows_a_cosine_by_meta_epochs() -> None:
    method = real(meta_epochs=25)

    def cosine(epoch: int) -> float:
        return 0.001 + 0.999 * (1 + math.cos(math.pi * epoch / 25)) / 2

    assert method.rate(0) == pytest.approx(0.1)
    assert method.rate(1) == pytest.approx((0.1 + cosine(2)) / 2)
    assert method.rate(2) == method.rate(2.9) == pytest.approx(cosine(2))
    assert method.rate(24.99) == pytest.approx(cosine(24))
    rates = [method.rate(step / 10) for step in range(250)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_training_images_are_turned_and_seeded() -> None:
    method = real(rotation=5.0, meta_epochs=1, sub_epochs=1)
    seen: list[Tensor] = []
    backbone = method.backbone.forward

    def watched(images: Tensor) -> list[Tensor]:
        seen.append(images.clone())
        return backbone(images)

    method.backbone.forward = watched  # type: ignore[method-assign]
    white = torch.ones(4, 3, 64, 64)
    method.fit(tiny.TensorTrainSet(white), Run(seed=3))
    turned, plain = seen[0], seen[-1]
    assert torch.equal(plain, white), "the peaks are measured on the images as they are"
    corners = turned[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).any(), "black where the turned image does not reach"
    assert (turned[:, :, 16:48, 16:48] == 1).all()
    assert len({float(image.sum()) for image in turned}) > 1, "every image by an angle of its own"
    first = turned
    again = real(rotation=5.0, meta_epochs=1, sub_epochs=1)
    backbone = again.backbone.forward
    again.backbone.forward = watched  # type: ignore[method-assign]
    seen.clear()
    again.fit(tiny.TensorTrainSet(white), Run(seed=3))
    assert torch.equal(seen[0], first)


def test_where_a_feature_lies_matters() -> None:
    """The flow is conditional: a normal feature at a foreign place is less likely."""
    half = torch.zeros(6, 3, 64, 64)
    half[..., 32:] = 1
    half = (half + 0.02 * torch.randn(half.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    method = real(meta_epochs=6, sub_epochs=4, fiber=64, condition=16)
    method.fit(tiny.TensorTrainSet(half), Run())
    with torch.no_grad():
        normal, mirrored = (method.predict(Inputs(images)).maps for images in (half[:2], half[:2].flip(3)))
    assert normal is not None
    assert mirrored is not None
    assert mirrored.mean() > normal.mean() + 0.1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"padding": "circular"}, "reflect or zeros; got 'circular'"),
        ({"condition": 10}, "multiple of 4"),
        ({"fiber": 0}, "fiber"),
        ({"sub_epochs": 0}, "sub_epochs"),
        ({"steps": 0}, "at least one step"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        real(**changed)

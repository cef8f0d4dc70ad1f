"""MKD against a training and tests by the authors' code; what direction and value each see."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ad_bench.contract import Batch, Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.mkd import MKD, Cloner
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "mkd.npz"
ADAM = partial(torch.optim.Adam, lr=1e-3)


def model(saliency: str = "guided", scored: int = 2, values: float = 0.5, convolutions: int = 4) -> MKD:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet.r160_in1k", [1, 2, 3], "random")
    stages = [2, 2, 3, 3, 3][:convolutions]
    return MKD(backbone, False, False, stages, 8, values, scored, saliency, 99.0, 2.0, 1, 4, ADAM)


@pytest.mark.parametrize("saliency", ["gradients", "guided"])
def test_agrees_with_the_authors_code(saliency: str) -> None:
    """Losses of three steps, the first gradient, scores, and both kinds of maps."""
    reference = np.load(FIXTURE)
    backbone = Backbone("vgg16.tv_in1k", [1, 2, 3, 4], "random")
    settings = ([2, 2, 3, 3, 3], 16, 0.5, 3, saliency, 99.0, 4.0, 3, 2)
    method = MKD(backbone, True, False, *settings, ADAM).double().train()
    fill(backbone.network, 1000)
    normalise_in_float64(backbone)
    fill(method.cloner, 2000)
    losses: list[float] = []
    gradient: list[float] = []

    class Steps:
        """One batch an epoch, a new one each time."""

        size = (128, 128)
        seed = 0

        def __len__(self) -> int:
            return 2

        def batches(self, *_: object, **__: object) -> list[Batch]:
            self.seed += 1
            return [Batch(pixels(2, 128, self.seed))]

    class Watched(Run):
        def loss(self, value: torch.Tensor) -> torch.Tensor:
            losses.append(value.item())
            if not gradient:
                found = torch.autograd.grad(value, list(method.cloner.parameters()), retain_graph=True)
                gradient.extend(float(one.flatten()[one.numel() // 3]) for one in found)
            return value

    method.fit(Steps(), Watched())  # type: ignore[arg-type]
    np.testing.assert_allclose(losses, reference["losses"], rtol=1e-6)
    np.testing.assert_allclose(gradient, reference["gradient"], rtol=1e-5, atol=1e-12)
    with torch.no_grad():
        prediction = method.eval().predict(Inputs(pixels(2, 128, 9)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.scores, reference["scores"], rtol=1e-6)
    wanted = reference["plain" if saliency == "gradients" else "guided"]
    np.testing.assert_allclose(prediction.maps[:, ::5, ::3], wanted, rtol=1e-4, atol=1e-6)


def test_the_cloner_gives_levels_of_the_source() -> None:
    method, images = model(), torch.rand(2, 3, 64, 96)
    levels = zip(method.source(images), method.cloner(images), strict=True)
    assert [tuple(one.shape) for one, _ in levels] == [(2, 32, 16, 24), (2, 48, 8, 12), (2, 192, 4, 6)]
    for known, learnt in zip(method.source(images), method.cloner(images), strict=True):
        assert known.shape == learnt.shape


def test_the_cloner_is_the_published_one() -> None:
    """Channels of every convolution, and where norms stand: none before a pooling."""
    cloner = Cloner([128, 256, 512, 512], [4, 8, 16, 32], [2, 2, 3, 3, 3], 16)
    convolutions = [layer.out_channels for layer in cloner.modules() if isinstance(layer, nn.Conv2d)]
    assert convolutions == [16, 16, 16, 128, 16, 16, 256, 16, 16, 512, 16, 16, 512]
    norms = [layer.num_features for layer in cloner.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [16] * 8


def test_direction_is_blind_to_scale_and_value_is_not() -> None:
    method, known = model(values=0.0), [torch.rand(2, 3, 4, 4) for _ in range(2)]
    torch.testing.assert_close(method.errors(known, [3 * one for one in known]), torch.zeros(2))
    torch.testing.assert_close(method.errors(known, [-one for one in known]), torch.full((2,), 4.0))
    method.values = 0.5
    squares = sum(one.square().mean((1, 2, 3)) for one in known)
    torch.testing.assert_close(method.errors(known, [3 * one for one in known]), 0.5 * 4 * squares)


def test_only_the_deepest_levels_are_scored() -> None:
    images = tiny.textures(2)
    method = model(scored=1).eval()
    with torch.no_grad():
        alone = method.errors(method.source(images)[-1:], method.cloner(images)[-1:])
        torch.testing.assert_close(method.predict(Inputs(images)).scores, alone)


def test_the_map_is_the_gradient_of_the_score() -> None:
    """Against finite differences in double precision, at the pixels of a row."""
    method, images = model("gradients").eval().double(), tiny.textures(1).double()
    seen = []
    method.shown = lambda gradient: seen.append(gradient) or gradient[:, 0]  # type: ignore[method-assign, func-returns-value]
    with torch.no_grad():
        method.predict(Inputs(images))
        for column in range(0, 64, 16):
            scores = []
            for step in (1e-6, -1e-6):
                moved = images.clone()
                moved[0, 1, 30, column] += step
                scores.append(float(method.predict(Inputs(moved)).scores))
            assert float(seen[0][0, 1, 30, column]) == pytest.approx(
                (scores[0] - scores[1]) / 2e-6, rel=1e-4, abs=1e-9
            )


def test_a_gradient_is_shown_from_its_lowest_to_its_percentile() -> None:
    method = model()
    gradient = torch.zeros(2, 3, 10, 10)
    gradient[0, 1] = -(torch.arange(100.0).view(10, 10) + 7)
    shown = method.shown(gradient)
    high = np.percentile(np.arange(100), 99)
    wanted = np.clip(np.arange(100) / high, 0, 1).reshape(10, 10)
    np.testing.assert_allclose(shown[0], wanted, rtol=1e-5)
    assert shown[1].max() == 0  # the same everywhere


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="scored is 1 to 3, of the deepest levels; got 4"):
        model(scored=4)
    with pytest.raises(UsageError, match=r"saliency=guidd: expected gradients or guided.*guided"):
        model("guidd")
    with pytest.raises(UsageError, match=r"strides \[4, 8, 16\] need 4 stages.*got \[2, 2, 3\]"):
        model(convolutions=3)
    with pytest.raises(UsageError, match=r"strides are 2, 4, 8.*got \[12\]"):
        Cloner([8], [12], [1, 1, 1, 1], 4)

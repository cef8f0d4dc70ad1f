"""CS-Flow against the authors' code, and what its paper says of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.csflow import CrossScale, CSFlow
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.scales import at_scales
from tests import tiny
from tests.written_down import features, fill, normalise_in_float64, pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "csflow.npz")
ADAM = partial(torch.optim.Adam, lr=2e-4, eps=1e-4, weight_decay=1e-5)
LEVELS = features([(7, 8, 8), (7, 4, 4), (7, 2, 2)], 3, 1)


class Given(nn.Module):
    """Stands for a backbone of one layer: the scales in turn, whatever the images."""

    layers, channels = (3,), (7,)

    def __init__(self, levels: list[Tensor]):
        super().__init__()
        self.levels, self.calls = levels, 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.calls += 1
        return [self.levels[(self.calls - 1) % len(self.levels)][: len(images)]]


def model(backbone: nn.Module | None = None, **changed: object) -> CSFlow:
    settings: dict[str, object] = {
        "scales": 3,
        "kernels": [3, 3, 5],
        "hidden": 5,
        "clamp": 3.0,
        "epochs": 1,
        "batch_size": 4,
        "clip": 1.0,
        **changed,
    }
    torch.manual_seed(0)
    backbone = backbone or Backbone("test_resnet.r160_in1k", [3], "random")
    return CSFlow(backbone, optimizer=ADAM, **settings)  # type: ignore[arg-type]


@pytest.fixture
def written() -> CSFlow:
    """With the weights that the authors' code was given."""
    method = model(Given(LEVELS)).double().eval()
    fill(method.flow, 1000)
    return method


def test_loss_and_gradient_agree_with_the_authors_code(written: CSFlow) -> None:
    loss = written.loss(LEVELS)
    np.testing.assert_allclose(loss.item(), REFERENCE["loss"], rtol=1e-8)
    loss.backward()
    gradients = [one.grad for one in written.flow.parameters() if one.grad is not None]
    np.testing.assert_allclose([float(one.norm()) for one in gradients], REFERENCE["norms"], rtol=1e-6)
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients]
    np.testing.assert_allclose(picked, REFERENCE["gradient"], rtol=1e-6, atol=1e-12)


def test_scores_and_maps_agree_with_the_authors_code(written: CSFlow) -> None:
    with torch.no_grad():
        z, _ = written.flow(LEVELS)
        prediction = written.predict(Inputs(torch.zeros(3, 3, 8, 8, dtype=torch.float64)))
    for scale, one in enumerate(z):
        np.testing.assert_allclose(one[:, ::2], REFERENCE[f"z{scale}"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(prediction.scores, REFERENCE["scores"], rtol=1e-8)
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps, REFERENCE["maps"], rtol=1e-8)


def test_features_agree_with_the_authors_code() -> None:
    """EfficientNet-B5 up to its 36th block, at three sizes of the image."""
    backbone = Backbone("tf_efficientnet_b5.aa_in1k", ["blocks.5"], "random").double()
    normalise_in_float64(backbone)
    fill(backbone.network, 2000)
    with torch.no_grad():
        found = at_scales(backbone, pixels(1, 128, 2), 3)
    for scale, one in enumerate(found):
        wanted = REFERENCE[f"level{scale}"]
        np.testing.assert_allclose(one[:, ::8], wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


def test_every_scale_hears_its_neighbours() -> None:
    torch.manual_seed(0)
    net = CrossScale(3, 4, 3, 2, 6)
    for gain in net.gains:
        nn.init.ones_(gain)
    maps = [torch.randn(1, 2, side, side) for side in (7, 4, 2)]  # sizes that are no doubles serve too
    before = net(*maps)
    assert [tuple(one.shape) for one in before] == [(1, 6, 7, 7), (1, 6, 4, 4), (1, 6, 2, 2)]
    for place in range(3):
        changed = [one + (index == place) for index, one in enumerate(maps)]
        heard = [not torch.allclose(one, other) for one, other in zip(net(*changed), before, strict=True)]
        assert heard == [abs(place - index) <= 1 for index in range(3)]


def test_a_fresh_flow_shuffles_and_training_lowers_the_loss() -> None:
    """The gains are 0 at first: z are the features, and the score half their mean square."""
    method = model(epochs=25, hidden=16)
    train = tiny.TensorTrainSet(tiny.textures(8))
    levels = at_scales(method.backbone, train.images, 3)
    squares = torch.cat([one.flatten(1) for one in levels], 1).square().mean(1) / 2
    torch.testing.assert_close(method.loss(levels), squares.mean())
    with torch.no_grad():
        torch.testing.assert_close(method.predict(Inputs(train.images)).scores, squares)
    before = method.loss(levels).item()
    method.fit(train, Run())
    assert method.loss(levels).item() < 0.9 * before


def test_images_are_seen_by_the_backbone_once() -> None:
    method = model(Given([level.float() for level in LEVELS]), epochs=3)
    method.fit(tiny.TensorTrainSet(torch.rand(3, 3, 16, 16)), Run())
    assert method.backbone.calls == 3


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"odd .* got \[2\]"):
        model(kernels=[2])
    with pytest.raises(UsageError, match="at least one step"):
        model(kernels=[])

"""CutPaste against a training step and scores of a public implementation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.cutpaste import CutPaste, moved, pooled
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.cutpaste import cut_paste, scar
from tests import tiny
from tests.written_down import fill, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "cutpaste.npz"
SGD = partial(torch.optim.SGD, lr=0.03, momentum=0.9, weight_decay=3e-5)
SIZES = ((0.02, 0.15), 0.3, (2, 16), (10, 25), 45)


def model(
    name: str = "test_resnet.r160_in1k",
    layers: tuple[int, ...] = (3,),
    weights: str = "random",
    steps: int = 4,
    frozen: int = 20,
    shift: float = 0.04,
    batch_size: int = 4,
) -> CutPaste:
    backbone = Backbone(name, layers, weights)
    return CutPaste(backbone, [512, 128], shift, 0.1, *SIZES, steps, frozen, batch_size, SGD, 1e-10)


def test_network_loss_and_density_agree_with_a_public_implementation() -> None:
    reference = np.load(FIXTURE)
    method = model("resnet18.tv_in1k", (4,)).double()
    trained = [*method.features.stages.parameters(), *method.classifier.parameters()]
    assert sum(one.numel() for one in trained) == reference["parameters"]
    fill(method.features.stages, 1000)
    fill(method.classifier, 1000 + len(method.features.stages.state_dict()))
    loss = method.loss([pixels(3, 64, seed) for seed in (1, 2, 3)])
    np.testing.assert_allclose(loss.item(), reference["loss"], rtol=1e-6)
    loss.backward()
    gradients = [one.grad for one in trained if one.grad is not None]
    least = 1e-9 * np.abs(reference["norms"]).max()  # biases before a batch norm have none but rounding
    np.testing.assert_allclose([float(one.norm()) for one in gradients], reference["norms"], 1e-4, least)
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients]
    np.testing.assert_allclose(picked, reference["gradient"], 1e-4, least)
    method.estimate(tiny.TensorTrainSet(pixels(12, 64, 4)))
    method.eval()
    with torch.no_grad():
        embeddings = pooled(method.features(pixels(4, 64, 5))[-1])
    np.testing.assert_allclose(embeddings[:, ::16], reference["embeddings"], rtol=1e-4, atol=1e-6)
    scores = method.predict(Inputs(pixels(4, 64, 5))).scores
    np.testing.assert_allclose((2 * scores).sqrt(), reference["distances"], rtol=1e-4)


def test_as_many_pixels_are_pasted_as_in_a_public_implementation() -> None:
    """The quantiles of 1000 draws; a scar's sides are whole numbers here, there rounded ones."""
    reference, draws, image = np.load(FIXTURE), torch.Generator().manual_seed(0), torch.zeros(3, 256, 256)
    area, aspect, width, length, rotation = SIZES
    for name, one in (
        ("patches", lambda: cut_paste(image, draws, area, aspect, 0.0)),
        ("scars", lambda: scar(image, draws, width, length, rotation, 0.0)),
    ):
        counts = np.sort([int(one()[1].sum()) for _ in range(1000)])[::20]
        assert np.abs(counts - reference[name]).mean() < 0.1 * reference[name].mean(), name


def test_grad_cam_by_hand() -> None:
    """The map is a positive sum of channels, weighed by how much each one's mean moves the score."""
    method = model(steps=2)
    method.fit(tiny.TensorTrainSet(tiny.textures(8)), Run())
    images = tiny.textures(2, seed=3)
    with torch.no_grad():
        maps = method.eval().features(images)[-1]
        prediction = method.predict(Inputs(images))
    weights = []
    for channel in range(maps.shape[1]):
        step = torch.zeros_like(maps).double()
        step[:, channel] = 1e-5
        gaussian = method.gaussian.double()
        moved_by = [gaussian.squared(pooled(maps.double() + sign * step)) / 2 for sign in (1, -1)]
        weights.append((moved_by[0] - moved_by[1]) / 2e-5 / maps[0, 0].numel())
    cam = (torch.stack(weights, 1)[..., None, None] * maps).sum(1).relu()
    assert prediction.maps is not None
    wide = torch.nn.functional.interpolate(cam[:, None], size=(64, 64), mode="bilinear")[:, 0].float()
    torch.testing.assert_close(prediction.maps, wide, rtol=1e-2, atol=1e-3 * float(wide.max()))


def test_the_three_classes_are_balanced_and_share_an_image() -> None:
    method, draws = model(shift=0.0), torch.Generator().manual_seed(0)
    image, patched, scarred = method.views(tiny.textures(1)[0], draws)
    assert 0 < (patched != image).float().mean() < 0.2
    assert 0 < (scarred != image).float().mean() < 0.13
    seen: list[Tensor] = []
    method.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output))
    views = [torch.stack([one] * 4) for one in (image, patched, scarred)]
    loss = method.loss(views)
    by_hand = -seen[0].log_softmax(1).view(3, 4, 3)[torch.arange(3), :, torch.arange(3)].mean()
    torch.testing.assert_close(loss, by_hand)


def test_images_are_moved_by_up_to_a_share() -> None:
    image, draws = torch.arange(3 * 50 * 100.0).view(3, 50, 100), torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        value = int(moved(image, 0.04, draws)[0, 25, 50]) - 25 * 100 - 50
        right, down = (value + 10) % 100 - 10, (value + 10) // 100
        seen.add((down, right))
    assert {down for down, _ in seen} == set(range(-2, 3))
    assert {right for _, right in seen} == set(range(-4, 5))
    assert torch.equal(moved(image, 0.0, draws), image)


def weight(method: CutPaste) -> Tensor:
    return next(method.features.parameters()).detach().clone()


def test_random_weights_are_the_seeds_and_pretrained_ones_wait() -> None:
    torch.manual_seed(1)
    one = model()
    torch.manual_seed(2)
    other = model()
    assert not torch.equal(weight(one), weight(other))
    assert one.frozen == 0
    train = tiny.TensorTrainSet(tiny.textures(8))
    for frozen, steps, changes in ((3, 3, False), (3, 4, True)):
        method = model("test_resnet.adbench", weights="bundled", frozen=frozen, steps=steps)
        before = weight(method)
        method.fit(train, Run())
        assert torch.equal(weight(method), before) != changes


def test_the_given_number_of_steps_is_done() -> None:
    method, losses = model(steps=7), []
    run = Run()
    run.loss = lambda value: losses.append(float(value.detach())) or value  # type: ignore[method-assign, func-returns-value]
    method.fit(tiny.TensorTrainSet(tiny.textures(10)), run)
    assert len(losses) == 7
    assert method.training


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"pools one layer.* got \[2, 3\]"):
        model(layers=(2, 3))
    with pytest.raises(UsageError, match=r"share below 0\.5"):
        model(shift=0.5)

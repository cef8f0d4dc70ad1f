"""MSPB against two training steps and the maps of the authors' code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.mspb import MSPB, likeness
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "mspb.npz"
PAPER: dict[str, Any] = {
    "sizes": [16, 32, 64],
    "strides": [16, 16, 32],
    "kernels": [[3, 3, 3, 2], [3, 3, 2, 2, 2], [2, 2, 2, 1]],
    "widths": [[128, 64, 32], [256, 128, 128, 64], [256, 128, 64]],
    "dimensions": 64,
    "classifier": [128, 256, 512],
    "optimizer": partial(torch.optim.Adam, lr=1e-4),
}
SMALL: dict[str, Any] = {
    "sizes": [16, 32],
    "strides": [8, 16],
    "kernels": [[3, 3, 3, 2], [3, 3, 2, 2, 2]],
    "widths": [[8, 8, 8], [8, 8, 8, 8]],
    "dimensions": 8,
    "classifier": [8, 8],
    "optimizer": partial(torch.optim.Adam, lr=1e-3),
}


def model(settings: dict[str, Any], name: str, layers: list[int], **changes: Any) -> MSPB:
    rest: dict[str, Any] = {
        "directions": 12,
        "noise": 0.02,
        "jitter": 16,
        "weight": 1e-3,
        "compat": True,
        "groups": 5,
        "rounds": 30,
        "compact_from": 1,
        "compact_every": 2,
        "repeats": 2,
        "epochs": 2,
        "batch_size": 4,
        "network_steps": 3,
        "backend": "torch",
    }
    return MSPB(Backbone(name, layers, "random"), **{**settings, **rest, **changes})


def small(**changes: Any) -> MSPB:
    torch.manual_seed(0)
    return model(SMALL, "test_resnet.r160_in1k", [0, 1], **changes)


def test_two_steps_and_maps_agree_with_the_authors() -> None:
    reference = np.load(FIXTURE)
    method = model(PAPER, "vgg16.tv_in1k", [1, 2, 4]).double().eval()
    fill(method.encoders.features.stages, 1000)
    for number, (head, known) in enumerate(zip(method.encoders.heads, method.known, strict=True)):
        fill(head, 2000 + 100 * number)
        fill(known.relation, 3000 + 100 * number)
    trained = [*method.encoders.features.parameters(), *method.encoders.heads.parameters()]
    assert reference["parameters"] == sum(one.numel() for one in [*trained, *method.known.parameters()])
    others = [*method.encoders.heads.parameters(), *method.known.parameters()]
    steps = method.optimizer([one for one in others if one.requires_grad])
    network = method.optimizer(list(method.encoders.features.parameters()))
    labels = torch.tensor([3, 7])
    for step, expected in enumerate(reference["losses"]):
        method.zero_grad(set_to_none=True)
        losses, total = [], torch.zeros((), dtype=torch.float64)
        for number, (size, known) in enumerate(zip(method.sizes, method.known, strict=True)):
            patches = [pixels(2, size, 10 * step + 100 * number + one) - 0.5 for one in range(5)]
            one, other, *three = (method.encoders(number, patch) for patch in patches)
            where, alike = F.cross_entropy(known.relation(one, other), labels), likeness(*three)
            total = total + where + method.weight * alike
            losses += [where.item(), alike.item()]
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        total.backward()
        steps.step()
        for _ in range(method.network_steps):
            network.step()
    method.mean.points = torch.full((3, 64, 64), 0.5, dtype=torch.float64)
    with torch.no_grad():
        method.remember(tiny.TensorTrainSet(pixels(3, 64, 7)))
        prediction = method.predict(Inputs(pixels(2, 64, 8)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::5, ::3], reference["maps"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prediction.scores, reference["scores"], rtol=1e-4)


def test_near_patches_are_within_a_sixteenth_and_far_ones_beyond_a_neighbour() -> None:
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    images = torch.stack([rows, columns, rows]).expand(400, -1, -1, -1)  # a patch says where it lies
    patches, label = small().draw(images, 32, torch.Generator().manual_seed(0))
    start, near, far = (patch[:, :2, 0, 0] for patch in patches[2:5])
    step = (near - start).abs()
    assert set(step.flatten().tolist()) == {0.0, 1.0, 2.0}
    middle = ((start >= 2) & (start <= 222)).all(1)
    assert step[middle].sum(1).min() > 0  # never itself, where nothing is held back
    inside = ((far > 0) & (far < 224)).all(1)  # none of these was held back
    way = (far - start)[inside].abs()
    assert inside.sum() > 20
    assert way.min() >= 24  # 3/4 of a patch more than a neighbour in rows and in columns
    assert way.max() <= 24 + 31
    assert sorted(set(label.tolist())) == list(range(12))
    one, other = (patch[:, :2, 16:, 16:].mean((2, 3)) for patch in patches[:2])
    assert (one - other).abs().amax(1).min() < 32
    assert not torch.equal(patches[0], patches[0].round())  # disturbed, the others not
    assert all(torch.equal(patch, patch.round()) for patch in patches[2:])


@pytest.mark.parametrize("compat", [True, False])
def test_compat_says_whether_last_weights_and_centres_learn(compat: bool) -> None:
    method = small(compat=compat, epochs=3)
    before = [known.relation.last.weight.clone() for known in method.known]
    method.fit(tiny.TensorTrainSet(tiny.textures(4)), Run())
    for known, weight in zip(method.known, before, strict=True):
        assert torch.equal(known.relation.last.weight, weight) == compat
        assert len(known.centres) == (0 if compat else 5)
        assert len(known.normal) == 4 * (49 if known is method.known[0] else 9)


def test_centres_add_the_squared_distance_to_the_nearest() -> None:
    method, images = small(), tiny.textures(3)
    method.mean.points = images.mean(0)
    method.eval()
    without = method.loss(images, torch.Generator().manual_seed(1))
    centres = torch.rand(4, 8) - 0.5
    method.known[0].centres.points = centres
    found = method.loss(images, torch.Generator().manual_seed(1)) - without
    patches, _ = method.draw(images - images.mean(0), 16, torch.Generator().manual_seed(1))
    vectors = method.encoders(0, patches[5])
    by_hand = torch.stack([(centres - vector).square().sum(1).min() for vector in vectors]).mean()
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=1e-5)


def test_normal_patches_score_nothing() -> None:
    images = tiny.textures(3)
    method = small(epochs=1)
    method.fit(tiny.TensorTrainSet(images), Run())
    method.eval()
    with torch.no_grad():
        known, other = (method.predict(Inputs(some)) for some in (images, tiny.planted(images)[0]))
    assert known.scores.max() < 1e-3
    assert other.scores.min() > 10 * known.scores.max()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sizes": [16], "strides": [8]}, "one for each layer"),
        ({"strides": [8]}, "strides"),
        ({"sizes": [24, 32]}, "12 cells"),
        ({"kernels": [[3, 3, 3], [3, 3, 2, 2, 2]]}, "into one"),
        ({"compact_every": 0}, "compact_every"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        small(**changes)


def test_images_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(UsageError, match="24x24"):
        small().fit(tiny.TensorTrainSet(torch.rand(2, 3, 24, 24)), Run())

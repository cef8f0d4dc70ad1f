"""DevNet against the authors' code, and what its paper says of it."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.devnet import DevNet, stretched
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.deviation import deviation_loss
from scripts.seeded import drawn, fill
from tests import tiny

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "devnet.npz")


def devnet(name: str = "test_resnet.r160_in1k", **changed: object) -> DevNet:
    settings: dict[str, object] = {
        "scales": 2,
        "top": 0.1,
        "margin": 5.0,
        "references": 5000,
        "turn": 180,
        "batch_size": 8,
        "steps": 10,
        "epochs": 2,
        "optimizer": partial(torch.optim.Adam, lr=2e-4, weight_decay=1e-5),
        "schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=10, gamma=0.1),
        "clip": 1.0,
        "ceiling": 0.99,
        "sigma": 4.0,
    }
    torch.manual_seed(0)
    return DevNet(Backbone(name, [4], "random"), **{**settings, **changed})  # type: ignore[arg-type]


def theirs(name: str) -> str:
    """One of our parameters in the reference's words."""
    if name.startswith("head."):
        return name.replace("head.", "conv.")
    _, _, stage, number, *rest = name.split(".")
    assert stage == "0"
    modules = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return ".".join(["feature_extractor.net", modules[int(number)], *rest])


@pytest.fixture
def filled() -> DevNet:
    """A whole ResNet-18 with the fixture's weights; what it sees counts as normalised already."""
    method = devnet("resnet18.tv_in1k")
    method.features.mean.zero_()
    method.features.std.fill_(1)
    named = method.state_dict().items()
    fill({theirs(name): value for name, value in named if name not in ("features.mean", "features.std")})
    return method


IMAGES = drawn("images", (4, 3, int(REFERENCE["size"]), int(REFERENCE["size"])))
SAMPLED = int(REFERENCE["sampled"])


def test_scores_and_maps_equal_the_reference(filled: DevNet) -> None:
    with torch.no_grad():
        prediction = filled.eval().predict(Inputs(IMAGES))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.scores, REFERENCE["scores"], rtol=1e-4)
    maps = prediction.maps.flatten(1)[:, ::SAMPLED]
    # Gradients down to the pixels: the reference's own rounding, measured in double precision, is 1.7e-3.
    np.testing.assert_allclose(maps, REFERENCE["maps"], rtol=0, atol=4e-3)


def test_loss_and_gradients_equal_the_reference(filled: DevNet) -> None:
    method = copy.deepcopy(filled).train().double()
    prior = drawn("prior", (5000,)).double()
    labels = torch.from_numpy(REFERENCE["labels"])
    loss = deviation_loss(method.score(IMAGES.double()), labels, prior, method.margin)
    loss.backward()
    assert loss.item() == pytest.approx(REFERENCE["loss"].item(), rel=1e-4)
    names = {theirs(name): one for name, one in method.named_parameters()}
    checked = [key for key in REFERENCE.files if key.startswith("gradient ")]
    assert len(checked) == 3
    for key in checked:
        gradient = names[key.removeprefix("gradient ")].grad
        assert gradient is not None
        wanted = REFERENCE[key]
        error = np.abs(gradient.flatten()[::SAMPLED].numpy() - wanted).max()
        assert error < 1e-3 * np.abs(wanted).max(), key  # the reference's own: 1e-4


def test_learns_from_few_anomalies() -> None:
    images = tiny.textures(12)
    images[9:] = tiny.planted(images[9:], seed=3)[0]
    method = devnet(epochs=6, optimizer=partial(torch.optim.Adam, lr=1e-3))
    method.fit(tiny.TensorTrainSet(images, torch.tensor([0] * 9 + [1] * 3)), Run())
    clean = tiny.textures(4, seed=8)
    with torch.no_grad():
        normal = method.eval().predict(Inputs(clean)).scores
        anomalous = method.predict(Inputs(tiny.planted(clean, seed=9)[0])).scores
    assert normal.max() < anomalous.min()


def test_half_of_a_batch_is_anomalous(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(scores: Tensor, labels: Tensor, reference: Tensor, margin: float) -> Tensor:
        seen.append(labels.float().mean().item())
        return scores.mean()

    monkeypatch.setattr("ad_bench.methods.devnet.deviation_loss", watched)
    labels = torch.tensor([0] * 11 + [1])
    devnet(steps=3, epochs=1).fit(tiny.TensorTrainSet(tiny.textures(12), labels), Run())
    assert seen == [0.5] * 3


def test_a_score_is_the_highest_tenth_of_all_scales() -> None:
    method = devnet(top=0.25, scales=2).eval()
    images = torch.rand(2, 3, 128, 96)
    with torch.no_grad():
        normalised = method.features.normalised(images)
        by_hand = []
        for level in (normalised, F.interpolate(normalised, size=(64, 48))):
            values = method.head(method.features(level * method.features.std + method.features.mean)[-1])
            by_hand.append(values.abs().flatten(1).sort(1, descending=True).values)
        wanted = (
            by_hand[0][:, :3].mean(1) + by_hand[1][:, :1].mean(1)
        ) / 2  # of 4 x 3 and of 2 x 2 positions
        torch.testing.assert_close(method.score(images), wanted, rtol=1e-4, atol=1e-6)


def test_stretched_by_hand() -> None:
    one = torch.arange(101.0).view(1, 101) + 7
    torch.testing.assert_close(stretched(one, 0.5), ((one - 7) / 50).clamp(max=1))
    assert torch.equal(stretched(torch.zeros(3, 3), 0.99), torch.zeros(3, 3))


def test_labels_of_one_kind_are_refused() -> None:
    images = tiny.textures(4)
    with pytest.raises(UsageError, match="protocol=supervised"):
        devnet().fit(tiny.TensorTrainSet(images), Run())
    with pytest.raises(UsageError, match="normal"):
        devnet().fit(tiny.TensorTrainSet(images, torch.ones(4, dtype=torch.long)), Run())
    with pytest.raises(UsageError, match="top"):
        devnet(top=0.0)

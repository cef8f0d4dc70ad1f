"""DRAEM against numbers made by the authors' code, and the claims of its paper."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.methods.draem import DRAEM
from ad_bench.parts.defects import TextureDefects
from ad_bench.parts.losses import focal
from ad_bench.parts.perlin import PerlinMasks, noise
from ad_bench.parts.similarity import ssim
from tests import tiny

FIXTURE = Path(__file__).parent / "fixtures" / "draem.npz"
SETTINGS: dict[str, Any] = {
    "base": 4,
    "base_discriminative": 4,
    "turned": 0.3,
    "rotation": 90,
    "defects": TextureDefects(None, 3, 0.5, PerlinMasks((0, 5), 90, 0.5), (0.2, 1.0)),
    "window": 21,
    "epochs": 2,
    "batch_size": 8,
    "milestones": [0.8, 0.9],
    "decay": 0.2,
    "optimizer": partial(torch.optim.Adam, lr=1e-3),
}


def draem(**changed: object) -> DRAEM:
    torch.manual_seed(0)
    return DRAEM(**{**SETTINGS, **changed})


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.fixture
def authors(made: dict[str, np.ndarray]) -> DRAEM:
    """Ours with the fixture's weights: both list convolutions and norms in the order of their use."""
    method = draem(base=2, base_discriminative=2).double()
    for name, network in (("restore", method.reconstructive), ("segment", method.discriminative)):
        values = torch.from_numpy(made[f"{name}_weights"]).double()
        kept = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
        pairs = _in_order_of_use(kept)
        pieces = values.split([value.numel() for value in pairs.values()])
        filled = {key: piece.view(pairs[key].shape) for key, piece in zip(pairs, pieces, strict=True)}
        network.load_state_dict(filled, strict=False)
    return method


def _in_order_of_use(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's steps one after the other, where ours lists all ways up before all pairs."""

    def place(key: str) -> tuple[int, int, int]:
        part, number = key.split(".")[:2]
        rank = {"down": 0, "wider": 1, "pair": 1, "last": 2}[part]
        return rank, int(number) if number.isdigit() else 0, part == "pair"

    return dict(sorted(state.items(), key=lambda item: place(item[0])))


def inputs(made: dict[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    images, spoilt = (torch.from_numpy(made[key]).double() / 255 for key in ("images", "spoilt"))
    bits = np.unpackbits(made["masks"], count=images[:, 0].numel()).reshape(images[:, 0].shape)
    return images, spoilt, torch.from_numpy(bits).bool()


def test_map_and_score_are_the_authors(made: dict[str, np.ndarray], authors: DRAEM) -> None:
    with torch.no_grad():
        prediction = authors.eval().predict(Inputs(inputs(made)[1]))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::3, ::3], made["maps"], rtol=1e-9)
    np.testing.assert_allclose(prediction.scores, made["scores"], rtol=1e-9)


def _smoothed(probability: Tensor, target: Tensor) -> Tensor:
    """The focal loss with the authors' smoothed labels, where ours clamps probabilities: deviation 6."""
    labels = torch.stack([~target, target], 1).double().clamp(1e-5, 1 - 1e-5)
    given = (labels * probability).sum(1) + 1e-5
    return (-((1 - given) ** 2) * given.log()).mean()


@pytest.mark.parametrize(("loss_of_mask", "tolerance"), [(_smoothed, 1e-4), (focal, 1e-3)])
def test_loss_and_gradients_are_the_authors(
    loss_of_mask: object,
    tolerance: float,
    made: dict[str, np.ndarray],
    authors: DRAEM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ad_bench.methods.draem.focal", loss_of_mask)
    images, spoilt, masks = inputs(made)
    loss = authors.train().loss(images, spoilt, masks)
    loss.backward()
    assert loss.item() == pytest.approx(made["losses"].sum(), rel=min(tolerance, 1e-4))
    gradients = []
    for network in (authors.reconstructive, authors.discriminative):
        ordered = _in_order_of_use(dict(network.named_parameters())).values()
        gradients += [value.grad for value in ordered if value.grad is not None]
    found = np.array([[one.norm(), one.flatten()[0], one.flatten()[-1]] for one in gradients])
    assert found.shape == made["gradients"].shape
    assert (made["gradients"][:, 0] > 1e-6).mean() > 0.5
    np.testing.assert_allclose(found, made["gradients"], rtol=tolerance, atol=1e-10 + 1e-3 * tolerance)


def test_the_three_losses_are_the_authors(made: dict[str, np.ndarray], authors: DRAEM) -> None:
    images, spoilt, masks = inputs(made)
    with torch.no_grad():
        restored, logits = authors.train()(spoilt)
    found = [
        torch.nn.functional.mse_loss(restored, images),
        1 - ssim(restored, images).mean(),
        focal(logits.softmax(1), masks),
    ]
    np.testing.assert_allclose(torch.stack(found).numpy(), made["losses"], rtol=1e-4)


def test_noise_is_the_authors(made: dict[str, np.ndarray]) -> None:
    found = noise(torch.from_numpy(made["angles"]), (64, 64))
    np.testing.assert_allclose(found, made["noise"], atol=1e-12)


def test_beyond_the_border_the_score_s_window_sees_zeros() -> None:
    method = draem().eval()
    logits = torch.full((1, 2, 64, 64), -40.0)
    logits[:, 0], logits[:, 1, :11, :11] = 0, 40
    method.forward = lambda images: (images, logits)  # type: ignore[method-assign]
    assert method.predict(Inputs(torch.zeros(1, 3, 64, 64))).scores.item() == pytest.approx(121 / 441)


def test_the_published_size() -> None:
    """70 and 28 million weights; counted by hand from the widths in the card: 3x3 convolutions and norms."""

    def weights(*channels: int) -> int:
        return sum(9 * a * b + b + 2 * b for a, b in pairwise(channels))

    b = 128
    down = (
        weights(3, b, b)
        + weights(b, 2 * b, 2 * b)
        + weights(2 * b, 4 * b, 4 * b)
        + weights(4 * b, 8 * b, 8 * b)
    )
    up = weights(*[8 * b] * 3, 4 * b) + weights(*[4 * b] * 3, 2 * b) + weights(*[2 * b] * 3, b)
    restore = down + weights(8 * b, 8 * b, 8 * b) + up + weights(*[b] * 4) + 9 * b * 3 + 3
    method = draem(base=128, base_discriminative=64)
    assert sum(value.numel() for value in method.reconstructive.parameters()) == restore
    assert 60e6 < restore < 75e6
    assert 26e6 < sum(value.numel() for value in method.discriminative.parameters()) < 30e6


def test_the_start_is_the_references() -> None:
    method = draem(base=16)
    convolution, norm = method.reconstructive.down[3][0], method.reconstructive.down[3][1]
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert norm.bias.abs().max() == 0


def test_outside_the_mask_nothing_is_spoilt() -> None:
    method, generator = draem(), torch.Generator().manual_seed(3)
    originals = tiny.textures(40)
    masks, turned = [], 0
    for original in originals:
        image, spoilt, mask = method.spoil(original, generator)
        assert torch.equal(image[:, ~mask], spoilt[:, ~mask])
        assert not mask.any() or not torch.equal(image, spoilt)
        turned += not torch.equal(image, original)
        masks.append(mask.any().item())
    assert 8 < sum(masks) < 25, "half of the images, but for masks that came out empty"
    assert 5 < turned < 22, "three in ten"


def test_spoiling_follows_the_run_s_seed() -> None:
    method, image = draem(), tiny.textures(1)[0]
    first, again = (method.spoil(image, torch.Generator().manual_seed(1)) for _ in range(2))
    other = method.spoil(image, torch.Generator().manual_seed(4))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


def test_the_rate_falls_twice() -> None:
    rates = []
    method = draem(epochs=10)
    build = method.optimizer

    def watched(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = build(parameters)
        optimizer.register_step_post_hook(lambda one, *_: rates.append(one.param_groups[0]["lr"]))
        return optimizer

    method.optimizer = watched
    method.fit(tiny.TensorTrainSet(tiny.textures(4, size=32)), Run())
    assert rates == pytest.approx([1e-3] * 8 + [2e-4, 4e-5])


def test_the_defect_is_found_and_not_restored() -> None:
    """The paper's claim: the restoration lacks the defect, and what sees both says where it was."""
    notes: dict[str, object] = {}
    run = Run()
    run.note = notes.update  # type: ignore[method-assign, assignment]
    method = draem(base=8, base_discriminative=8, epochs=40, optimizer=partial(torch.optim.Adam, lr=3e-3))
    method.fit(tiny.TensorTrainSet(tiny.textures(16, size=32)), run)
    method.eval()
    assert notes["textures"] == "procedural"
    clean = tiny.textures(6, size=32, seed=9)
    broken, masks = tiny.planted(clean)
    with torch.no_grad():
        restored, logits = method(broken)
    maps = logits.softmax(1)[:, 1]
    inside, outside = maps[masks].mean(), maps[~masks].mean()
    assert inside > 2 * outside
    where = masks[:, None].expand_as(clean)
    assert (restored - clean)[where].square().mean() < 0.5 * (broken - clean)[where].square().mean()

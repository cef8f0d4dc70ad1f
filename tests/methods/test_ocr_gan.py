"""OCR-GAN against steps and scores of the authors' code, and what the paper says of its frequencies."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.ocr_gan import OCRGAN, ChannelSelection, decoupled
from scripts.seeded import fill
from tests import tiny
from tests.written_down import pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "ocr_gan.npz")
SIDE = 64


def model(**changed: object) -> OCRGAN:
    settings: dict[str, object] = {
        "size": SIDE,
        "base": 4,
        "base_discriminator": 4,
        "features": 20,
        "reduction": 2,
        "narrowest": 32,
        "adversarial": 1,
        "reconstruction": 50,
        "latent": 1,
        "latent_share": 0.1,
        "area": (0.02, 0.15),
        "aspect": 0.3,
        "strength": 0.1,
        "hole": 5,
        "collapsed": 1e-5,
        "epochs": 2,
        "batch_size": 4,
        "optimizer": partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999)),
    }
    torch.manual_seed(0)
    return OCRGAN(**{**settings, **changed})  # type: ignore[arg-type]


def theirs(name: str) -> str:
    """One of the generator's tensors in the reference's words."""
    kind, level, layer, *rest = name.split(".")
    if kind == "choose":
        layer = {"squeeze": "fc", "high": "fcs.0", "low": "fcs.1"}[layer]
        return f"choose {SIDE >> (int(level) + 1)} {layer}.{rest[0]}"
    stream = {"high": "lap", "low": "res"}[layer]
    return "model" + ".submodule.0" * int(level) + f".{kind}_{stream}." + ".".join(rest)


def named(method: OCRGAN) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both networks' tensors in the reference's words, the discriminator's by place."""
    made = {theirs(name): one for name, one in method.generator.state_dict(keep_vars=True).items()}
    judge = method.discriminator.state_dict(keep_vars=True)
    places = {
        f"judge {index} {name.rpartition('.')[2]}": one for index, (name, one) in enumerate(judge.items())
    }
    return made, places


def filled() -> OCRGAN:
    method = model().double()
    for tensors in named(method):
        fill(tensors)
    return method


def gradients(tensors: dict[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    """Norm and one entry of every gradient."""
    held = {name: one.grad for name, one in tensors.items() if one.grad is not None}
    return {
        name: np.array([float(one.norm()), float(one.flatten()[one.numel() // 3])])
        for name, one in held.items()
    }


@pytest.mark.parametrize(("moment", "judging"), [("first epoch", True), ("later", False)])
def test_losses_and_gradients_equal_the_reference(moment: str, judging: bool) -> None:
    method = filled()
    method.discriminator.train(judging)
    high, low = decoupled(pixels(4, SIDE, 1))
    real, fake = high + low, method.generator((high, low))
    made = method.generator_loss(real, fake)
    made.backward()
    makers, judges = named(method)
    found = gradients(makers)
    method.discriminator.zero_grad()
    judged = method.discriminator_loss(real, fake.detach(), 2 * pixels(4, SIDE, 2) - 1)
    judged.backward()
    found |= gradients(judges)
    np.testing.assert_allclose([made.item(), judged.item()], REFERENCE[f"{moment}: losses"], rtol=1e-9)
    wanted = {
        name.removeprefix(f"{moment}: "): REFERENCE[name]
        for name in REFERENCE.files
        if name.startswith(moment) and not name.endswith("losses")
    }
    assert wanted.keys() == found.keys()
    largest = max(norm for norm, _ in wanted.values())
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-9 * largest, err_msg=name)


def test_scores_equal_the_reference() -> None:
    method = filled().eval()
    images = pixels(4, SIDE, 1)
    with torch.no_grad():
        high, low = decoupled(images)
        fake = method.generator((high, low))
        features = torch.stack([method.discriminator(high + low)[1], method.discriminator(fake)[1]])
        prediction = method.predict(Inputs(images))
    np.testing.assert_allclose(fake[:, :, ::5, ::4], REFERENCE["fake"], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(features, REFERENCE["features"], rtol=1e-8, atol=1e-9)
    span = prediction.scores.max() - prediction.scores.min()
    scaled = (prediction.scores - prediction.scores.min()) / span
    np.testing.assert_allclose(scaled, REFERENCE["scaled"], rtol=1e-5, atol=1e-6)
    assert prediction.maps is not None
    by_hand = 0.9 * prediction.maps[0].mean() + 0.1 * (features[0, 0] - features[1, 0]).square().mean()
    torch.testing.assert_close(prediction.scores[0], by_hand)


def test_networks_are_as_large_as_the_reference() -> None:
    with torch.device("meta"):
        method = model(size=256, base=64, base_discriminator=64, features=100)
    made = [one for name, one in method.generator.named_parameters() if not name.startswith("choose")]
    counts = [sum(one.numel() for one in part) for part in (made, method.discriminator.parameters())]
    assert counts == REFERENCE["parameters"].tolist()


def test_frequencies_equal_the_reference_and_sum_to_the_image() -> None:
    levels = (255 * pixels(4, SIDE, 1)[:2]).round().float()
    high, low = (((one + 1) * 127.5).round() for one in decoupled(levels / 255))
    assert torch.equal(high.permute(0, 2, 3, 1).byte(), torch.from_numpy(REFERENCE["high"]))
    assert torch.equal(low.permute(0, 2, 3, 1).byte(), torch.from_numpy(REFERENCE["low"]))
    assert torch.equal(high + low, torch.maximum(levels, low))
    assert 0.2 < (levels > low).float().mean() < 0.8


def test_what_one_frequency_gets_of_a_channel_the_other_lacks() -> None:
    torch.manual_seed(0)
    choose = ChannelSelection(6, 32)
    high, low = torch.rand(2, 6, 5, 5), torch.rand(2, 6, 5, 5)
    one, other = choose((high, low))
    shares = one / high
    torch.testing.assert_close(shares + other / low, torch.ones_like(high))
    torch.testing.assert_close(shares, shares[..., :1, :1].expand_as(shares))
    assert (shares[0] - shares[1]).abs().max() > 1e-3  # it depends on what is seen
    swapped = choose((low, high))
    torch.testing.assert_close(swapped[1] / high, 1 - shares)  # of the sum, whoever brings what


def test_a_piece_is_pasted_and_a_square_blackened() -> None:
    method, draws = model(), torch.Generator().manual_seed(0)
    image = torch.rand(3, SIDE, SIDE) * 0.9 + 0.1
    before, dark = image.clone(), []
    for _ in range(200):
        pasted = method.pasted(image, draws)
        black = (pasted == 0).all(0)
        changed = (pasted != image).any(0)
        dark.append(int(black.sum()))
        assert changed.sum() <= 0.16 * SIDE**2 + 25
    assert torch.equal(image, before)
    assert max(dark) == 25
    assert min(dark) < 25  # cut off at the border


def test_the_discriminator_keeps_the_statistics_of_the_first_epoch() -> None:
    method, kept = model(epochs=3, batch_size=5), []

    class Watched(Run):
        def epochs(self, count, state=None, ready=None):  # type: ignore[no-untyped-def]
            for epoch in range(count):
                yield epoch
                kept.append(method.discriminator.features[3].running_mean.clone())

    before = method.discriminator.judge.weight.clone()
    method.fit(tiny.TensorTrainSet(tiny.textures(12)), Watched())
    assert kept[0].abs().max() > 0
    assert torch.equal(kept[0], kept[2])
    passes = method.discriminator.state_dict()["features.3.num_batches_tracked"]
    assert passes == 2 * 5  # two whole batches, the images that are left take no part
    assert not torch.equal(before, method.discriminator.judge.weight)


def test_a_collapsed_discriminator_begins_anew() -> None:
    gone, kept = (model(collapsed=limit, epochs=1) for limit in (1e9, 0.0))
    for method in (gone, kept):
        method.fit(tiny.TensorTrainSet(tiny.textures(4)), Run())
    start = model().discriminator.judge.weight
    step = 3e-4  # of Adam
    assert (kept.discriminator.judge.weight - start).abs().max() < step
    assert (gone.discriminator.judge.weight - start).abs().max() > 10 * step


def test_training_rebuilds_better_and_a_defect_worse() -> None:
    method = model(base=6, epochs=12, optimizer=partial(torch.optim.Adam, lr=2e-3, betas=(0.5, 0.999)))
    with torch.no_grad():
        before = method.eval().predict(Inputs(tiny.textures(4, seed=9))).scores.mean()
    method.fit(tiny.TensorTrainSet(tiny.textures(12)), Run())
    held = tiny.textures(4, seed=9)
    broken, masks = tiny.planted(held)
    with torch.no_grad():
        good, bad = method.eval().predict(Inputs(held)), method.predict(Inputs(broken))
    assert good.scores.mean() < 0.5 * before
    assert (bad.scores > good.scores).all()
    assert bad.maps is not None
    assert bad.maps[masks].mean() > 2 * bad.maps[~masks].mean()


def test_images_of_any_size_are_brought_to_the_networks() -> None:
    method = model().eval()
    with torch.no_grad():
        prediction = method.predict(Inputs(tiny.textures(2, size=50)))
    assert prediction.maps is not None
    assert prediction.maps.shape == (2, SIDE, SIDE)
    with pytest.raises(UsageError, match="power of 2 from 32 on, halved down to one pixel; got 96"):
        model(size=96)

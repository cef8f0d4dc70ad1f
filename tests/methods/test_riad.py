"""RIAD against a training step and maps of a public implementation, and what the paper says of its cells."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.riad import RIAD, split
from tests import tiny
from tests.written_down import fill, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "riad.npz"
ADAM = partial(torch.optim.Adam, lr=1e-3)
STAYS = partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[250], gamma=0.1)


def model(base: int = 4, epochs: int = 2, window: int = 21) -> RIAD:
    torch.manual_seed(0)
    return RIAD(base, [2, 4, 8, 16], 3, 4, window, epochs, 4, ADAM, STAYS)


def test_agrees_with_a_public_implementation() -> None:
    reference = np.load(FIXTURE)
    hidden = torch.from_numpy(reference["hidden"])
    assert sum(one.numel() for one in model(64).parameters()) == reference["parameters"]
    method = model(8).double()
    fill(method.painter, 1000)
    loss = method.loss(pixels(2, 48, 1), hidden[0])
    np.testing.assert_allclose(loss.item(), reference["loss"], rtol=1e-6)
    loss.backward()
    gradients = [one.grad for one in method.parameters() if one.grad is not None]
    largest = np.abs(reference["norms"]).max()
    np.testing.assert_allclose(
        [float(one.norm()) for one in gradients], reference["norms"], rtol=1e-4, atol=1e-9 * largest
    )
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients]
    np.testing.assert_allclose(picked, reference["gradient"], rtol=1e-4, atol=1e-9 * largest)
    method.hidden.points = hidden[1:]
    with torch.no_grad():
        prediction = method.eval().predict(Inputs(pixels(2, 48, 2)))
    assert prediction.maps is not None
    np.testing.assert_allclose(4 * prediction.maps[:, ::3, ::2], reference["maps"], rtol=1e-6)
    np.testing.assert_allclose(4 * prediction.scores, reference["scores"], rtol=1e-6)


def test_no_pixel_is_painted_by_who_saw_it() -> None:
    """What is in a cell does not change what is painted there, and does change what is painted elsewhere."""
    method, draws = model().eval(), torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 64, 64, generator=draws)
    for cell in (4, 16):
        hidden = split((64, 64), cell, 3, draws)
        changed, place = (
            images.clone(),
            (slice(None), slice(None), slice(16, 16 + cell), slice(32, 32 + cell)),
        )
        changed[place] = 1 - changed[place]
        with torch.no_grad():
            before, after = method.painted(images, hidden), method.painted(changed, hidden)
        assert torch.equal(before[place], after[place])
        assert not torch.equal(before, after)


def test_every_cell_is_hidden_once() -> None:
    hidden = split((64, 48), 8, 3, torch.Generator().manual_seed(0))
    cells = hidden.view(8, 8, 6, 8).transpose(1, 2).flatten(2)
    assert (cells == cells[..., :1]).all()  # one set for a whole cell
    assert cells[..., 0].flatten().bincount().tolist() == [16, 16, 16]
    assert split((20, 20), 8, 4, torch.Generator()).flatten().unique().tolist() == [
        0,
        1,
        2,
        3,
    ]  # cut at the border
    again = split((64, 48), 8, 3, torch.Generator().manual_seed(1))
    assert not torch.equal(hidden, again)


def test_training_paints_better_and_a_defect_worse() -> None:
    normal = tiny.textures(12)
    method = model(6, epochs=10, window=5)
    hidden = split((64, 64), 8, 3, torch.Generator().manual_seed(3))

    def unlike(images: Tensor) -> float:
        with torch.no_grad():
            return float(method.eval().loss(images, hidden))

    before = unlike(normal)
    method.train()
    method.fit(tiny.TensorTrainSet(normal), Run())
    assert unlike(normal) < 0.7 * before
    held = tiny.textures(4, seed=9)
    broken, masks = tiny.planted(held)
    with torch.no_grad():
        good, bad = method.predict(Inputs(held)), method.predict(Inputs(broken))
    assert bad.scores.min() > good.scores.max()
    assert bad.maps is not None
    assert bad.maps[masks].mean() > 2 * bad.maps[~masks].mean()


def test_the_map_is_smoothed_and_the_score_its_highest_pixel() -> None:
    method = model(window=1)
    method.fit(tiny.TensorTrainSet(tiny.textures(4)), Run())
    sharp = method.eval().predict(Inputs(tiny.textures(2, seed=4)))
    method.window = 5
    smooth = method.predict(Inputs(tiny.textures(2, seed=4)))
    assert sharp.maps is not None
    assert smooth.maps is not None
    torch.testing.assert_close(smooth.maps[1, 20, 30], sharp.maps[1, 18:23, 28:33].mean())
    assert smooth.scores.tolist() == smooth.maps.amax((1, 2)).tolist()


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 16; got 40x40"):
        model().fit(tiny.TensorTrainSet(tiny.textures(2, size=40)), Run())
    with pytest.raises(UsageError, match="odd number of pixels; got 20"):
        model(window=20)
    with pytest.raises(UsageError, match="sets 2 to 255"):
        RIAD(4, [2], 1, 4, 21, 1, 4, ADAM, STAYS)

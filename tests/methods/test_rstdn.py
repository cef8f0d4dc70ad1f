"""RSTDN: made defects, the loss by hand, and a network that cleans what the pairs see."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.methods.rstdn import RSTDN
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.defects import TextureDefects
from ad_bench.parts.matching import multiplied
from ad_bench.parts.pairs import Pairs
from ad_bench.parts.perlin import PerlinMasks
from tests import tiny

SGD, ADAM = partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.Adam, lr=3e-3)


def model(learning: int = 1, epochs: int = 1, anomalous: float = 0.5, absolute: float = 1.0) -> RSTDN:
    """learning: epochs of the students; epochs: of the network that cleans."""
    torch.manual_seed(0)
    first, second = (Backbone("test_resnet.adbench", [1, 2, 3], "bundled") for _ in range(2))
    rebuilding = partial(torch.optim.Adam, lr=1e-3)
    pairs = Pairs(first, second, None, 0.2, learning, 4, SGD, rebuilding)
    defects = TextureDefects(None, 3, anomalous, PerlinMasks((0, 3), 90, 0.5), (0.2, 1.0))
    return RSTDN(pairs, 8, defects, absolute, epochs, 4, ADAM)


class Given(nn.Module):
    """Stands for the network: logits that are given."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, distances: Tensor) -> Tensor:
        assert distances.shape[1:] == (6, 16, 16)
        return self.logits


def test_the_loss_by_hand() -> None:
    """Two cells' probabilities; a cell is defective where any of its pixels is."""
    method = model(absolute=0.5)
    logits = torch.zeros(1, 2, 16, 16)
    logits[0, 1, 0, 0] = 2.0
    method.cleaner = Given(logits)  # type: ignore[assignment]
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 3, 1] = True  # a pixel of the first cell
    sure = torch.tensor(2.0).sigmoid()
    focal = -((1 - sure) ** 2) * sure.log() - 255 * 0.25 * torch.tensor(0.5).log()
    wanted = focal / 256 + 0.5 * ((1 - sure) + 255 * 0.5) / 256
    torch.testing.assert_close(method.loss(tiny.textures(1), masks), wanted)


def test_a_network_that_multiplies_gives_the_map_of_rstpm() -> None:
    """It sees all six distances, brought to the size of the finest."""

    class Multiplies(nn.Module):
        def forward(self, distances: Tensor) -> Tensor:
            product = distances.prod(1)
            return torch.stack([torch.zeros_like(product), product.log()], 1)

    method, images = model().eval(), tiny.textures(2)
    method.cleaner = Multiplies()  # type: ignore[assignment]
    with torch.no_grad():
        product = multiplied(method.pairs(images))
        torch.testing.assert_close(method.cleaned(images)[:, 1], product / (1 + product))


def test_the_map_is_the_probability_of_a_defect() -> None:
    method = model().eval()
    method.cleaner = Given(torch.stack([torch.zeros(2, 16, 16), torch.full((2, 16, 16), 1.5)], 1))  # type: ignore[assignment]
    with torch.no_grad():
        prediction = method.predict(Inputs(tiny.textures(2)))
    assert prediction.maps is not None
    torch.testing.assert_close(prediction.maps, torch.full((2, 64, 64), 1.5).sigmoid())
    torch.testing.assert_close(prediction.scores, torch.full((2,), 1.5).sigmoid())


def test_the_pairs_are_frozen_while_the_network_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    method, kept = model(epochs=2), {}
    learn = method.pairs.learn

    def learnt(*words: Any, **named: Any) -> None:
        learn(*words, **named)
        kept.update({key: value.clone() for key, value in method.state_dict().items()})

    monkeypatch.setattr(method.pairs, "learn", learnt)
    method.train().fit(tiny.TensorTrainSet(tiny.textures(5)), Run())
    moved = {key for key, value in method.state_dict().items() if not torch.equal(value, kept[key])}
    assert moved
    assert {key.partition(".")[0] for key in moved} == {"cleaner"}


def test_a_planted_defect_stands_out_under_trained_teachers() -> None:
    """The contract's own test has time for one epoch of the students only."""
    method = model(learning=10, epochs=25, anomalous=0.8)
    method.train().fit(tiny.TensorTrainSet(tiny.textures(12)), Run())
    clean = tiny.textures(6, seed=11)
    broken, masks = tiny.planted(clean, seed=12)
    with torch.no_grad():
        normal, anomalous = (method.eval().predict(Inputs(images)) for images in (clean, broken))
    assert anomalous.scores.mean() > 1.2 * normal.scores.mean()
    assert anomalous.maps is not None
    for found, mask in zip(anomalous.maps, masks, strict=True):
        assert found[mask].mean() > 1.5 * found[~mask].mean()

"""PFM against a training and a test by the authors' code, and mappings that fail and that succeed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.pfm import PFM
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "pfm.npz"
ADAM = partial(torch.optim.Adam, weight_decay=1e-5)
RATES = [3e-3, 3e-4, 3e-4]


def test_agrees_with_the_authors_code() -> None:
    """Losses of each level and step, the first gradient, maps and scores after three steps."""
    reference = np.load(FIXTURE)
    networks = [Backbone(f"{name}.tv_in1k", [1, 2, 3], "random") for name in ("resnet34", "resnet50")]
    method = PFM(*networks, [12, 20, 28], False, 3, 2, RATES, ADAM).double()
    for seed, network in enumerate((networks[0].network, networks[1].network, *method.mapped.mappings), 1):
        fill(network, 1000 * seed)
    for backbone in networks:
        normalise_in_float64(backbone)
    images, losses = pixels(2, 64, 1), []
    measured = method.mapped.losses

    def losses_of(images: Tensor) -> Tensor:
        losses.append(measured(images))
        return losses[-1]

    method.mapped.losses = losses_of  # type: ignore[method-assign]
    gradient: list[float] = []

    class Watched(Run):
        def loss(self, value: Tensor) -> Tensor:
            if not gradient:
                parameters = list(method.mapped.mappings.parameters())
                found = torch.autograd.grad(value, parameters, retain_graph=True)
                gradient.extend(float(one.flatten()[one.numel() // 3]) for one in found)
            return value

    method.train().fit(tiny.TensorTrainSet(images), Watched())
    np.testing.assert_allclose(torch.stack(losses).detach(), reference["losses"], rtol=1e-6)
    np.testing.assert_allclose(gradient, reference["gradient"], rtol=1e-6, atol=1e-12)
    with torch.no_grad():
        prediction = method.eval().predict(Inputs(pixels(2, 64, 3)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::5, ::3], reference["maps"], rtol=1e-6)
    np.testing.assert_allclose(prediction.scores, reference["scores"], rtol=1e-6)


def test_each_level_has_its_rate() -> None:
    network = Backbone("test_resnet.r160_in1k", [1, 2], "random")
    torch.manual_seed(0)
    method = PFM(network, network, [8, 8], False, 1, 12, [1e-3, 0.0], ADAM)
    before = [[one.clone() for one in mapping.parameters()] for mapping in method.mapped.mappings]
    method.train().fit(tiny.TensorTrainSet(tiny.textures(2)), Run())
    moved = [
        max((new - old).abs().max().item() for new, old in zip(mapping.parameters(), kept, strict=True))
        for mapping, kept in zip(method.mapped.mappings, before, strict=True)
    ]
    assert moved[0] == pytest.approx(1e-3, rel=0.01)  # Adam's first step is as long as its rate
    assert moved[1] == 0


def test_rates_are_one_for_each_level() -> None:
    network = Backbone("test_resnet.r160_in1k", [1, 2], "random")
    with pytest.raises(UsageError, match=r"rates are 2, one for each of latent=\[8, 8\]; got \[0.1\]"):
        PFM(network, network, [8, 8], False, 1, 1, [0.1], ADAM)

"""PEFM against a training and a test by the authors' code, and what the codes of the cells change."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ad_bench.contract import Batch, Inputs, Run
from ad_bench.methods.pfm import PFM
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "pefm.npz"
ADAM = partial(torch.optim.Adam, weight_decay=1e-5)


def test_agrees_with_the_authors_code() -> None:
    """Losses of each step, the first gradient, maps and scores after three steps."""
    reference = np.load(FIXTURE)
    networks = [Backbone(f"{name}.tv_in1k", [1, 2, 3], "random") for name in ("resnet34", "resnet50")]
    method = PFM(*networks, [12, 20, 28], True, 3, 2, [3e-4] * 3, ADAM).double()
    for seed, network in enumerate((networks[0].network, networks[1].network, *method.mapped.mappings), 1):
        fill(network, 1000 * seed)
    for backbone in networks:
        normalise_in_float64(backbone)
    images, losses = pixels(2, 128, 1), []
    parameters = list(method.mapped.mappings.parameters())
    found = torch.autograd.grad(method.train().loss(Batch(images)), parameters)
    gradient = [float(one.flatten()[one.numel() // 3]) for one in found]
    np.testing.assert_allclose(gradient, reference["gradient"], rtol=1e-6, atol=1e-12)
    for seed, mapping in enumerate(method.mapped.mappings, 3):
        fill(mapping, 1000 * seed)  # the running statistics of that pass

    class Watched(Run):
        def loss(self, value: Tensor) -> Tensor:
            losses.append(value.item())
            return value

    method.fit(tiny.TensorTrainSet(images), Watched())
    np.testing.assert_allclose(losses, reference["losses"].sum(1), rtol=1e-6)
    with torch.no_grad():
        prediction = method.eval().predict(Inputs(pixels(2, 128, 3)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::5, ::3], reference["maps"], rtol=1e-6)
    np.testing.assert_allclose(prediction.scores, reference["scores"], rtol=1e-6)


def test_a_cell_is_judged_by_where_it_lies() -> None:
    """What lies right of the middle in training is no more normal when it lies left of it."""
    generator = torch.Generator().manual_seed(0)
    halves = torch.cat([torch.full((3, 64, 32), 0.3), torch.full((3, 64, 32), 0.7)], 2)
    train = (halves + 0.02 * torch.randn(8, 3, 64, 64, generator=generator)).clamp(0, 1)
    more = {}
    for positions in (True, False):
        torch.manual_seed(0)
        network = Backbone("test_resnet.adbench", [1, 2, 3], "bundled")
        method = PFM(network, network, [24, 32, 48], positions, 30, 8, [3e-3] * 3, torch.optim.Adam)
        method.train().fit(tiny.TensorTrainSet(train), Run())
        with torch.no_grad():
            maps = method.eval().predict(Inputs(torch.cat([train, train.flip(3)]))).maps
        assert maps is not None
        more[positions] = float(maps[8:].mean() / maps[:8].mean()) - 1
    assert more[True] > 3 * more[False], more

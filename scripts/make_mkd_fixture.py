"""Writes tests/methods/fixtures/mkd.npz by training and testing the authors' code from given weights.

Needs a checkout of rohban-lab/Knowledge_Distillation_AD at 0c574ae, torchvision, opencv-python and
scikit-learn. Weights and images are those of tests/written_down.py, everything is float64:
python scripts/make_mkd_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.ndimage
import torch
import torchvision
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "mkd.npz"
CONFIG = {
    "lamda": 0.5,
    "direction_loss_only": False,
    "dataset_name": "mvtec",
    "normal_class": "screw",
    "equal_network_size": False,
    "use_bias": False,
}


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    filters = ModuleType("scipy.ndimage.filters")  # its name when the code was written
    filters.gaussian_filter = scipy.ndimage.gaussian_filter  # type: ignore[attr-defined]
    sys.modules["scipy.ndimage.filters"] = filters
    Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign, assignment]
    nn.Module.cuda = lambda module, *_, **__: module  # type: ignore[method-assign, assignment]
    made = torchvision.models.vgg16
    torchvision.models.vgg16 = lambda *_, **__: made(weights=None)  # without a download
    import test_functions as testing
    from loss_functions import MseDirectionLoss
    from models.network import get_networks

    from tests.written_down import fill, pixels

    config: dict[str, Any] = {**CONFIG, "pretrain": True, "experiment_name": "given"}
    vgg, cloner = (network.double() for network in get_networks(config))
    fill(vgg, 1000)
    fill(cloner, 2000)
    loss_of, steps = MseDirectionLoss(0.5), torch.optim.Adam(cloner.parameters(), lr=1e-3)
    losses, gradient = [], []
    cloner.train()
    for seed in (1, 2, 3):  # the steps of train.py, whose loop needs folders
        images = pixels(2, 128, seed)
        loss = loss_of(cloner.forward(images), vgg(images))
        losses.append(loss.item())
        steps.zero_grad()
        loss.backward()
        if not gradient:
            gradient = [float(one.grad.flatten()[one.numel() // 3]) for one in cloner.parameters()]
        steps.step()
    tests, kept = pixels(2, 128, 9), []

    def roc_curve(labels: Any, scores: np.ndarray, pos_label: int) -> tuple[Any, Any, Any]:
        kept.append(scores)
        return np.array([0, 1]), np.array([0, 1]), None

    testing.roc_curve = roc_curve
    batches = [(tests, torch.zeros(2))]
    testing.detection_test(cloner, vgg, batches, config)
    # `gradients` is rounded to float32 on the way, as are the maps of `gbp`
    plain = testing.gradients_localization(cloner, vgg, batches, config)
    testing.torch.device = lambda _: "cpu"
    saliency = testing.VanillaSaliency.generate_saliency

    def on_cpu(self: Any, *words: Any, **named: Any) -> Any:
        self.device = "cpu"
        return saliency(self, *words, **named)

    testing.VanillaSaliency.generate_saliency = on_cpu
    guided = testing.gbp_localization(cloner, vgg, batches, config)
    np.savez_compressed(
        OUT,
        made="by running rohban-lab/Knowledge_Distillation_AD at 0c574ae (scripts/make_mkd_fixture.py)",
        losses=np.array(losses),
        gradient=np.array(gradient),
        scores=kept[0],
        plain=plain[:, ::5, ::3],
        guided=guided[:, ::5, ::3],
    )
    print(losses, kept[0], plain.shape, guided.shape, np.abs(plain - guided).max())


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes pfm.npz and pefm.npz in tests/methods/fixtures by training and testing the authors' code.

Needs a checkout of smiler96/PFM-and-PEFM-for-Image-Anomaly-Detection-and-Segmentation at 89268b6 and
torchvision; what draws, logs and measures there is left out. Weights and images are those of
tests/written_down.py, everything is float64, the widths between the networks are small:
python scripts/make_pfm_fixture.py CHECKOUT
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures"
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LATENT = [12, 20, 28]
LEFT_OUT = ("cv2", "skimage", "loguru", "thop", "torch.utils.tensorboard", "matplotlib", "matplotlib.pyplot")
RATES = {"pfm": (3e-3, 3e-4, 3e-4), "pefm": (3e-4, 3e-4, 3e-4)}


class Loader:
    """What the authors' loops ask of a loader: batches of (images, labels, masks, names), and how many."""

    def __init__(self, images: Tensor) -> None:
        mean, std = (torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in (MEAN, STD))
        self.images = (images - mean) / std

    def __len__(self) -> int:
        return 1

    def __iter__(self):  # type: ignore[no-untyped-def]
        count = len(self.images)
        yield (
            self.images,
            torch.zeros(count),
            torch.zeros(count, 1, *self.images.shape[2:]),
            ["x.png"] * count,
        )


def loaded(path: Path) -> ModuleType:
    """A script whose name is no module's."""
    spec = importlib.util.spec_from_file_location("authors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(name: str, authors: Any, model: Any, size: int) -> None:
    from tests.written_down import fill, pixels

    for network in ("resnet34", "resnet50"):  # without a download
        made = getattr(authors, network)
        setattr(authors, network, lambda pretrained, made=made: made(weights=None))
    authors.visualize = lambda *_, **__: None
    model, found = model(), defaultdict(list)
    model.latent_dim = LATENT
    rates = dict(zip(("lr2", "lr3", "lr4"), RATES[name], strict=True))
    model.register(
        class_name="given",
        device="cpu",
        trainloader=Loader(pixels(2, size, 1)),
        testloader=Loader(pixels(2, size, 3)),
        size=size,
        seed=0,
        weight_decay=1e-5,
        **rates,
    )
    levels = [model.projector2, model.projector3, model.projector4]
    for seed, network in enumerate((model.Agent1, model.Agent2, *levels), start=1):
        fill(network.double(), 1000 * seed)

    def kept(scores: list[Any], maps: list[Any], *_: object, **__: object) -> tuple[float, float, float]:
        found["maps"], found["scores"] = [np.stack(maps)[:, 0]], [np.array(scores)]
        return 0.0, 0.0, 0.0

    def backward(loss: Tensor) -> None:
        found["losses"].append(loss.item())
        loss_of(loss)
        if len(found["losses"]) <= 3:  # the first step's: a value of every parameter of this level
            level = levels[len(found["losses"]) - 1]
            found["gradient"] += [float(one.grad.flatten()[one.numel() // 3]) for one in level.parameters()]

    tested, loss_of = model.test, Tensor.backward
    nothing: Any = defaultdict(lambda: [0.0, 0.0, 0.0])
    model.test = lambda *_, **__: nothing  # on the way, of PFM it ends with a KeyError
    Tensor.backward = backward  # type: ignore[method-assign, assignment]
    model.train(epochs=3)
    Tensor.backward = loss_of  # type: ignore[method-assign]
    model.cal_auc = kept
    tested(**({"cal_metrix": True} if name == "pefm" else {}))
    np.savez_compressed(
        OUT / f"{name}.npz",
        made="by running smiler96/PFM-and-PEFM-for-Image-Anomaly-Detection-and-Segmentation at 89268b6 "
        "(scripts/make_pfm_fixture.py)",
        losses=np.array(found["losses"]).reshape(-1, 3),
        gradient=np.array(found["gradient"]),
        maps=found["maps"][0][:, ::5, ::3],
        scores=found["scores"][0],
    )
    print(name, found["losses"], found["scores"], len(found["gradient"]))


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    for module in LEFT_OUT:
        sys.modules[module] = MagicMock()
    same = {"cuda": lambda tensor, *_, **__: tensor}
    for method, replacement in same.items():
        setattr(Tensor, method, replacement)
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        import os

        os.chdir(folder)
        code = loaded(Path(checkout) / "MB-PFM-ResNet.py")
        write("pfm", code, lambda: code.DFP_AD("resnet34", "resnet50"), 64)
        import utils

        utils.visualize_score_maps = None  # imported there, published nowhere
        position = loaded(Path(checkout) / "PEFM_AD.py")

        def made() -> Any:
            return position.PFMT_AD("resnet34", "resnet50", dual_type="small", save_root=folder)

        write("pefm", position, made, 128)


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))

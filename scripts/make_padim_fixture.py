"""Writes tests/methods/padim_reference.json by running the known implementation of PaDiM on given features.

Its whole main() runs; only the network and the data set are replaced, and its smoothed maps are kept. Needs a
checkout of xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master at 616004b, torchvision, matplotlib and
scikit-image:
MPLBACKEND=agg python scripts/make_padim_fixture.py CHECKOUT
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "padim_reference.json"
SHAPES = {"layer1": (64, 8, 8), "layer2": (128, 4, 4), "layer3": (256, 2, 2)}  # channels of a ResNet-18
SIDE = 32
TRAIN = [0.1 * value for value in range(12)]
TEST = [0.42, 0.87, 1.5, 3.0]


def features(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A level that anybody can write down: sines of the index, of a frequency that each image moves."""
    index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(shape)
    return torch.sin(index * 0.37 + values.double().view(-1, 1, 1, 1) * (1 + index % 7)).float()


class Levels(nn.Module):
    """A network that can be hooked; what it gives depends on the first pixel of an image."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        for name in SHAPES:
            setattr(self, name, nn.Sequential(nn.Identity()))

    def forward(self, images: Tensor) -> Tensor:
        for name, shape in SHAPES.items():
            last = getattr(self, name)(features(images[:, 0, 0, 0], shape))
        return last


class Images(torch.utils.data.Dataset[Any]):
    """Constant images; the last of the test set counts as anomalous."""

    def __init__(self, path: str, class_name: str, is_train: bool) -> None:
        self.values = TRAIN if is_train else TEST

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        value = self.values[index]  # an IndexError ends it
        label = int(value == TEST[-1])
        mask = torch.zeros(1, SIDE, SIDE)
        mask[:, :5] = label
        return torch.full((3, SIDE, SIDE), value), label, mask

    def __len__(self) -> int:
        return len(self.values)


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    import datasets.mvtec as mvtec
    import main as known

    kept: list[np.ndarray] = []
    mvtec.CLASS_NAMES = ["made"]
    mvtec.MVTecDataset = Images
    known.resnet18 = Levels
    known.plot_fig = lambda *_, **__: None
    smooth = known.gaussian_filter
    known.gaussian_filter = lambda *given, **named: kept.append(smooth(*given, **named)) or kept[-1]
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["main.py", "--arch", "resnet18", "--save_path", folder]
        known.main()
    made = "by running xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master at 616004b "
    made += "(scripts/make_padim_fixture.py)"
    OUT.write_text(
        json.dumps(
            {
                "made": made,
                "shapes": list(SHAPES.values()),
                "side": SIDE,
                "train": TRAIN,
                "test": TEST,
                "scores": [float(one.max()) for one in kept],
                "maps": [one[::3, ::5].tolist() for one in kept],
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/fixtures/gcpf.npz by running the authors' GCPF.py on given features.

Its whole main() runs; only the layers of the network, the data set, the first centres and what draws pictures
are replaced, and its smoothed maps are kept. Needs a checkout of smiler96/GCPF at 67e2345, torchvision,
matplotlib and tqdm:
MPLBACKEND=agg PYTHONPATH=. python scripts/make_gcpf_fixture.py CHECKOUT
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn

from tests.written_down import features

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "gcpf.npz"
SHAPES = [(6, 8, 8), (8, 4, 4), (12, 2, 2)]
TRAIN, TEST, SIDE, CLUSTERS, SEED = 12, 4, 32, 3, 6


def levels() -> list[Tensor]:
    """Features of all images in three groups: each cell has its own third of the channels stretched."""
    found = []
    for level in features(SHAPES, TRAIN + TEST, SEED):
        _, channels, rows, columns = level.shape
        cell = torch.arange(rows)[:, None] + 2 * torch.arange(columns)
        found.append(level * (1 + 3 * ((torch.arange(channels)[:, None, None] + cell) % 3 == 0)))
    return found


class Numbered(nn.Module):
    """A network that can be hooked: its layers give the features of the images' numbers."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(nn.Identity()) for _ in SHAPES)
        self.levels = [level.float() for level in levels()]

    def forward(self, images: Tensor) -> None:
        layers = (self.layer1, self.layer2, self.layer3)
        for layer, level in zip(layers, self.levels, strict=True):
            layer(level[images[:, 0, 0, 0].long()])


class Images(torch.utils.data.Dataset[Any]):
    """Images that hold their number; the last of the test set counts as anomalous."""

    def __init__(self, is_train: bool, **_: object) -> None:
        self.numbers = range(TRAIN) if is_train else range(TRAIN, TRAIN + TEST)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        label = int(index == TEST - 1)
        mask = torch.zeros(1, SIDE, SIDE)
        mask[:, :5] = label
        return torch.full((3, SIDE, SIDE), float(self.numbers[index])), label, mask


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout).resolve()))
    for name in ("loguru", "utils", "pro_metric"):
        sys.modules[name] = MagicMock()
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    torch.randperm = lambda count: torch.tensor([count // 7, count // 3, count // 2])  # type: ignore[assignment]
    import GCPF

    kept: list[np.ndarray] = []
    smooth = GCPF.gaussian_filter
    GCPF.gaussian_filter = lambda *given, **named: kept.append(smooth(*given, **named)) or kept[-1]
    GCPF.MVTec_CLASS_NAMES = ["made"]
    GCPF.MVTecDataset = Images
    GCPF.wide_resnet50_2 = Numbered
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        os.chdir(folder)
        sys.argv = ["GCPF.py", "--k", str(CLUSTERS), "--crop_size", str(SIDE), "--save_path", folder]
        GCPF.main()
    maps = np.stack(kept)
    np.savez_compressed(
        OUT,
        shapes=np.array(SHAPES),
        images=np.array([TRAIN, TEST, SIDE, SEED]),
        clusters=np.array(CLUSTERS),
        scores=maps.max((1, 2)),
        maps=maps[:, ::3, ::5],
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes; scores {maps.max((1, 2))}")


if __name__ == "__main__":
    main(sys.argv[1])

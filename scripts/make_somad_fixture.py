"""Writes tests/methods/fixtures/somad.npz by running the authors' SOMAD on given features.

Its process_class() runs: features, training of the map, the nodes' Gaussians, distances, smoothing. Changed
are the sizes that stand in the code as numbers (56 x 56 nodes, 550 of 1792 channels) and a name that numpy 2
has no more; replaced the layers of the network, the data set and what only draws or evaluates. Its smoothed
maps are kept. Needs a checkout of ddzxlining/SOMAD at 530254e, torchvision, tqdm and joblib:
PYTHONPATH=. python scripts/make_somad_fixture.py CHECKOUT
"""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn

from tests.written_down import features

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "somad.npz"
SHAPES = [(8, 6, 6), (12, 3, 3), (16, 2, 2)]
TRAIN, TEST, SIDE, DIMENSIONS, SEED = 40, 3, 24, 10, 7
SIZES = {"1792": str(sum(shape[0] for shape in SHAPES)), "550": str(DIMENSIONS), "3136": "36", "56": "6"}


def levels() -> list[Tensor]:
    """Features of all images, in which a cell's place shows."""
    found = []
    for level in features(SHAPES, TRAIN + TEST, SEED):
        _, channels, rows, columns = level.shape
        place = torch.arange(rows)[:, None] / rows + 2 * torch.arange(columns) / columns
        found.append((level + 2 * torch.sin(place * (1 + torch.arange(channels)[:, None, None]))).float())
    return found


class Numbered(nn.Module):
    """A network that can be hooked: its layers give the features of the images' numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(nn.Identity()) for _ in SHAPES)
        self.levels = levels()

    def forward(self, images: Tensor) -> None:
        layers = (self.layer1, self.layer2, self.layer3)
        for layer, level in zip(layers, self.levels, strict=True):
            layer(level[images[:, 0, 0, 0].long()])


class Images(torch.utils.data.Dataset[Any]):
    """Images that hold their number."""

    def __init__(self, path: str, class_name: str, is_train: bool) -> None:
        self.numbers = range(TRAIN) if is_train else range(TRAIN, TRAIN + TEST)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        return torch.full((3, SIDE, SIDE), float(self.numbers[index])), 0, torch.zeros(1, SIDE, SIDE)


def resized(checkout: Path, folder: Path) -> None:
    """A copy of the code for smaller grids."""
    for file in ("somad.py", "kmeans.py", "model.py", *(f"sompy/{n}.py" for n in ("sompy", "codebook"))):
        text = (checkout / file).read_text().replace("np.Inf", "np.inf")
        for number, other in SIZES.items():
            text = re.sub(rf"(?<![\w.]){number}(?![\w.])", other, text)
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    for file in ("neighborhood", "normalization", "decorators"):
        (folder / f"sompy/{file}.py").write_text((checkout / f"sompy/{file}.py").read_text())
    (folder / "sompy/__init__.py").write_text("from .sompy import SOMFactory\n")
    (folder / "utils").mkdir()
    (folder / "utils/decorators.py").write_text((checkout / "utils/decorators.py").read_text())


def main(checkout: str) -> None:
    for name in ("datasets", "datasets.mvtec", "datasets.dagm", "evaluate", "evaluate.evaluation"):
        sys.modules[name] = MagicMock()
    sys.modules["torchvision.models.utils"] = MagicMock()
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    nn.Module.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    kept: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        resized(Path(checkout).resolve(), folder)
        sys.path.insert(0, home)
        os.chdir(home)
        sys.argv = ["somad.py"]
        import somad

        smooth = somad.gaussian_filter
        somad.gaussian_filter = lambda *given, **named: kept.append(smooth(*given, **named)) or kept[-1]
        random.seed(1024)
        somad.wide_resnet50_2 = lambda **_: Numbered()
        method = somad.SOM_AD(somad.parse_args())
        method.dataset = MagicMock(MVTecDataset=Images)
        method._evalute = lambda *_: None
        post = method._post_processing
        method._post_processing = lambda distances: post(distances, result_size=SIDE)
        method.process_class("made")
        import joblib

        (clusters,) = folder.rglob("clusters/cpu/*.pkl")
        found = joblib.load(clusters)
    owned = np.bincount(found["labels"][0].astype(int), minlength=36)
    assert (owned != 1).all(), f"the Gaussian of one feature is not defined there: {owned}"
    maps = np.stack(kept)
    assert np.isfinite(maps).all()
    np.savez_compressed(
        OUT,
        shapes=np.array(SHAPES),
        images=np.array([TRAIN, TEST, SIDE, SEED]),
        channels=method.selected_indexes.numpy(),
        nodes=np.asarray(found["centers"]),
        owned=owned,
        scores=maps.max((1, 2)),
        maps=maps[:, ::2, ::3],
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes; nodes own {owned}; scores {maps.max((1, 2))}")


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/fixtures/semi_orthogonal.npz by running the authors' train.py on given features.

Its whole main() runs, in double precision; only the layers of the network and the data set are replaced, and
its maps and the directions that it drew are kept. Needs a checkout of jnhwkim/orthoad at c7eff17,
torchvision, matplotlib, tqdm and OpenCV:
MPLBACKEND=agg PYTHONPATH=. python scripts/make_semi_orthogonal_fixture.py CHECKOUT
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.written_down import features

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "semi_orthogonal.npz"
SHAPES = [(16, 8, 8), (32, 4, 4), (64, 2, 2)]
TRAIN, TEST, SIDE, DIMENSIONS, SEED = 12, 4, 32, 20, 5


class Numbered(nn.Module):
    """Layers that give the written features of the images' numbers, whatever the layer before gave."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.bn1, self.relu, self.maxpool = nn.Identity(), nn.Identity(), nn.Identity()
        levels = features(SHAPES, TRAIN + TEST, SEED)
        numbers: list[Tensor] = []

        class Remembered(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                numbers[:] = [images[:, 0, 0, 0].long()]
                return images

        class Level(nn.Module):
            def __init__(self, level: Tensor) -> None:
                super().__init__()
                self.level = level

            def forward(self, _: Tensor) -> Tensor:
                return self.level[numbers[0]]

        self.conv1 = Remembered()
        self.layer1, self.layer2, self.layer3 = (Level(level) for level in levels)
        self.layer4 = nn.Identity()


class Images(torch.utils.data.Dataset[Any]):
    """Images that hold their number."""

    labels, category = ("good", "bad"), "made"

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, int]:
        return torch.full((3, SIDE, SIDE), float(self.numbers[index])), 0, torch.zeros(SIDE, SIDE), 0


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout).resolve()))
    os.environ["DATA"] = "none"
    torch.set_default_dtype(torch.float64)
    import train

    kept: list[Tensor] = []
    draw = train.MahEvaluator.get_embedding
    train.MahEvaluator.get_embedding = staticmethod(lambda *given: kept.append(draw(*given)) or kept[-1])
    train.vision.models.resnet18 = Numbered
    parts = range(TRAIN), range(0), range(TRAIN, TRAIN + TEST)
    loaders = [torch.utils.data.DataLoader(Images(part), batch_size=5) for part in parts]
    train.checkout_dataloader = lambda *_: loaders
    train.evaluate = lambda *_, **__: [0.0]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        given = ["--model", "resnet18", "--k", str(DIMENSIONS), "--experiment", folder]
        sys.argv = ["train.py", *given]
        train.main()
        maps = torch.load(Path(folder) / "made.pth", weights_only=False)[1].numpy()
    np.savez_compressed(
        OUT,
        shapes=np.array(SHAPES),
        images=np.array([TRAIN, TEST, SIDE, SEED]),
        projection=kept[0].numpy(),
        scores=maps.max((1, 2)),
        maps=maps[:, ::3, ::5],
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes; scores {maps.max((1, 2))}")


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/spade_reference.json by running the known implementation of SPADE on given features.

Its whole main() runs; only the network and the data set are replaced, and what it hands to roc_auc_score is
kept. Needs a checkout of byungjae89/SPADE-pytorch at 077c67b, matplotlib, tqdm and scikit-learn:
MPLBACKEND=agg python scripts/make_spade_fixture.py CHECKOUT
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "spade_reference.json"
# With 4 images retrieved every gallery is a multiple of 100 pixels, so that main() omits none.
SHAPES = {"layer1": (8, 20, 20), "layer2": (12, 10, 10), "layer3": (16, 5, 5), "layer4": (6, 3, 3)}
NEIGHBORS = 4
TRAIN = [float(value) for value in range(10)]
TEST = [0.4, 2.3, 5.5, 7.1, 9.6, 14.0]  # vis_num of them are drawn: 5 at least


def features(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A level that anybody can write down: sines of the index, moved by each image's value."""
    index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(shape)
    return torch.sin(index * 0.37 + values.double().view(-1, 1, 1, 1) * 0.05 * (1 + index % 3)).float()


class Levels(nn.Module):
    """A network that can be hooked; what it gives depends on the first pixel of an image."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        for name in SHAPES:
            setattr(self, name, nn.Sequential(nn.Identity()))
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        out = images
        for name, shape in SHAPES.items():
            out = getattr(self, name)(features(images[:, 0, 0, 0], shape))
        return self.avgpool(out)


class Images(torch.utils.data.Dataset[Any]):
    """Constant images; the last of the test set counts as anomalous."""

    def __init__(self, class_name: str, is_train: bool) -> None:
        self.values = TRAIN if is_train else TEST

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        value = self.values[index]  # an IndexError ends it
        label = int(value == TEST[-1])
        mask = torch.zeros(1, 224, 224)
        mask[:, :50] = label
        return torch.full((3, 224, 224), value), label, mask

    def __len__(self) -> int:
        return len(self.values)


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout) / "src"))
    import datasets.mvtec as mvtec
    import main as known

    # Written for torch 1.5, whose pairwise_distance measured along the channels; today's takes the last axis.
    torch.pairwise_distance = lambda x, y: torch.linalg.vector_norm(x - y + 1e-6, dim=1)
    kept: list[Any] = []
    mvtec.CLASS_NAMES = ["made"]
    mvtec.MVTecDataset = Images
    known.wide_resnet50_2 = Levels
    known.visualize_loc_result = lambda *_, **__: None
    judge = known.roc_auc_score
    known.roc_auc_score = lambda truth, scores: kept.append(scores) or judge(truth, scores)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["main.py", "--top_k", str(NEIGHBORS), "--save_path", folder]
        known.main()
    scores, maps = kept
    maps = maps.reshape(len(TEST), 224, 224)[:, ::13, ::17]
    made = "by running byungjae89/SPADE-pytorch at 077c67b, with pairwise_distance as in torch 1.5 "
    made += "(scripts/make_spade_fixture.py)"
    OUT.write_text(
        json.dumps(
            {
                "made": made,
                "shapes": list(SHAPES.values()),
                "neighbors": NEIGHBORS,
                "train": TRAIN,
                "test": TEST,
                "scores": [float(score) for score in scores],
                "maps": maps.tolist(),
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/patchcore_reference.json by running the authors' code on given features.

Needs a checkout of amazon-science/patchcore-inspection at fcaa92f, faiss-cpu and tqdm:
python scripts/make_patchcore_fixture.py CHECKOUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "patchcore_reference.json"
SHAPES = {"layer2": (6, 8, 6), "layer3": (10, 4, 3)}
CASES = [
    {"patch_size": 3, "pretrain_dim": 40, "target_dim": 40, "neighbors": 1},
    {"patch_size": 5, "pretrain_dim": 64, "target_dim": 24, "neighbors": 3},
]


def features(count: int, shift: float) -> dict[str, Tensor]:
    """Levels that anybody can write down: sines of the index, a little different in every image."""
    levels = {}
    for name, shape in SHAPES.items():
        index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(shape)
        images = [
            torch.sin(index * 0.37 + (image + shift) * 0.05 * (1 + index % 3)) for image in range(count)
        ]
        levels[name] = torch.stack(images).float()
    return levels


class Levels(nn.Module):
    """A backbone that the reference can hook, giving what `now` says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2, self.layer3 = nn.Identity(), nn.Identity()
        self.now: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        self.layer2(self.now["layer2"][: len(images)])
        return self.layer3(self.now["layer3"][: len(images)])


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout) / "src"))
    from patchcore.common import FaissNN
    from patchcore.patchcore import PatchCore
    from patchcore.sampler import IdentitySampler

    cases = []
    for case in CASES:
        backbone = Levels()
        backbone.now = features(3, 0.0)
        model = PatchCore(torch.device("cpu"))
        model.load(
            backbone=backbone,
            layers_to_extract_from=["layer2", "layer3"],
            device=torch.device("cpu"),
            input_shape=(3, 64, 48),
            pretrain_embed_dimension=case["pretrain_dim"],
            target_embed_dimension=case["target_dim"],
            patchsize=case["patch_size"],
            anomaly_score_num_nn=case["neighbors"],
            featuresampler=IdentitySampler(),
            nn_method=FaissNN(False, 1),
        )
        model.fit([torch.zeros(3, 3, 64, 48)])
        backbone.now = features(2, 0.4)
        rows = model._embed(torch.zeros(2, 3, 64, 48))
        scores, maps = model.predict(torch.zeros(2, 3, 64, 48))
        cases.append(
            {
                **case,
                "embedding": [[float(value) for value in row] for row in rows[::17]],
                "scores": [float(score) for score in scores],
                "maps": [anomaly_map[::9, ::7].tolist() for anomaly_map in maps],
            }
        )
    made = "by running amazon-science/patchcore-inspection at fcaa92f (scripts/make_patchcore_fixture.py)"
    OUT.write_text(json.dumps({"made": made, "cases": cases}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

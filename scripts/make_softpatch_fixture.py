"""Writes tests/methods/softpatch_reference.json by running the authors' code on given features.

Needs a checkout of TencentYoutuResearch/AnomalyDetection-SoftPatch at f8dc3e0, faiss-cpu, timm, tqdm and
scikit-learn: python scripts/make_softpatch_fixture.py CHECKOUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "softpatch_reference.json"
SHAPES = {"layer2": (6, 8, 6), "layer3": (10, 4, 3)}
# Two groups of images and one between them, which stands apart without being the farthest from all.
TRAIN = [0.0, 0.11, 0.2, 0.34, 0.4, 0.57, 1.6, 2.8, 2.93, 3.0, 3.12, 3.3, 3.37]
TEST = [0.27, 1.55, 4.1]
CASES = [
    {"patch_size": 3, "pretrain_dim": 40, "target_dim": 24, "outlier_neighbors": 3, "discarded": 0.15},
    {"patch_size": 1, "pretrain_dim": 16, "target_dim": 20, "outlier_neighbors": 6, "discarded": 0.1},
]


def features(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A level that anybody can write down: sines of the index, moved by each image's value."""
    index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(shape)
    return torch.sin(index * 0.37 + values.double().view(-1, 1, 1, 1) * 0.2 * (1 + index % 3)).float()


class Levels(nn.Module):
    """A network that can be hooked; what it gives depends on the first pixel of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2, self.layer3 = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        self.layer2(features(images[:, 0, 0, 0], SHAPES["layer2"]))
        return self.layer3(features(images[:, 0, 0, 0], SHAPES["layer3"]))


def constant(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 64, 48)


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout) / "src"))
    from common import FaissNN
    from sampler import ApproximateGreedyCoresetSampler
    from softpatch import SoftPatch

    cases = []
    for case in CASES:
        model = SoftPatch(torch.device("cpu"))
        # So large a share that all patches left are taken, whatever the random starting points.
        share = 1 - case["discarded"] + 0.03
        model.load(
            backbone=Levels(),
            layers_to_extract_from=["layer2", "layer3"],
            device=torch.device("cpu"),
            input_shape=(3, 64, 48),
            pretrain_embed_dimension=case["pretrain_dim"],
            target_embed_dimension=case["target_dim"],
            patchsize=case["patch_size"],
            featuresampler=ApproximateGreedyCoresetSampler(share, torch.device("cpu")),
            nn_method=FaissNN(False, 1),
            lof_k=case["outlier_neighbors"],
            threshold=case["discarded"],
        )
        model.featuresampler.dimension_to_project_features_to = case["target_dim"]  # no random projection
        model.fit([constant(TRAIN[:8]), constant(TRAIN[8:])])
        threshold = torch.quantile(model.patch_weight, 1 - case["discarded"]).item()
        highest = float(model.coreset_weight.max())
        if highest > threshold:
            raise SystemExit("the first patch chosen was one of the discarded: run again, or change TRAIN")
        scores, maps = model.predict(constant(TEST))
        cases.append(
            {
                **case,
                "threshold": threshold,
                "discarded_patches": int((model.patch_weight > threshold).sum()),
                "factors": model.patch_weight[::5].tolist(),
                "scores": [float(score) for score in scores],
                "maps": [anomaly_map[::7, ::6].tolist() for anomaly_map in maps],
            }
        )
    made = "by running TencentYoutuResearch/AnomalyDetection-SoftPatch at f8dc3e0 "
    made += "(scripts/make_softpatch_fixture.py)"
    content = {"made": made, "shapes": list(SHAPES.values()), "train": TRAIN, "test": TEST, "cases": cases}
    OUT.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

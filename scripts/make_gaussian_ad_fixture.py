"""Writes tests/methods/fixtures/gaussian_ad.npz by running the authors' code on given weights and images.

Needs a checkout of ORippler/gaussian-ad-mvtec at bc10bd7 and efficientnet_pytorch 0.6.3. Its model.py is run
as it is; what it imports for training, drawing and augmenting, and does not use here, are empty modules.
Weights and images are of tests/written_down.py, all in float64:
python scripts/make_gaussian_ad_fixture.py CHECKOUT
"""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "gaussian_ad.npz"
UNUSED = ["albumentations", "albumentations.pytorch", "albumentations.pytorch.transforms", "cv2"]
UNUSED += ["matplotlib", "matplotlib.pyplot", "matplotlib.axes", "matplotlib.figure", "matplotlib.offsetbox"]
UNUSED += ["skimage", "skimage.measure", "pytorch_lightning", "pytorch_lightning.logging"]
CASES = {"all": (range(9), None), "main": (range(3), "pca"), "rest": (range(3), "npca")}


def main(checkout: str) -> None:
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    sys.modules["pytorch_lightning"].LightningModule = torch.nn.Module  # type: ignore[attr-defined]
    collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]
    sys.path[:0] = [checkout, str(ROOT)]
    from src.gaussian import model as reference
    from src.gaussian.transparent import build_transparent

    from tests.written_down import fill, pixels

    torch.set_default_dtype(torch.float64)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found: dict[str, Any] = {"made": "by running ORippler/gaussian-ad-mvtec at bc10bd7"}
    for case, (levels, flag) in CASES.items():
        network, _ = build_transparent("efficientnet-b0", extract_blocks=list(levels), freeze=True)
        fill(network, 1000)
        distance = reference.Mahalanobis.__new__(reference.Mahalanobis)
        torch.nn.Module.__init__(distance)
        distance._device = torch.device("cpu")
        distance.hparams = SimpleNamespace(
            pca=flag == "pca",
            npca=flag == "npca",
            variance_threshold=0.9,
            ocsvm=False,
            sed=False,
            batch_size=8,
        )
        distance.model, distance.normalization_epochs = network, 1
        train = [{"image": (image - mean) / std} for image in pixels(40, 64, 1)]
        distance.datasplit = SimpleNamespace(train=lambda train=train: train)
        with torch.no_grad():
            distance.compute_train_statistics()
            features = network((pixels(4, 64, 2) - mean) / std)
            if flag:
                features = distance.pca_reduction(features)
            scores = [
                distance.mahalanobis_distance(level.mean(dim=(-2, -1)), *statistics)
                for level, *statistics in zip(
                    features, distance.mvg_mean, distance.mvg_inv_covariance, strict=True
                )
            ]
        found[f"{case}/levels"] = torch.stack(scores).numpy()
        found[f"{case}/scores"] = torch.stack(scores).mean(0).numpy()
        found[f"{case}/kept"] = np.array([len(one) for one in distance.mvg_mean])
        print(case, found[f"{case}/kept"], found[f"{case}/scores"])
    np.savez_compressed(OUT, **found)


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/fixtures/mspb.npz by running the authors' code on given weights, patches and images.

Needs a checkout of Howeng98/MSPBA at 55a3356, torchvision and scikit-learn; what reads and measures images
there is left out. Weights and images are those of tests/written_down.py, everything is float64 but the
vectors of the nearest patches, float32 as there: python scripts/make_mspb_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "mspb.npz"
SIZES, STRIDES, STEPS, SIDE = (16, 32, 64), (16, 16, 32), 2, 64


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    for module in ("cv2", "imageio"):
        sys.modules[module] = MagicMock()
    Tensor.cuda = lambda tensor: tensor  # type: ignore[method-assign, assignment]
    from codes import datasets, inspection, networks, utils

    from tests.written_down import fill, pixels

    network = networks.Vgg16(False)
    encoders = [
        maker(network, 64, 64).double()
        for maker in (networks.Encoder16, networks.Encoder32, networks.Encoder64)
    ]
    classifiers = [networks.PositionClassifier(size, 64).double() for size in SIZES]
    fill(network.layers, 1000)
    for number, (encoder, classifier) in enumerate(zip(encoders, classifiers, strict=True)):
        del encoder.pretrained_net  # a head alone
        fill(encoder, 2000 + 100 * number)
        encoder.pretrained_net = network
        fill(classifier, 3000 + 100 * number)
    # Two steps, as in main_train.py with its first epochs' loss.
    modules = [*encoders, *classifiers]
    params = reduce(lambda x, y: x + y, [list(module.parameters()) for module in modules])
    optimizer = torch.optim.Adam(params=params, lr=1e-4)
    losses: list[list[float]] = []
    labels = torch.tensor([3, 7])
    for step in range(STEPS):
        optimizer.zero_grad()
        parts: list[Any] = []
        for number, size in enumerate(SIZES):
            patches = [pixels(2, size, 10 * step + 100 * number + one) - 0.5 for one in range(5)]
            encoder, classifier = encoders[number], classifiers[number]
            parts.append(networks.PositionClassifier.infer(classifier, encoder, (*patches[:2], labels)))
            parts.append(datasets.SVDD_Dataset.infer(encoder, patches[2:]))
        losses.append([float(one) for one in parts])
        (sum(parts[::2]) + 1e-3 * sum(parts[1::2])).backward()
        optimizer.step()
    # Maps, as in inspection.py: the other search would be approximate.
    maps: Any = 0
    for encoder, size, stride in zip(encoders, SIZES, STRIDES, strict=True):
        train, test = (
            inspection.infer(
                pixels(count, SIDE, seed).permute(0, 2, 3, 1).numpy() - 0.5, encoder, size, stride
            )
            for count, seed in ((3, 7), (2, 8))
        )
        scores = inspection.measure_emb_NN(test, train)
        maps = maps + utils.distribute_scores(scores, (SIDE, SIDE), size, stride)
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT,
        losses=np.array(losses),
        maps=maps[:, ::5, ::3],
        scores=maps.max((1, 2)),
        parameters=sum(one.numel() for one in set(params)),
        made="by running Howeng98/MSPBA at 55a3356 (scripts/make_mspb_fixture.py)",
    )
    print("losses", losses, "scores", maps.max((1, 2)).tolist())


if __name__ == "__main__":
    main(sys.argv[1])

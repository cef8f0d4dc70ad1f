"""Writes tests/methods/fixtures/devnet.npz by running the authors' code on weights that a seed gives.

Needs a checkout of Choubo/deviation-network-image at 7a13ee6, torchvision, OpenCV and tqdm:
python scripts/make_devnet_fixture.py CHECKOUT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from seeded import drawn, fill

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "devnet.npz"
SIZE = 160
LABELS = (0, 1, 0, 1)
SAMPLED = 97  # every so many-th value of a gradient or a map is kept


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    plain: Any = torchvision.models.resnet18
    torchvision.models.resnet18 = lambda pretrained=False: plain(weights=None)
    torch.Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]
    import scipy.ndimage

    sys.modules.setdefault("scipy.ndimage.filters", scipy.ndimage)
    from localization import convert_to_grayscale, gaussian_filter
    from modeling.layers.deviation_loss import DeviationLoss
    from modeling.net import SemiADNet

    settings = argparse.Namespace(backbone="resnet18", n_scales=2, img_size=SIZE, topk=0.1)
    network = SemiADNet(settings)
    fill(network.state_dict())
    images, prior = drawn("images", (len(LABELS), 3, SIZE, SIZE)), drawn("prior", (5000,))
    torch.normal = lambda **_: prior  # type: ignore[assignment]
    kept: dict[str, np.ndarray] = {
        "size": np.array(SIZE),
        "labels": np.array(LABELS),
        "sampled": np.array(SAMPLED),
    }

    network.eval()
    maps, scores = [], []
    for image in images:
        given = image[None].clone().requires_grad_()
        score = network(given)
        network.zero_grad()
        score.backward()
        assert given.grad is not None
        maps.append(gaussian_filter(convert_to_grayscale(given.grad.numpy()[0])[0], sigma=4))
        scores.append(score.item())
    kept["scores"], kept["maps"] = np.array(scores), np.stack(maps).reshape(len(maps), -1)[:, ::SAMPLED]

    network.train()
    network.zero_grad()
    targets = torch.tensor(LABELS, dtype=torch.float64)
    loss = DeviationLoss()(network(images), targets.unsqueeze(1).float())
    loss.backward()
    kept["loss"] = np.array(loss.item())
    for name in (
        "conv.weight",
        "feature_extractor.net.layer4.1.conv2.weight",
        "feature_extractor.net.conv1.weight",
    ):
        gradient = dict(network.named_parameters())[name].grad
        assert gradient is not None
        kept[f"gradient {name}"] = gradient.flatten()[::SAMPLED].numpy()
    np.savez_compressed(OUT, **kept)
    print(f"{OUT}: {OUT.stat().st_size} bytes; loss {loss.item():.4f}, scores {scores}")


if __name__ == "__main__":
    main(sys.argv[1])

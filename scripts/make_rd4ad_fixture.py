"""Writes tests/methods/fixtures/rd4ad.npz by running the authors' code on given weights and features.

Needs a checkout of hq-deng/RD4AD at 6554076, torchvision, opencv-python, scikit-learn, scikit-image,
matplotlib and pandas. Weights, images and features are those of tests/written_down.py, everything is float64:
python scripts/make_rd4ad_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "rd4ad.npz"
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHAPES = [(256, 16, 16), (512, 8, 8), (1024, 4, 4)]  # of the wide network, for images of 64 x 64


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    import de_resnet
    import main as authors
    import resnet
    import test as testing

    from tests.written_down import features, fill, pixels

    def run(name: str, inputs: list[Tensor], embedding: nn.Module, decoder: nn.Module) -> dict[str, object]:
        embedding, decoder = embedding.double(), decoder.double()
        fill(embedding, 2000)
        fill(decoder, 3000)
        embedding.train()
        decoder.train()
        loss = authors.loss_fucntion(inputs, decoder(embedding(inputs)))
        loss.backward()
        used = [one.grad for one in (*embedding.parameters(), *decoder.parameters()) if one.grad is not None]
        embedding.eval()
        decoder.eval()
        with torch.no_grad():
            outputs = decoder(embedding(inputs))
        maps = []
        for image in range(len(inputs[0])):
            one, other = ([level[image : image + 1] for level in levels] for levels in (inputs, outputs))
            maps.append(gaussian_filter(testing.cal_anomaly_map(one, other, 64, amap_mode="a")[0], sigma=4))
        return {
            f"{name}_loss": loss.item(),
            f"{name}_gradient": np.array([float(one.flatten()[one.numel() // 3]) for one in used]),
            f"{name}_norms": np.array([float(one.norm()) for one in used]),
            f"{name}_maps": np.stack(maps)[:, ::5, ::3],
            f"{name}_scores": np.array([one.max() for one in maps]),
        }

    mean, std = (torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in (MEAN, STD))
    encoder, embedding = resnet.resnet18()
    encoder = encoder.double().eval()
    fill(encoder, 1000)
    with torch.no_grad():
        levels = encoder((pixels(2, 64, 1) - mean) / std)
    found = run("basic", levels, embedding, de_resnet.de_resnet18())
    # The wide network's own blocks, fewer of them; its features are given.
    wide = {"width_per_group": 128}
    embedding = resnet.BN_layer(resnet.AttnBottleneck, 1, **wide)
    decoder = de_resnet.ResNet(de_resnet.Bottleneck, [1, 1, 1, 1], **wide)
    found |= run("wide", features(SHAPES, 2, 1), embedding, decoder)
    _, embedding = resnet.wide_resnet50_2()
    unused = sum(one.numel() for layer in (embedding.conv4, embedding.bn4) for one in layer.parameters())
    nets = (embedding, de_resnet.de_wide_resnet50_2())
    found["parameters"] = sum(one.numel() for net in nets for one in net.parameters()) - unused
    found["made"] = "by running hq-deng/RD4AD at 6554076 (scripts/make_rd4ad_fixture.py)"
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **found)  # type: ignore[arg-type]
    print({name: value for name, value in found.items() if np.size(value) < 3})


if __name__ == "__main__":
    main(sys.argv[1])

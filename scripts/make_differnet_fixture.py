"""Writes tests/methods/fixtures/differnet.npz by running the authors' code on given weights and images.

Needs a checkout of marco-rudolph/differnet at 9bdf026, torchvision and scipy. Its config.py wants a GPU and
is replaced, with smaller numbers; matplotlib, which draws the maps there, is an empty module. All in float64,
with weights and images of tests/written_down.py; the copies are turned by right angles, which every way of
rotating does alike:
python scripts/make_differnet_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "differnet.npz"
SIZE, COPIES = 256, 4
SETTINGS = {
    "device": "cpu",
    "img_size": (SIZE, SIZE),
    "norm_mean": [0.485, 0.456, 0.406],
    "norm_std": [0.229, 0.224, 0.225],
    "n_scales": 3,
    "clamp_alpha": 3,
    "n_coupling_blocks": 3,
    "fc_internal": 24,
    "dropout": 0.0,
    "n_feat": 768,
    "n_transforms": 4,
    "n_transforms_test": COPIES,
    "hide_tqdm_bar": True,
    "modelname": "none",
}


def turned(image: Tensor) -> Tensor:
    """(3, H, W) -> the four copies, turned counter-clockwise by right angles."""
    return torch.stack([torch.rot90(image, times, (1, 2)) for times in range(COPIES)])


def main(checkout: str) -> None:
    config = ModuleType("config")
    vars(config).update(SETTINGS)
    sys.modules |= {"config": config, "matplotlib": MagicMock(), "matplotlib.pyplot": MagicMock()}
    sys.path[:0] = [checkout, str(ROOT)]
    import localization
    import model
    import utils

    from tests.written_down import fill, pixels

    model.alexnet = lambda pretrained: __import__("torchvision").models.alexnet()
    network = model.DifferNet().double().eval()
    for module in network.modules():
        if isinstance(module, model.F_fully_connected):
            del module.bn  # which nothing uses
    fill(network.feature_extractor.features, 1000)
    fill(network.nf, 2000)
    mean, std = (torch.tensor(SETTINGS[f"norm_{name}"], dtype=torch.float64) for name in ("mean", "std"))
    mean, std = mean.view(3, 1, 1), std.view(3, 1, 1)

    z = network((pixels(3, SIZE, 1) - mean) / std)
    loss = utils.get_loss(z, network.nf.jacobian(run_forward=False))
    loss.backward()
    norms = [float(one.grad.norm()) for one in network.nf.parameters()]
    picked = [float(one.grad.flatten()[one.numel() // 3]) for one in network.nf.parameters()]

    images = pixels(2, SIZE, 2)
    copies = torch.stack([(turned(image) - mean) / std for image in images])
    with torch.no_grad():
        latents = network(copies.flatten(0, 1)).view(-1, COPIES, config.n_feat)
    kept: list[np.ndarray] = []
    localization.save_imgs = lambda inputs, grad, count: kept.append(grad) or count + len(grad)
    batches = [(one[None], torch.ones(1)) for one in copies]

    class Loader(list):  # type: ignore[type-arg]
        dataset = SimpleNamespace()

    optimizer = torch.optim.Adam(network.nf.parameters())
    localization.export_gradient_maps(network, Loader(batches), optimizer, -1)
    np.savez_compressed(
        OUT,
        made="by running marco-rudolph/differnet at 9bdf026 (scripts/make_differnet_fixture.py)",
        loss=loss.item(),
        norms=np.array(norms),
        gradient=np.array(picked),
        z=z.detach().numpy()[:, ::16],
        scores=torch.mean(latents**2, dim=(-2, -1)).numpy(),
        maps=np.concatenate(kept)[:, ::8, ::8],
    )
    print("loss", loss.item(), "scores", torch.mean(latents**2, dim=(-2, -1)).tolist())


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/fixtures/csflow.npz by running the authors' code on given weights and inputs.

Needs a checkout of marco-rudolph/cs-flow at 88a13b8, efficientnet_pytorch 0.6.3 and torchvision. Its
config.py is replaced, with smaller numbers. All in float64, with weights, images and features of
tests/written_down.py:
python scripts/make_csflow_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "csflow.npz"
CHANNELS, CELLS = 7, 8
SETTINGS = {
    "device": "cpu",
    "class_name": "none",
    "img_size": (128, 128),
    "n_scales": 3,
    "clamp": 3,
    "n_coupling_blocks": 3,
    "kernel_sizes": [3, 3, 5],
    "fc_internal": 5,
    "use_gamma": True,
    "n_feat": CHANNELS,
    "map_size": (CELLS, CELLS),
    "pre_extracted": True,
}


def main(checkout: str) -> None:
    config = ModuleType("config")
    vars(config).update(SETTINGS)
    sys.modules["config"] = config
    sys.path[:0] = [checkout, str(ROOT)]
    import model
    import utils

    from tests.written_down import features, fill, pixels

    flow = model.get_cs_flow_model().double()
    fill(flow, 1000)
    levels = features([(CHANNELS, CELLS >> scale, CELLS >> scale) for scale in range(3)], 3, 1)
    z, log_det = model.nf_forward(flow, levels)
    loss = utils.get_loss(z, list(log_det))
    loss.backward()
    # As evaluate.py: half the mean square is the score, that of the finest scale's channels the map.
    scores = np.mean(utils.t2np(utils.concat_maps(z)) ** 2 / 2, axis=(1, 2))

    make = model.EfficientNet.from_name
    model.EfficientNet.from_pretrained = make
    extractor = model.FeatureExtractor().double().eval()
    fill(extractor.feature_extractor, 2000)
    mean, std = (
        torch.tensor(one, dtype=torch.float64) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        extracted = extractor((pixels(1, 128, 2) - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    np.savez_compressed(
        OUT,
        made="by running marco-rudolph/cs-flow at 88a13b8 (scripts/make_csflow_fixture.py)",
        loss=loss.item(),
        norms=np.array([float(one.grad.norm()) for one in flow.parameters()]),
        gradient=np.array([float(one.grad.flatten()[one.numel() // 3]) for one in flow.parameters()]),
        scores=scores,
        maps=torch.mean(z[0] ** 2, dim=(1,)).detach().numpy(),
        **{f"z{scale}": one.detach().numpy()[:, ::2] for scale, one in enumerate(z)},
        **{f"level{scale}": one.numpy()[:, ::8] for scale, one in enumerate(extracted)},
    )
    print("loss", loss.item(), "scores", scores, [one.shape for one in extracted])


if __name__ == "__main__":
    main(sys.argv[1])

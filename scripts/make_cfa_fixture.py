"""Writes tests/methods/cfa_reference.json by running the authors' code on given features and weights.

Centres, loss, gradients, three steps of its training, and the maps after these. Needs a checkout of
sungwool/CFA_for_anomaly_localization at 0708086, einops, tqdm, scikit-learn and scikit-image:
python scripts/make_cfa_fixture.py CHECKOUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "cfa_reference.json"
SHAPES = [(64, 8, 8), (128, 4, 4), (256, 2, 2)]  # the 448 channels that the code gives `res18`
TRAIN, TEST, STEPS = [0.0, 0.3, 0.7, 1.1, 1.4, 1.9, 2.2, 2.6], [0.5, 3.5], 3
CASES = [
    {"channel_share": 1, "radius": 1e-5},
    {"channel_share": 2, "radius": 1.1},  # some patches inside a sphere, some centres repelled
]


def features(values: Tensor) -> list[Tensor]:
    """Levels that anybody can write down: sines of the index, moved by each image's value."""
    levels = []
    for channels, height, width in SHAPES:
        index = torch.arange(channels * height * width, dtype=torch.float64).view(channels, height, width)
        moved = values.double().view(-1, 1, 1, 1) * 0.2 * (1 + index % 3)
        levels.append(torch.sin(index * 0.37 + moved).float())
    return levels


def weights(rows: int, columns: int) -> Tensor:
    """A matrix that anybody can write down, of full rank."""
    index = torch.arange(rows * columns, dtype=torch.float64)
    return (0.05 * torch.sin(0.13 * index * (index % 997))).float().view(rows, columns)


def constant(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    torch.Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]  # its coordinates ask for one
    from utils import cfa
    from utils.metric import gaussian_smooth, upsample

    drawn = cfa.Descriptor.__init__

    def written(self: Any, gamma_d: int, cnn: str) -> None:
        drawn(self, gamma_d, cnn)
        layer = self.layer.conv
        layer.weight.data = weights(*layer.weight.shape[:2])[..., None, None]
        layer.bias.data = weights(1, len(layer.bias))[0]

    cfa.Descriptor.__init__ = written

    def network(images: Tensor) -> list[Tensor]:
        return features(images[:, 0, 0, 0])

    cases = []
    for case in CASES:
        batches = [(constant(TRAIN[:4]), None, None), (constant(TRAIN[4:]), None, None)]
        model = cfa.DSVDD(network, batches, "res18", 1, case["channel_share"], "cpu")
        model.r.data.fill_(case["radius"])
        optimizer = torch.optim.AdamW(
            [{"params": model.parameters()}], lr=1e-3, weight_decay=5e-4, amsgrad=True
        )
        result: dict[str, Any] = {**case, "centres": model.C.T[::7, ::11].tolist(), "losses": []}
        for step in range(STEPS):
            model.train()
            optimizer.zero_grad()
            loss, _ = model(network(batches[step % 2][0]))
            loss.backward()
            if step == 0:
                gradient = model.Descriptor.layer.conv.weight.grad[:, :, 0, 0]
                result["gradient"] = gradient[::29, ::31].tolist()
                result["gradient_norm"] = gradient.norm().item()
                result["gradient_radius"] = model.r.grad.item()
            result["losses"].append(loss.item())
            optimizer.step()
        model.eval()
        with torch.no_grad():
            heatmap = model(network(constant(TEST)))[1].mean(1)
        maps = gaussian_smooth(upsample(heatmap, size=32, mode="bilinear"), sigma=4)
        result["radius_after"] = model.r.item()
        result["scores"] = maps.reshape(len(TEST), -1).max(1).tolist()
        result["maps"] = maps[:, ::3, ::3].tolist()
        cases.append(result)
    made = "by running sungwool/CFA_for_anomaly_localization at 0708086 (scripts/make_cfa_fixture.py)"
    content = {"made": made, "shapes": SHAPES, "train": TRAIN, "test": TEST, "cases": cases}
    OUT.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

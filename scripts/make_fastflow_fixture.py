"""Writes tests/methods/fixtures/fastflow.npz by running gathierry/FastFlow on given features and weights.

The authors published no code; this is a second public implementation. Needs checkouts of gathierry/FastFlow
at 2cf1f2f and of vislearn/FrEIA at 1779d1f, and scipy and timm:
python scripts/make_fastflow_fixture.py FASTFLOW FREIA
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "fastflow.npz"
SIZE, CHANNELS, STRIDES = 32, (4, 7), (4, 8)
CASES = {"3x3": (True, 1.0, 3), "3x3 and 1x1": (False, 0.5, 4)}  # conv3x3_only, hidden_ratio, flow_steps


class Given(nn.Module):
    """Stands for timm's network: the levels it was given, whatever the images."""

    def __init__(self, levels: list[Tensor]):
        super().__init__()
        self.levels = levels
        self.feature_info = SimpleNamespace(channels=lambda: CHANNELS, reduction=lambda: STRIDES)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.levels


def main(fastflow_checkout: str, freia_checkout: str) -> None:
    sys.path[:0] = [fastflow_checkout, freia_checkout]
    import fastflow

    generator = torch.Generator().manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  FrEIA draws its permutations from it
    levels = [
        torch.randn(3, c, SIZE // s, SIZE // s, generator=generator)
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]
    found = {f"level{i}": level.numpy() for i, level in enumerate(levels)}
    fastflow.timm.create_model = lambda *_, **__: Given(levels)
    for case, (only, ratio, steps) in CASES.items():
        model = fastflow.FastFlow("resnet18", steps, SIZE, only, ratio)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "w_perm" not in name:  # far from the start, so that every term shows
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter += noise * (0.1 if name.startswith("norms") else 0.5)
        model.train()
        loss = model(torch.zeros(3, 3, SIZE, SIZE))["loss"]
        loss.backward()
        model.eval()
        with torch.no_grad():
            found[f"{case}/map"] = model(torch.zeros(3, 3, SIZE, SIZE))["anomaly_map"][:, 0].numpy()
        found[f"{case}/loss"] = loss.detach().numpy()
        for name, parameter in model.named_parameters():
            found[f"{case}/weight/{name}"] = parameter.detach().numpy()
            if parameter.grad is not None:
                found[f"{case}/gradient/{name}"] = parameter.grad.numpy()
    np.savez_compressed(OUT, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])

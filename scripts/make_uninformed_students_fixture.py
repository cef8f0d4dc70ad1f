"""Writes tests/methods/fixtures/uninformed_students.npz by running others' code of the paper.

Needs a checkout of denguir/student-teacher-anomaly-detection at fc279ef, torchvision and einops; PyTorch
Lightning and what draws is left out. Weights and images are those of tests/written_down.py, everything is
float64. What departs from the paper there (the decoder behind the descriptor, the correlations) is not used:
python scripts/make_uninformed_students_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "uninformed_students.npz"
SIZE = 32


def main(checkout: str) -> None:
    sys.path[:0] = [f"{checkout}/src", str(ROOT)]
    lightning = MagicMock()
    lightning.LightningModule = nn.Module
    sys.modules["pytorch_lightning"] = lightning
    for module in ("matplotlib", "matplotlib.pyplot", "AnomalyDataset", "AnomalyResnet18"):
        sys.modules[module] = MagicMock()
    from anomaly_detection import get_error_map, get_variance_map
    from AnomalyNet import AnomalyNet
    from students_training import student_loss
    from teacher_training import distillation_loss
    from utils import increment_mean_and_var

    from tests.written_down import features, fill, pixels

    found: dict[str, Any] = {}
    images = (pixels(1, SIZE, 1) - 0.5) / 0.5
    for side in (17, 33, 65):
        network = AnomalyNet.create((side, side)).double().eval()
        fill(network, 1000)
        kept: list[torch.Tensor] = []
        network.decode.register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
        with torch.no_grad():
            network.fdfe(images)
        found[f"dense_{side}"] = kept[0].permute(0, 3, 1, 2)[:, ::9, ::5, ::3]
    *students, teacher = (one.permute(0, 2, 3, 1) for one in features([(6, 5, 4)] * 4, 2, 7))
    answers = torch.stack(students, 1)
    found["error"], found["variance"] = get_error_map(answers, teacher), get_variance_map(answers)
    found["loss"] = student_loss(students[0], teacher)
    mean, variance, count = 0, 0, 0
    for image in teacher:
        mean, variance, count = increment_mean_and_var(mean, variance, count, image[None])
    found["mean"], found["std"] = mean, variance**0.5
    found["distillation"] = distillation_loss(students[0].flatten(1), students[1].flatten(1))
    np.savez_compressed(
        OUT,
        made="by running denguir/student-teacher-anomaly-detection at fc279ef "
        "(scripts/make_uninformed_students_fixture.py)",
        **{name: value.numpy() for name, value in found.items()},
    )
    print({name: tuple(value.shape) for name, value in found.items()})


if __name__ == "__main__":
    main(sys.argv[1])

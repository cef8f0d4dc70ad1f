"""Writes tests/methods/fixtures/ikd.npz by training and testing the authors' code from given weights.

Needs a checkout of caoyunkang/IKD at ec8d4f9, torchvision, opencv-python and yacs; what draws, logs and
measures there is left out. Weights and images are those of tests/written_down.py, everything is float64:
python scripts/make_ikd_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "ikd.npz"
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LEFT_OUT = ("skimage", "loguru", "matplotlib", "matplotlib.pyplot", "torch.utils.tensorboard")
MODEL, SIZE, STEPS = "hrnet18", 64, 3


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    for module in (*LEFT_OUT, "torchvision.models.utils"):
        sys.modules[module] = MagicMock()
    sys.modules["torchvision.models.utils"].load_state_dict_from_url = lambda *_, **__: {}  # type: ignore[attr-defined]
    vars(np)["int"] = int  # as numpy once had it
    import cv2

    cv2.cv2 = cv2  # type: ignore[attr-defined]
    import train as authors
    from models.model import School

    from tests.written_down import fill, pixels

    mean, std = (torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in (MEAN, STD))
    model = School(MODEL).double()
    fill(model.teacher, 1000)
    fill(model.student, 2000)
    ikd: Any = object.__new__(authors.IKD)  # what its constructor sets, less folders and CUDA
    settings = {
        "device": "cpu",
        "category": "given",
        "lr_rate": 0.00005,
        "feature_choose": ["x1", "x2"],
        "feature_weight": [1.0, 2.0],
        "beta": 2,
        "gamma": 1,
        "n_epoch": 1,
        "validate_step": 50,
        "input_size": SIZE,
        "save_images": False,
    }
    vars(ikd).update(settings, model=model)
    batches = [(pixels(2, SIZE, seed) - mean) / std for seed in range(1, STEPS + 1)]
    found: dict[str, list[Any]] = defaultdict(list)
    measured, loss_of, test = ikd.calculate_loss, Tensor.backward, ikd.test

    def calculate_loss(*words: Any, **named: Any) -> Any:
        loss, margin, last = measured(*words, **named)
        found["losses"].append([float(loss[key]) for key in ("x1", "x2", "mean")])
        found["margins"].append(margin)
        return loss, margin, last

    def backward(loss: Tensor) -> None:
        loss_of(loss)
        if "gradient" not in found:
            found["gradient"] = [
                float(one.grad.flatten()[one.numel() // 3])
                for one in model.student.parameters()
                if one.grad is not None
            ]

    def kept(maps: Any, masks: Any) -> tuple[float, float]:
        found["maps"] = [maps[:, ::5, ::3]]
        return 0.0, 0.0

    ikd.calculate_loss, Tensor.backward = calculate_loss, backward  # type: ignore[method-assign]
    ikd.get_train_loader = lambda: [(one, 0, 0, 0, 0) for one in batches]
    ikd.get_test_loader, ikd.get_tensorboard_logger = list, lambda **_: MagicMock()
    ikd.test, ikd.save_model = lambda *_, **__: ({}, {}), lambda: None
    ikd.train()
    Tensor.backward = loss_of  # type: ignore[method-assign]
    ikd.cal_auc = kept
    tests = (pixels(2, SIZE, 9) - mean) / std
    mask = torch.zeros(1, 1, SIZE, SIZE)
    with torch.no_grad():
        test([(one[None], mask, torch.zeros(1), ["x"], ["good"]) for one in tests], False)
    np.savez_compressed(
        OUT,
        made="by running caoyunkang/IKD at ec8d4f9 (scripts/make_ikd_fixture.py)",
        losses=np.array(found["losses"]),
        margins=np.array(found["margins"]),
        gradient=np.array(found["gradient"]),
        maps=found["maps"][0],
    )
    print(found["losses"], found["margins"], len(found["gradient"]), found["maps"][0].shape)


if __name__ == "__main__":
    main(sys.argv[1])

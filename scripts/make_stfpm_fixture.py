"""Writes tests/methods/fixtures/stfpm.npz by training and testing the authors' code from given weights.

Needs a checkout of gdwang08/STFPM at 2598a5e, torchvision, opencv-python and scikit-learn. Weights and images
are those of tests/written_down.py, everything is float64:
python scripts/make_stfpm_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "stfpm.npz"
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Loader:
    """What the authors' loops ask of a loader: batches of (paths, images), and how many images there are."""

    def __init__(self, images: Tensor) -> None:
        mean, std = (torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in (MEAN, STD))
        self.dataset = (images - mean) / std

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield [], self.dataset


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    import cv2
    import main as authors

    from tests.written_down import fill, pixels

    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    torch.manual_seed(0)
    teacher, student = authors.ResNet18_MS3().double(), authors.ResNet18_MS3().double()
    fill(teacher, 1000)
    fill(student, 2000)
    train, held, tests = Loader(pixels(2, 256, 1)), Loader(pixels(1, 256, 2)), Loader(pixels(1, 256, 3))
    teacher.eval()
    before = np.stack([cv2.resize(one, (256, 256)) for one in authors.test(teacher, student, tests)])
    found: dict[str, list[float]] = {"losses": [], "errors": []}
    with tempfile.TemporaryDirectory() as folder:
        args = SimpleNamespace(epochs=2, model_save_path=folder, category="given")
        tested, loss_of = authors.test, torch.Tensor.backward

        def test(*words):  # type: ignore[no-untyped-def]
            maps = tested(*words)
            found["errors"].append(float(maps.mean()))
            return maps

        def backward(loss: Tensor) -> None:
            found["losses"].append(loss.item())
            loss_of(loss)
            if "gradient" not in found:  # of the first step: a few values of every parameter
                found["gradient"] = [
                    float(one.grad.flatten()[one.numel() // 3])
                    for one in student.parameters()
                    if one.grad is not None
                ]

        authors.test, torch.Tensor.backward = test, backward  # type: ignore[method-assign, assignment]
        authors.train_val(teacher, student, train, held, args)
        authors.test, torch.Tensor.backward = tested, loss_of  # type: ignore[method-assign]
        student.load_state_dict(torch.load(Path(folder) / "given" / "best.pth.tar")["state_dict"])
    after = np.stack([cv2.resize(one, (256, 256)) for one in authors.test(teacher, student, tests)])
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT,
        before=before[:, ::9, ::7],
        after=after[:, ::9, ::7],
        scores=after.max(-1).max(-1),
        made="by running gdwang08/STFPM at 2598a5e (scripts/make_stfpm_fixture.py)",
        **{name: np.array(values) for name, values in found.items()},
    )
    print({name: values for name, values in found.items() if name != "gradient"})


if __name__ == "__main__":
    main(sys.argv[1])

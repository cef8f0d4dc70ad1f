"""Writes tests/methods/fixtures/riad.npz by running a public RIAD on given weights, images and cells.

Not the authors' code, which was never published. Needs a checkout of taikiinoue45/RIAD at 36139f9. Weights
and images are those of tests/written_down.py, everything is float64:
python scripts/make_riad_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "riad.npz"
SIDE, CELLS = 48, (2, 4, 8, 16)
UNUSED = (
    "mlflow",
    "cv2",
    "albumentations",
    "pandas",
    "matplotlib",
    "matplotlib.pyplot",
    "mpl_toolkits",
    "mpl_toolkits.axes_grid1",
    "riad.metrics",
    "riad.datasets",
)  # imported there, not needed here


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    vars(np)["Inf"] = np.inf  # its name before numpy 2
    from riad.criterions import MSGMSLoss, SSIMLoss
    from riad.models import UNet, unet
    from riad.runner.runner import Runner
    from riad.utils import mean_smoothing

    from tests.written_down import fill, pixels

    torch.set_default_dtype(torch.float64)
    to_float = torch.float
    torch.float = torch.float64  # type: ignore[misc]  # the dtype of its masks and kernels
    gradients, structure = MSGMSLoss(num_scales=4), SSIMLoss(kernel_size=11, sigma=1.5)
    for name in ("prewitt_x", "prewitt_y"):  # made by torch.Tensor
        setattr(gradients, name, getattr(gradients, name).double())
    model = UNet()
    parameters = sum(one.numel() for one in model.parameters())
    # Its own blocks with an eighth of the channels: the test is to take seconds.
    model.down1 = unet.UNetDownBlock(3, 8, 3, 1, 1)
    for number, (one, two) in enumerate(((8, 16), (16, 32), (32, 64), (64, 64)), start=2):
        setattr(model, f"down{number}", unet.UNetDownBlock(one, two, 4, 2, 1))
    for number, (one, two) in enumerate(((64, 64), (64, 32), (32, 16), (16, 8)), start=1):
        setattr(model, f"up{number}", unet.UNetUpBlock(one, two))
    model.conv_final = torch.nn.Sequential(unet.conv(8, 3, 3, 1, 1), torch.nn.Tanh())
    model = model.double()
    fill(model, 1000)
    params = SimpleNamespace(num_disjoint_masks=3, device="cpu")
    runner = SimpleNamespace(model=model, cfg=SimpleNamespace(params=params))
    given: list[list[torch.Tensor]] = []

    def masks(size: tuple[int, int], cell: int, count: int) -> list[torch.Tensor]:
        given.append(Runner._create_disjoint_masks(runner, size, cell, count))
        return given[-1]

    runner._create_disjoint_masks = masks
    np.random.seed(0)  # noqa: NPY002 - what the code draws from
    train, tests = 2 * pixels(2, SIDE, 1) - 1, 2 * pixels(2, SIDE, 2) - 1
    model.train()
    painted = Runner._reconstruct(runner, train, 8)
    loss = gradients(train, painted) + structure(train, painted) + torch.nn.MSELoss()(train, painted)
    loss.backward()
    used = [one.grad for one in model.parameters() if one.grad is not None]
    model.eval()
    maps = torch.zeros(2, 1, SIDE, SIDE)
    with torch.no_grad():
        for cell in CELLS:
            maps += gradients(tests, Runner._reconstruct(runner, tests, cell), as_loss=False)
        maps = mean_smoothing(maps)[:, 0]
    torch.float = to_float  # type: ignore[misc]
    hidden = [torch.stack([1 - one for one in masks]).argmax(0) for masks in given]
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT,
        hidden=torch.stack(hidden).byte().numpy(),  # of the training step, then of the cells' sizes in tests
        loss=loss.item(),
        gradient=np.array([float(one.flatten()[one.numel() // 3]) for one in used]),
        norms=np.array([float(one.norm()) for one in used]),
        maps=maps[:, ::3, ::2].numpy(),
        scores=maps.amax((1, 2)).numpy(),
        parameters=parameters,
        made="by running taikiinoue45/RIAD at 36139f9 (scripts/make_riad_fixture.py)",
    )
    print("loss", loss.item(), "scores", maps.amax((1, 2)).tolist())


if __name__ == "__main__":
    main(sys.argv[1])

"""Writes tests/methods/fixtures/anoddpm.npz by running the authors' AnoDDPM on given weights and images.

Needs a checkout of Julian-Wyatt/AnoDDPM at 3052f04. Its noise is run without numba, which changes only its
speed. Weights and images are those of tests/written_down.py, everything is float64:
python scripts/make_anoddpm_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "anoddpm.npz"
SIDE, STEPS, TIMES, DISTANCE = 32, 50, (7, 31), 6


def uncompiled(*given: Any, **_: Any) -> Any:
    return given[0] if given else lambda function: function


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    numba: Any = ModuleType("numba")
    numba.njit, numba.prange = uncompiled, range
    sys.modules["numba"] = numba
    for name in (
        "matplotlib",
        "matplotlib.pyplot",
        "matplotlib.animation",
        "evaluation",
    ):
        sys.modules[name] = MagicMock()
    import GaussianDiffusion
    import simplex
    from GaussianDiffusion import GaussianDiffusionModel, get_beta_schedule
    from UNet import UNetModel, update_ema_params

    from tests.written_down import fill, pixels

    with torch.device("meta"):
        full = UNetModel(256, 128, n_heads=2, in_channels=3)
    parameters = sum(one.numel() for one in full.parameters())
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment]
    tables: list[np.ndarray] = []

    def seeded(self: Any, seed: None = None) -> None:
        self._perm, self._perm_grad_index3 = simplex._init(len(tables) + 1)
        tables.append(self._perm)

    simplex.Simplex_CLASS.newSeed = seeded
    given: list[np.ndarray] = []
    drawing = GaussianDiffusion.generate_simplex_noise

    def rounded(*settings: Any, **named: Any) -> torch.Tensor:
        """Its noise as float32 holds it: what the file holds is what its chain is given."""
        given.append(drawing(*settings, **named).numpy().astype(np.float32))
        return torch.from_numpy(given[-1]).double()

    GaussianDiffusion.generate_simplex_noise = rounded
    kept: dict[str, Any] = {}
    for name, steps in (("linear", 1000), ("cosine", 50)):
        chain = GaussianDiffusionModel((SIDE, SIDE), get_beta_schedule(steps, name))
        values = [
            chain.alphas_cumprod,
            chain.posterior_variance,
            chain.posterior_mean_coef1,
            chain.posterior_mean_coef2,
            np.append(chain.posterior_variance[1], chain.betas[1:]),  # as in p_mean_variance
        ]
        kept[name] = np.stack(values)[:, :: steps // 50]
    drawn = simplex.Simplex_CLASS()  # its first permutation is tables[0]
    kept["noise"] = np.stack(
        [drawn.rand_3d_fixed_T_octaves((24, 40), np.array([time]), 6, 0.8, 64)[0] for time in (0, 123)]
    )

    chain = GaussianDiffusionModel((SIDE, SIDE), get_beta_schedule(STEPS, "linear"), 3, noise="simplex")
    network = UNetModel(
        SIDE, 32, n_heads=2, channel_mults=(1, 2, 2), attention_resolutions="16,8", in_channels=3
    )
    network = network.double()
    network.dtype = torch.float64
    fill(network, 1000)
    images = 2 * pixels(2, SIDE, 1) - 1
    with torch.no_grad():
        kept["predicted"] = network(images, torch.tensor(TIMES))[:, :, ::3, ::2].numpy()
    first = len(tables)  # three more for each noise
    losses = [
        chain.calc_loss(network, image[None], torch.tensor([time]))[0]["loss"].mean()
        for image, time in zip(images, TIMES, strict=True)
    ]
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = [one.grad for one in network.parameters() if one.grad is not None]
    second, drawn_before = len(tables), len(given)
    tests = 2 * pixels(1, SIDE, 2) - 1
    with torch.no_grad():
        restored = chain.forward_backward(network, tests, None, DISTANCE, denoise_fn="simplex")
    source, average = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    fill(source, 1)
    fill(average, 2)
    update_ema_params(average, source, 0.9)
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT,
        **kept,
        loss=loss.item(),
        gradient=np.array([float(one.flatten()[one.numel() // 3]) for one in gradients]),
        norms=np.array([float(one.norm()) for one in gradients]),
        maps=(tests - restored).square().mean(1).numpy(),
        average=average.weight.detach().numpy(),
        table=tables[0].astype(np.uint8),
        loss_tables=np.stack(tables[first:second]).astype(np.uint8),
        loss_noise=np.concatenate(given[:drawn_before]),
        test_noise=np.concatenate(given[drawn_before:-1]),  # the last is for time 0 and not used
        parameters=parameters,
        made="by running Julian-Wyatt/AnoDDPM at 3052f04 (scripts/make_anoddpm_fixture.py)",
    )
    print("loss", loss.item(), "tables", len(tables), "map", (tests - restored).square().mean().item())


if __name__ == "__main__":
    main(sys.argv[1])

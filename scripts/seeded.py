"""Numbers and weights that a name gives, the same everywhere: what fixtures of methods start from."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers that depend on the name alone: numpy keeps this old stream for ever."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(np.asarray(stream.standard_normal(shape))).float()


@torch.no_grad()
def fill(state: dict[str, Tensor]) -> None:
    """Weights of a usual size, drawn by their names; norms a little away from passing on what they get."""
    for name, value in state.items():
        shape = tuple(value.shape)
        if value.ndim > 1:
            value.copy_(drawn(name, shape) * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            value.copy_(1 + 0.2 * drawn(name, shape).tanh())
        elif value.is_floating_point():
            value.copy_(0.1 * drawn(name, shape))

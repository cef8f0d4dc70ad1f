"""Weights and images that anybody can make again: what is given to the authors' code and to ours alike.

numpy's RandomState is frozen: the same numbers in every version.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def fill(module: nn.Module, seed: int) -> None:
    """Overwrite weights and running statistics, tensor by tensor in the order of state_dict()."""
    for index, (name, tensor) in enumerate(module.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        noise = torch.from_numpy(np.random.RandomState(seed + index).standard_normal(tuple(tensor.shape)))
        if tensor.ndim > 1:
            noise *= math.sqrt(2 / tensor[0].numel())
        elif name.endswith("running_var"):
            noise = 0.7 + 0.1 * noise.abs()
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        tensor.copy_(noise)


def pixels(count: int, size: int, seed: int) -> Tensor:
    """(count, 3, size, size) in [0, 1], float64: waves of one direction, noise, one darker square."""
    random = np.random.RandomState(seed)
    rows, columns = np.indices((size, size)) / size
    images = []
    for shift in random.random_sample(count):
        wave = np.sin(23 * rows + 5 * columns + shift) * np.array([1.0, 0.7, 0.4])[:, None, None]
        image = 0.5 + 0.25 * wave + 0.05 * random.standard_normal((3, size, size))
        top, left = random.randint(0, size // 2, 2)
        image[:, top : top + size // 4, left : left + size // 4] *= 0.6
        images.append(image.clip(0, 1))
    return torch.from_numpy(np.stack(images))


def features(shapes: list[tuple[int, ...]], count: int, seed: int) -> list[Tensor]:
    """For each shape (C, h, w) a level (count, C, h, w), float64, not negative as after a ReLU."""
    random = np.random.RandomState(seed)
    return [torch.from_numpy(np.abs(random.standard_normal((count, *shape)))) for shape in shapes]


def normalise_in_float64(module: nn.Module) -> None:
    """ImageNet's mean and deviation as float64 holds them: float32 ones made double are 1e-8 beside."""
    for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
        setattr(module, name, torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1))

"""Perlin noise, and the masks that papers cut out of it for defects that never were.

Perlin, Improving noise, SIGGRAPH 2002: gradients of length 1 at the corners of a grid, quintic fade between.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.chance import uniform, whole
from ad_bench.parts.distort import rotate


def noise(angles: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., rows + 1, columns + 1) radians of the gradients -> (..., *size) of that many cells, within 1.

    Scaled by sqrt(2) as in VitjanZ/DRAEM at 2dbf673 (perlin.py). A size need be no multiple of the cells.
    """
    axes = []
    for length, corners in zip(size, angles.shape[-2:], strict=True):
        position = torch.arange(length, device=angles.device) * (corners - 1)
        axes.append((position // length, (position % length).to(angles.dtype) / length))
    (row, down), (column, right) = axes
    gradients = torch.stack([torch.cos(angles), torch.sin(angles)])

    def ramp(below: int, beside: int) -> Tensor:
        """The offset from one corner of the cell, along that corner's gradient."""
        along, across = gradients[..., row + below, :][..., column + beside]
        return along * (down - below)[:, None] + across * (right - beside)

    fade_down, fade_right = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (down[:, None], right))
    left = torch.lerp(ramp(0, 0), ramp(1, 0), fade_down)
    return math.sqrt(2) * torch.lerp(left, torch.lerp(ramp(0, 1), ramp(1, 1), fade_down), fade_right)


def random_noise(
    size: tuple[int, int], cells: tuple[int, int], generator: torch.Generator, count: int = 1
) -> Tensor:
    """(count, *size): fields of noise that know nothing of each other."""
    corners = (count, cells[0] + 1, cells[1] + 1)
    return noise(2 * math.pi * torch.rand(corners, generator=generator), size)


class PerlinMasks:
    """Where noise of 2^u x 2^v cells, turned by up to `rotation` degrees either way, is above `threshold`.

    u and v are drawn from the whole numbers `octaves[0]` to `octaves[1]`.
    """

    def __init__(self, octaves: tuple[int, int], rotation: float, threshold: float):
        self.low, self.high = octaves
        if not 0 <= self.low <= self.high:
            raise UsageError(f"octaves are two powers of 2, the smaller first, from 0; got {list(octaves)}")
        self.rotation, self.threshold = rotation, threshold

    def draw(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """`size` bool, on the CPU; may be empty."""
        cells = (2 ** whole(generator, self.low, self.high), 2 ** whole(generator, self.low, self.high))
        field = random_noise(size, cells, generator)
        return rotate(field, uniform(generator, -self.rotation, self.rotation))[0] > self.threshold

"""Where a cell of a feature map lies, as a vector of sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ad_bench.errors import UsageError


def sine_positions(dimensions: int, height: int, width: int) -> Tensor:
    """(dimensions, height, width) in [-1, 1]: the column in the first half, the row in the second.

    Vaswani et al. 2017, Sec. 3.5, for each axis: sine and cosine in turn, at wavelengths that grow
    geometrically from 2 pi towards 10,000 x 2 pi cells.
    """
    if dimensions < 4 or dimensions % 4:
        raise UsageError(
            f"dimensions is a multiple of 4: sines and cosines, for each of two axes; got {dimensions}"
        )
    half = dimensions // 2
    speed = torch.exp(torch.arange(0, half, 2) * (-math.log(10_000) / half))

    def axis(length: int) -> Tensor:
        angles = speed[:, None] * torch.arange(length)
        return torch.stack([angles.sin(), angles.cos()], 1).flatten(0, 1)  # (half, length)

    columns = axis(width)[:, None].expand(-1, height, -1)
    rows = axis(height)[:, :, None].expand(-1, -1, width)
    return torch.cat([columns, rows])

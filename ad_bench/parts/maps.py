"""Anomaly maps: brought to a size, smoothed, summed up in one score."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) -> (B, *size), bilinear, corners not aligned."""
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """(B, h, w) smoothed with a standard deviation of `sigma` pixels; 0 leaves them as they are.

    Equals `scipy.ndimage.gaussian_filter(map, sigma)`: cut off at 4 sigma, the border mirrored with its edge.
    """
    if sigma < 0:
        raise UsageError(f"sigma is a width in pixels, 0 or more; got {sigma}")
    if sigma == 0:
        return maps
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for _ in range(2):  # rows, then columns
        mirrored = maps[:, :, _mirrored(maps.shape[2], radius, maps.device)]
        maps = F.conv1d(mirrored.flatten(0, 1)[:, None], kernel).view(maps.shape).transpose(1, 2)
    return maps


def worst_pixel(maps: Tensor) -> Tensor:
    """(B, h, w) -> (B,): the highest value of each map."""
    return maps.amax((1, 2))


def _mirrored(length: int, margin: int, device: torch.device) -> Tensor:
    """Indices of `length` cells with `margin` more on both sides: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    index = torch.arange(-margin, length + margin, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)

"""Anomaly maps: brought to a size, smoothed, summed up in one score."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.exact import exact_products


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) -> (B, *size), bilinear, corners not aligned."""
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """(B, h, w) smoothed with a standard deviation of `sigma` pixels; 0 leaves them as they are.

    Equals `scipy.ndimage.gaussian_filter(map, sigma)`: cut off at 4 sigma, the border mirrored with its edge.
    """
    return upsample_and_blur(maps, (maps.shape[1], maps.shape[2]), sigma)


def upsample_and_blur(maps: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """(B, h, w) -> (B, *size): `upsample`, then `gaussian_blur`, without the large map between them.

    Both are linear in rows and in columns, so one matrix from each side does both.
    """
    if sigma < 0:
        raise UsageError(f"sigma is a width in pixels, 0 or more; got {sigma}")
    if sigma == 0:
        return upsample(maps, size)
    down = _resampling(maps.shape[1], size[0], sigma, maps.dtype, maps.device)
    across = _resampling(maps.shape[2], size[1], sigma, maps.dtype, maps.device)
    with exact_products(maps.device):
        return down.expand(len(maps), -1, -1).bmm(maps @ across.T)


def worst_pixel(maps: Tensor) -> Tensor:
    """(B, h, w) -> (B,): the highest value of each map."""
    return maps.amax((1, 2))


@lru_cache(maxsize=32)
@torch.no_grad()
def _resampling(source: int, target: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix (target, source) that interpolates a column of a map and then smooths it."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(target, -1)
    # Row i of the smoothing reads the cells i - radius to i + radius, those beyond the border mirrored.
    cells = _mirrored(target, radius).unfold(0, 2 * radius + 1, 1)
    smoothing = torch.zeros(target, target, dtype=torch.float64).scatter_add_(1, cells, kernel)
    unit = torch.eye(source, dtype=torch.float64)[None]
    interpolation = F.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T
    return (smoothing @ interpolation).to(device, dtype)


def _mirrored(length: int, margin: int) -> Tensor:
    """Indices of `length` cells with `margin` more on both sides: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    index = torch.arange(-margin, length + margin) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)

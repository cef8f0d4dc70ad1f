"""Feature maps to patch rows, in the order of PatchCore's reference (arXiv:2106.08265, Sec. 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError


def pooled_patches(levels: Sequence[Tensor], size: int, level_dim: int, dim: int) -> Tensor:
    """Feature maps (B, C, h, w), finest first -> (B, h, w, dim): patch features on the grid of the first.

    A patch is a location with its neighbours, size x size, zeros beyond the border: the channel is the slow
    index, the cell of the window (row by row) the fast one. Each level's patches are pooled to `level_dim`
    numbers and resized to the first grid; the levels side by side are pooled to `dim`.

    All of it is linear, so both poolings are one convolution, done on each level's own smaller grid.
    """
    if size < 1 or size % 2 == 0:
        raise UsageError(f"patch_size is an odd number of cells, so that a patch has a centre; got {size}")
    grid = cast(tuple[int, int], tuple(levels[0].shape[-2:]))
    share, left = divmod(dim, len(levels))
    dims = (level_dim,) if left else (level_dim, share)  # the last pooling may mix the numbers of two levels
    rows = []
    for maps in levels:
        weight, groups = _pooling(maps.shape[1], size, dims, maps.device, maps.dtype)
        maps = maps.contiguous(memory_format=torch.channels_last)
        rows.append(
            resize_grid(F.conv2d(maps, weight, None, 1, size // 2, 1, groups).permute(0, 2, 3, 1), grid)
        )
    joined = torch.cat(rows, -1)
    return pool_rows(joined, dim) if left else joined


@lru_cache(maxsize=64)
def _pooling(
    channels: int, size: int, dims: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, int]:
    """The weight (D, C / groups, size, size) that pools windows to `dims`, one after the other; the groups.

    Where the number of channels and those of `dims` have a common divisor, no stretch crosses the borders of
    so many groups, and all groups are pooled alike.
    """
    groups = math.gcd(channels, *dims)
    matrix = torch.eye(channels * size**2 // groups)
    for dim in dims:
        matrix = pool_rows(matrix, dim // groups)
    weight = matrix.T.reshape(-1, channels // groups, size, size).repeat(groups, 1, 1, 1)
    return weight.to(device, dtype), groups


def pool_rows(rows: Tensor, length: int) -> Tensor:
    """(..., N) -> (..., length): means of `length` almost equal stretches of each row, rising to overlap."""
    pooled = F.adaptive_avg_pool1d(rows.reshape(-1, 1, rows.shape[-1]), length)
    return pooled.view(*rows.shape[:-1], length)


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w, N) -> (B, *size, N): each of the N planes resized bilinearly, corners not aligned."""
    if tuple(grid.shape[1:3]) == tuple(size):
        return grid
    planes = F.interpolate(grid.permute(0, 3, 1, 2), size=tuple(size), mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)

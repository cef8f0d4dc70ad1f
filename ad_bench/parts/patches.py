"""Feature maps to patch rows and back, in the order of PatchCore's reference (arXiv:2106.08265, Sec. 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError


def patchify(features: Tensor, size: int) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C * size**2): each location with its neighbours, zeros beyond the border.

    The channel is the slow index, the cell of the window (row by row) the fast one.
    """
    if size < 1 or size % 2 == 0:
        raise UsageError(f"patch_size is an odd number of cells, so that a patch has a centre; got {size}")
    rows = F.unfold(features, size, padding=size // 2)
    return rows.transpose(1, 2).unflatten(1, features.shape[-2:])


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

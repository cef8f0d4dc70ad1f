"""Patches against numbers worked out with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.patches import pool_rows, pooled_patches, resize_grid


def patches_by_a_loop(features: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, h, w) -> (B, h, w, C * size**2)."""
    half = size // 2
    padded = np.pad(features.numpy(), ((0, 0), (0, 0), (half, half), (half, half)))
    count, channels, height, width = features.shape
    patches = np.empty((count, height, width, channels * size**2), padded.dtype)
    for image, row, column in np.ndindex(count, height, width):
        patches[image, row, column] = padded[image, :, row : row + size, column : column + size].ravel()
    return torch.from_numpy(patches)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("channels", "size", "level_dim", "dim"),
    [
        ((8, 16), 3, 64, 64),  # four and two numbers a channel
        ((32, 64), 3, 32, 32),  # one, and two channels to a number
        ((6, 10), 3, 16, 16),  # stretches that overlap, and cross channels
        ((3,), 3, 20, 7),
        ((4, 4), 3, 10, 5),  # a last number of both levels
        ((5, 4, 3), 1, 4, 6),
        ((2, 3), 5, 7, 8),
    ],
)
def test_pooled_patches_are_pooled_resized_joined_pooled(
    channels: tuple[int, ...], size: int, level_dim: int, dim: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [
        torch.randn(2, count, 8 >> level, 12 >> level, generator=generator).to(memory_format=layout)
        for level, count in enumerate(channels)
    ]
    pooled = [pool_rows(patches_by_a_loop(maps, size), level_dim) for maps in levels]
    wanted = pool_rows(torch.cat([resize_grid(level, (8, 12)) for level in pooled], -1), dim)
    found = pooled_patches(levels, size, level_dim, dim)
    assert found.shape == (2, 8, 12, dim)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_patch_of_one_cell_is_the_features_themselves() -> None:
    features = torch.rand(1, 3, 4, 5)
    assert torch.equal(pooled_patches([features], 1, 3, 3), features.permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [0, 2, -3])
def test_patches_without_centre_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="odd"):
        pooled_patches([torch.rand(1, 3, 4, 4)], size, 3, 3)


@pytest.mark.parametrize(("length", "wanted"), [(27, 10), (10, 27), (12, 4), (5, 5)])
def test_pool_rows_equals_a_loop(length: int, wanted: int) -> None:
    rows = torch.rand(2, 3, length)
    pooled = pool_rows(rows, wanted)
    assert pooled.shape == (2, 3, wanted)
    for cell in range(wanted):
        first, last = cell * length // wanted, -(-(cell + 1) * length // wanted)
        torch.testing.assert_close(pooled[..., cell], rows[..., first:last].mean(-1))


def test_resize_grid_equals_a_loop() -> None:
    grid = torch.rand(1, 3, 4, 2)
    resized = resize_grid(grid, (6, 8))
    assert resized.shape == (1, 6, 8, 2)
    for row, column in np.ndindex(6, 8):
        y, x = max((row + 0.5) / 2 - 0.5, 0), max((column + 0.5) / 2 - 0.5, 0)
        top, left = int(y), int(x)
        below, right = min(top + 1, 2), min(left + 1, 3)
        dy, dx = y - top, x - left
        wanted = (1 - dy) * ((1 - dx) * grid[0, top, left] + dx * grid[0, top, right])
        wanted = wanted + dy * ((1 - dx) * grid[0, below, left] + dx * grid[0, below, right])
        torch.testing.assert_close(resized[0, row, column], wanted)


def test_resize_to_the_same_size_changes_nothing() -> None:
    grid = torch.rand(1, 3, 4, 2)
    assert resize_grid(grid, (3, 4)) is grid

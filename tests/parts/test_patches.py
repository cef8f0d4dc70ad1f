"""Patches against numbers worked out with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.patches import patchify, pool_rows, resize_grid


def test_patchify_equals_a_loop() -> None:
    features = torch.rand(2, 3, 4, 5)
    padded = np.pad(features.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = patchify(features, 3)
    assert patches.shape == (2, 4, 5, 27)
    for image, row, column in np.ndindex(2, 4, 5):
        wanted = [
            padded[image, channel, row + i, column + j]
            for channel in range(3)
            for i in range(3)
            for j in range(3)
        ]
        np.testing.assert_array_equal(patches[image, row, column].numpy(), wanted)


def test_patch_size_one_is_the_features_themselves() -> None:
    features = torch.rand(1, 3, 4, 5)
    assert torch.equal(patchify(features, 1), features.permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [0, 2, -3])
def test_patches_without_centre_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="odd"):
        patchify(torch.rand(1, 3, 4, 4), size)


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

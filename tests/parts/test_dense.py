"""Every patch at once against one patch after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ad_bench.errors import UsageError
from ad_bench.parts.dense import dense


def test_it_equals_every_patch_alone() -> None:
    """Two poolings, patches of 17 pixels: 17 - 2 = 15, halved 7, - 3 = 4, halved 2, - 1 = 1."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 4, 4),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2),
    ).double()
    images = torch.rand(2, 3, 24, 21, dtype=torch.float64)
    found = dense(layers, 17, images)
    assert found.shape == (2, 6, 8, 5)
    for row in range(8):
        for column in range(5):
            patch = images[:, :, row : row + 17, column : column + 17]
            torch.testing.assert_close(found[:, :, row, column], layers(patch)[:, :, 0, 0])


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"dilation": 2}])
def test_other_convolutions_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="plain convolutions; got Conv2d"):
        dense(nn.Sequential(nn.Conv2d(3, 3, 3, **options)), 3, torch.rand(1, 3, 9, 9))

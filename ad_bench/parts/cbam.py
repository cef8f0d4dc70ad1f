"""The convolutional block attention module (Woo et al., ECCV 2018, arXiv:1807.06521)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError


class CBAM(nn.Module):
    """Weighs the channels by what their means and maxima say, then the cells likewise.

    The channels' weights pass a bottleneck of a `reduction`-th of them, at least one; a cell's come from a
    window of `window` x `window` cells.
    """

    def __init__(self, channels: int, reduction: int, window: int):
        if reduction < 1 or window < 1 or window % 2 == 0:
            raise UsageError(f"reduction is at least 1, window an odd width; got {reduction} and {window}")
        super().__init__()
        middle = max(1, channels // reduction)
        self.channels = nn.Sequential(
            nn.Conv2d(channels, middle, 1), nn.ReLU(), nn.Conv2d(middle, channels, 1)
        )
        self.cells = nn.Conv2d(2, 1, window, padding=window // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        mean, largest = maps.mean((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        maps = maps * (self.channels(mean) + self.channels(largest)).sigmoid()
        both = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        return maps * self.cells(both).sigmoid()

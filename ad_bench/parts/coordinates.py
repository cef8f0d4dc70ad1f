"""Coordinate attention (Hou et al., CVPR 2021, arXiv:2103.02907)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
    """Weighs every row and every column of every channel by what their means over the other axis say.

    Both kinds of means pass one bottleneck of a 32nd of the channels, at least 8.
    """

    def __init__(self, channels: int):
        super().__init__()
        middle = max(8, channels // 32)
        self.joint = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(middle, channels, 1), nn.Conv2d(middle, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        both = torch.cat([maps.mean(3, keepdim=True), maps.mean(2, keepdim=True).transpose(2, 3)], 2)
        rows, columns = self.joint(both).split(list(maps.shape[2:]), 2)
        return maps * self.columns(columns.transpose(2, 3)).sigmoid() * self.rows(rows).sigmoid()

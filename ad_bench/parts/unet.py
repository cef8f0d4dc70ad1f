"""Encoders and decoders of 3x3 convolutions with batch norm, with and without skip connections."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError


def convolved(*channels: int) -> nn.Sequential:
    """Convolution 3x3, batch norm, ReLU, from each number of channels to the next."""
    layers: list[nn.Module] = []
    for inside, outside in itertools.pairwise(channels):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Up(nn.Module):
    """Twice as large (or `size`), bilinear with aligned corners, then `convolved`."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.convolved = convolved(inside, outside)

    def forward(self, maps: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """(B, inside, h, w) -> (B, outside, 2h, 2w) or (B, outside, *size)."""
        height, width = size if size is not None else (2 * maps.shape[2], 2 * maps.shape[3])
        wide = F.interpolate(maps, size=(int(height), int(width)), mode="bilinear", align_corners=True)
        return self.convolved(wide)


class UNet(nn.Module):
    """(B, inside, H, W) -> (B, outside, H, W): down by max pooling, up again, with or without skips.

    widths: channels of the levels, the first at full size, each next one at half of the one before.
    ups: channels after each way up, from the deepest on; outs: after the two convolutions that follow it,
    which with `skips` see the encoder's level of that size too.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        widths: Sequence[int],
        ups: Sequence[int],
        outs: Sequence[int],
        skips: bool,
    ):
        if not len(widths) - 1 == len(ups) == len(outs):
            raise UsageError(f"{len(widths)} widths need {len(widths) - 1} ups and outs; got {ups}, {outs}")
        super().__init__()
        self.skips = skips
        before = [inside, *widths[:-1]]
        self.down = nn.ModuleList(convolved(one, two, two) for one, two in zip(before, widths, strict=True))
        self.wider, self.pair = nn.ModuleList(), nn.ModuleList()
        now = widths[-1]
        for skip, wide, out in zip(reversed(widths[:-1]), ups, outs, strict=True):
            joined = wide + skip if skips else wide
            self.wider.append(Up(now, wide))
            self.pair.append(convolved(joined, wide, out))
            now = out
        self.last = nn.Conv2d(now, outside, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """No activation at the end. H and W from 2^(levels - 1) on; odd halves are rounded down."""
        levels: list[Tensor] = []
        for level in self.down:
            maps = level(F.max_pool2d(maps, 2) if levels else maps)
            levels.append(maps)
        for finer, wider, pair in zip(reversed(levels[:-1]), self.wider, self.pair, strict=True):
            maps = wider(maps, finer.shape[-2:])
            maps = pair(torch.cat([maps, finer], 1) if self.skips else maps)
        return self.last(maps)

"""The U-Net of diffusion models: told the time, with attention at its coarse levels.

Dhariwal & Nichol, Diffusion models beat GANs on image synthesis, NeurIPS 2021 (openai/guided-diffusion),
in the form of Julian-Wyatt/AnoDDPM at 3052f04 (UNet.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError


class Denoiser(nn.Module):
    """(B, channels, H, W) and (B,) times -> the noise in them, (B, channels, H, W).

    multipliers: of `base` channels for each level, every next one at half of the one before. attention: the
    levels that have it, 0 the full size. blocks: residual ones of a level on the way down, one more on the
    way up. groups: of the norms; they divide `base`.
    """

    def __init__(
        self,
        base: int,
        multipliers: Sequence[int],
        attention: Sequence[int],
        heads: int,
        blocks: int,
        groups: int,
        dropout: float,
        channels: int,
    ):
        if base % groups:
            raise UsageError(f"base is a multiple of groups; got {base} and {groups}")
        if base % 2 or any(base * one % heads for one in multipliers):
            raise UsageError(
                f"base is even and a level's channels a multiple of heads; got {base} and {heads}"
            )
        super().__init__()
        self.base, self.stride = base, 2 ** (len(multipliers) - 1)
        widths, told = [base * one for one in multipliers], 4 * base

        def residual(inside: int, outside: int, scale: float = 1) -> Residual:
            return Residual(inside, outside, told, groups, dropout, scale)

        def block(inside: int, level: int) -> Told:
            layers: list[nn.Module] = [residual(inside, widths[level])]
            if level in attention:
                layers.append(Attention(widths[level], heads, groups))
            return Told(layers)

        self.told = nn.Sequential(nn.Linear(base, told), nn.SiLU(), nn.Linear(told, told))
        self.first = nn.Conv2d(channels, base, 3, padding=1)
        now, kept = base, [base]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(block(now, level))
                now = width
                kept.append(now)
            if level + 1 < len(widths):
                self.down.append(Told([residual(now, now, 0.5)]))
                kept.append(now)
        self.middle = Told([residual(now, now), Attention(now, heads, groups), residual(now, now)])
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for number in range(blocks + 1):
                layers = block(now + kept.pop(), level)
                now = width
                if level and number == blocks:
                    layers.append(residual(now, now, 2))
                self.up.append(layers)
        self.last = nn.Sequential(
            nn.GroupNorm(groups, now), nn.SiLU(), zeroed(nn.Conv2d(now, channels, 3, padding=1))
        )

    def forward(self, maps: Tensor, times: Tensor) -> Tensor:
        """H and W are multiples of `stride`."""
        told = self.told(waves(times.to(maps), self.base))
        maps = self.first(maps)
        levels = [maps]
        for layers in self.down:
            maps = layers(maps, told)
            levels.append(maps)
        maps = self.middle(maps, told)
        for layers in self.up:
            maps = layers(torch.cat([maps, levels.pop()], 1), told)
        return self.last(maps)


class Told(nn.ModuleList):
    """Layers one after the other, each told the time."""

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """(B, C, h, w) and (B, T) -> what the last layer gives."""
        for layer in self:
            maps = layer(maps, told)
        return maps


class Residual(nn.Module):
    """Two convolutions beside a shortcut, the time added between them; `scale` is 1, or halves or doubles."""

    def __init__(self, inside: int, outside: int, told: int, groups: int, dropout: float, scale: float):
        super().__init__()
        self.scale = scale
        self.one = nn.Sequential(nn.GroupNorm(groups, inside), nn.SiLU())
        self.convolved = nn.Conv2d(inside, outside, 3, padding=1)
        self.told = nn.Sequential(nn.SiLU(), nn.Linear(told, outside))
        self.two = nn.Sequential(
            nn.GroupNorm(groups, outside),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(outside, outside, 3, padding=1)),
        )
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """(B, inside, h, w) and (B, T) -> (B, outside, h * scale, w * scale)."""
        inner = self.convolved(self.scaled(self.one(maps))) + self.told(told)[..., None, None]
        return self.shortcut(self.scaled(maps)) + self.two(inner)

    def scaled(self, maps: Tensor) -> Tensor:
        """Means of 2x2 pixels, or each pixel four times."""
        if self.scale == 1:
            return maps
        return (
            F.avg_pool2d(maps, 2) if self.scale < 1 else F.interpolate(maps, scale_factor=2.0, mode="nearest")
        )


class Attention(nn.Module):
    """Every pixel looks at every other; what it finds is added to it."""

    def __init__(self, width: int, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, width)
        self.asked = nn.Conv1d(width, 3 * width, 1)  # head by head: query, key, value
        self.found = zeroed(nn.Conv1d(width, width, 1))

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape; the time is not used."""
        pixels = maps.flatten(2)
        asked = self.asked(self.norm(pixels)).unflatten(1, (self.heads, 3, -1)).transpose(3, 4)
        found = F.scaled_dot_product_attention(*asked.unbind(2)).transpose(2, 3).flatten(1, 2)
        return maps + self.found(found).view(maps.shape)


def waves(times: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): sines, then cosines, of periods from 2 pi to almost 2 pi 10000."""
    half = width // 2
    rates = torch.exp(-math.log(10000) / half * torch.arange(half, device=times.device, dtype=times.dtype))
    angles = times[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def zeroed(layer: nn.Conv1d | nn.Conv2d) -> nn.Module:
    """The layer with weights of 0: what it ends adds nothing at first."""
    for one in layer.parameters():
        nn.init.zeros_(one)
    return layer

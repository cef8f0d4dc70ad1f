"""A layer that turns and stretches feature maps as it sees fit (Jaderberg et al., NeurIPS 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialTransformer(nn.Module):
    """(B, C, h, w) -> the maps turned and stretched, and the (B, 2, 3) that did it: an angle and two scales.

    A small network looks at the maps and says by how much; it starts with not at all. What it sees is pooled
    to `grid` x `grid` cells; where that is a quarter of the maps' size, rounded up, nothing is pooled.
    """

    def __init__(self, channels: int, grid: int):
        super().__init__()
        self.look = nn.Sequential(*_shrink(channels, 64), *_shrink(64, 16), nn.AdaptiveAvgPool2d(grid))
        self.decide = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * grid * grid, 1024), nn.ReLU(inplace=True), nn.Linear(1024, 3)
        )
        last = self.decide[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0.0, 1.0, 1.0]))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        theta = rotation_scale(*self.decide(self.look(maps)).unbind(1))
        return warp(maps, theta), theta


def _shrink(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]


def rotation_scale(angle: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """(B,) each -> (B, 2, 3): [[across cos, -sin, 0], [sin, down cos, 0]], from output to input."""
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [torch.stack([cos * across, -sin, none], 1), torch.stack([sin, cos * down, none], 1)]
    return torch.stack(rows, 1)


def warp(maps: Tensor, theta: Tensor) -> Tensor:
    """(B, C, h, w) seen through (B, 2, 3), in units of half the map; bilinear, mirrored at the edges."""
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)


def align(
    stages: Iterable[Callable[[Tensor], Tensor]],
    transformers: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]],
    maps: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """Each stage's maps (B, C, h, w), transformed, which is what the next stage sees; each (B, 2, 3)."""
    levels, thetas = [], []
    for stage, transformer in zip(stages, transformers, strict=True):
        maps, theta = transformer(stage(maps))
        levels.append(maps)
        thetas.append(theta)
    return levels, thetas


def brought_back(maps: Tensor, thetas: Sequence[Tensor]) -> Tensor:
    """(B, C, h, w), after the transformations (B, 2, 3) one by one -> where it was before. No gradient."""
    maps = maps.detach()
    for theta in reversed(thetas):
        maps = warp(maps, inverse(theta.detach()))
    return maps


def inverse(theta: Tensor) -> Tensor:
    """(B, 2, 3) -> the (B, 2, 3) that undoes it."""
    linear = torch.linalg.inv(theta[:, :, :2])
    return torch.cat([linear, -linear @ theta[:, :, 2:]], 2)

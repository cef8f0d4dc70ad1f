"""Reverse distillation's two networks: levels squeezed into one embedding, and levels restored from it.

Deng & Li, CVPR 2022, arXiv:2201.10703, for any three levels whose sizes halve. Convolutions are drawn as
torchvision draws its ResNets, transposed ones as torch does: so does the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError

Size = Literal["halve", "keep", "double"]


def conv(size: Size, inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution without bias and its norm; one that doubles the size is a transposed one of 2x2."""
    layer: nn.Conv2d | nn.ConvTranspose2d
    if size == "double":
        layer = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    else:
        stride = 2 if size == "halve" else 1
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return [layer, nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """A residual block of ResNet: basic (two 3x3) where `bottleneck` is None, else 1x1, 3x3, 1x1.

    bottleneck: the inner channels as a share of `outputs`. The shortcut is the identity where shapes allow.
    """

    def __init__(self, size: Size, inputs: int, outputs: int, bottleneck: float | None):
        super().__init__()
        if bottleneck is None:
            body = [*conv(size, inputs, outputs, 3), nn.ReLU(), *conv("keep", outputs, outputs, 3)]
        else:
            inner = int(outputs * bottleneck)
            body = [*conv("keep", inputs, inner, 1), nn.ReLU(), *conv(size, inner, inner, 3), nn.ReLU()]
            body += conv("keep", inner, outputs, 1)
        self.body = nn.Sequential(*body)
        self.shortcut = nn.Sequential(
            *(conv(size, inputs, outputs, 1) if size != "keep" or inputs != outputs else ())
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h', w'), not negative."""
        return torch.relu(self.body(maps) + self.shortcut(maps))


def stage(size: Size, inputs: int, outputs: int, blocks: int, bottleneck: float | None) -> nn.Sequential:
    """Several blocks; the first changes size and channels."""
    first = Block(size, inputs, outputs, bottleneck)
    return nn.Sequential(first, *(Block("keep", outputs, outputs, bottleneck) for _ in range(1, blocks)))


class OneClassEmbedding(nn.Module):
    """Three levels (B, C1, h, w), (B, C2, h/2, w/2), (B, C3, h/4, w/4) -> one (B, 2 C3, h/8, w/8).

    The shallower levels are brought to the deepest one's shape (multi-scale fusion), then all are squeezed by
    `blocks` residual blocks (one-class embedding).
    """

    def __init__(self, channels: Sequence[int], blocks: int, bottleneck: float | None):
        super().__init__()
        one, two, three = channels
        self.squeeze = stage("halve", 3 * three, 2 * three, blocks, bottleneck)
        self.first = nn.Sequential(
            *conv("halve", one, two, 3), nn.ReLU(), *conv("halve", two, three, 3), nn.ReLU()
        )
        self.second = nn.Sequential(*conv("halve", two, three, 3), nn.ReLU())

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The embedding of the levels."""
        one, two, three = levels
        embedded: Tensor = self.squeeze(torch.cat([self.first(one), self.second(two), three], 1))
        return embedded


class ReverseDecoder(nn.Module):
    """(B, 2 C3, h/8, w/8) -> three levels (B, C1, h, w), (B, C2, h/2, w/2), (B, C3, h/4, w/4).

    The network of the levels mirrored: it doubles where that halves. blocks: of each stage, deepest first.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], bottleneck: float | None):
        super().__init__()
        if len(blocks) != len(channels) or min(blocks) < 1:
            raise UsageError(
                f"blocks are {len(channels)} numbers, one or more for each level; got {list(blocks)}"
            )
        widths = [2 * channels[-1], *reversed(channels)]
        self.stages = nn.ModuleList(
            stage("double", inputs, outputs, count, bottleneck)
            for inputs, outputs, count in zip(widths, widths[1:], blocks, strict=False)
        )

    def forward(self, embedded: Tensor) -> list[Tensor]:
        """The restored levels, the finest first."""
        levels: list[Tensor] = []
        for up in self.stages:
            embedded = up(embedded)
            levels.insert(0, embedded)
        return levels

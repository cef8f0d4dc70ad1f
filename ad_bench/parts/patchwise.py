"""Networks of patches: vectors from levels of a pretrained network, and where neighbours lie, told from two.

As in Patch SVDD (Yi and Yoon, ACCV 2020, arXiv:2006.16067) and, on pretrained networks, MSPB (Tsai et al.,
WACV 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts import windows
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.finetuned import Finetuned


class PatchEncoders(nn.Module):
    """For each layer of the backbone a head that turns patches of one of `sizes` into vectors within 1.

    The network is trained on and all sizes share it. kernels: of each head's unpadded convolutions, with
    leaky ReLUs between them and a tanh behind; widths: the channels of all but the last, which has
    `dimensions`. Images are not normalised. UsageError for kernels that leave more than one cell, or none.
    """

    def __init__(
        self,
        backbone: Backbone,
        sizes: Sequence[int],
        kernels: Sequence[Sequence[int]],
        widths: Sequence[Sequence[int]],
        dimensions: int,
    ):
        super().__init__()
        if {len(sizes), len(kernels), len(widths)} != {len(backbone.layers)}:
            raise UsageError(f"sizes, kernels and widths: one for each layer of {list(backbone.layers)}")
        self.features, self.heads, self.sizes = Finetuned(backbone), nn.ModuleList(), sizes
        each = zip(backbone.channels, backbone.strides, sizes, kernels, widths, strict=True)
        for channels, stride, size, kernel, width in each:
            cells = -(-size // stride)
            if cells != 1 + sum(kernel) - len(kernel) or len(kernel) != len(width) + 1:
                raise UsageError(
                    f"kernels={list(kernel)} with widths={list(width)} do not turn the {cells} cells that "
                    f"{size} pixels have at a stride of {stride} into one"
                )
            layers: list[nn.Module] = []
            for (inside, outside), side in zip(pairwise([channels, *width, dimensions]), kernel, strict=True):
                layers += [nn.Conv2d(inside, outside, side), nn.LeakyReLU(0.1)]
            self.heads.append(nn.Sequential(*layers[:-1], nn.Tanh()))

    def forward(self, level: int, patches: Tensor) -> Tensor:
        """(N, 3, size, size) of the `level`-th size -> (N, dimensions)."""
        for stage in self.features.stages[: level + 1]:
            patches = stage(patches)
        vectors: Tensor = self.heads[level](patches)
        return vectors.flatten(1)

    @torch.no_grad()
    def slid(self, level: int, images: Tensor, stride: int) -> Tensor:
        """(N, 3, H, W) -> (N, rows, cols, dimensions): of all patches, a row of them at a time."""
        rows = windows.grid(images, self.sizes[level], stride).unbind(1)
        return torch.stack([self(level, row.flatten(0, 1)).unflatten(0, row.shape[:2]) for row in rows], 1)


class Relation(nn.Module):
    """Vectors (N, D) twice -> logits (N, directions), from their difference, by linear layers of `widths`.

    Of the last layer's weights each column, what one hidden unit says of all directions, counts by its
    direction alone. frozen: these weights stay as they were drawn; only their bias learns.
    """

    def __init__(self, dimensions: int, widths: Sequence[int], directions: int, frozen: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in pairwise([dimensions, *widths]):
            layers += [nn.Linear(inside, outside), nn.LeakyReLU(0.1)]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(widths[-1], directions)
        nn.init.kaiming_uniform_(self.last.weight, a=math.sqrt(5))
        self.last.weight.requires_grad_(not frozen)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits of the directions from `first` to `second`."""
        weight = self.last.weight / torch.linalg.vector_norm(self.last.weight, dim=0, keepdim=True)
        return F.linear(self.layers(first - second), weight, self.last.bias)

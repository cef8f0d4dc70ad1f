"""FAPM: a small memory bank of its own for each region and level, larger where the region is hard.

Paper: Kim et al., FAPM: Fast Adaptive Patch Memory for Real-time Industrial Anomaly Detection, ICASSP 2023,
arXiv:2211.07381.
Reference: eastbrother87/FAPM_official at 5d2d2f2, Apache-2.0: scoring, with memories to download.
How the memories are made is not released, and is ours:
  1. A coreset of each region and level is chosen greedily, from a random first feature. A region is hard if
     its coreset leaves a feature farther away than the regions' coresets do on average; then it gets `harder`
     times as many features.
Scoring is that of the reference, but
  2. There are as many regions of 32 pixels as the input has room for; 7 x 7 there, for its only input.
  3. The weight of the image score comes from a softmax, which no large distance overflows.
Release bug, kept with `compat`: each coarse cell of a region counts for a row of its fine cells, where it
lies over a square of them.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.coreset import greedy_coreset
from ad_bench.parts.exact import exact_products
from ad_bench.parts.gather import gather
from ad_bench.parts.maps import upsample_and_blur


class FAPM(Method):
    """Regions of `cells` x `cells` fine cells; `neighbors` features of a region's bank count for a cell."""

    def __init__(
        self,
        backbone: Backbone,
        cells: int,
        coreset_ratio: float,
        harder: float,
        neighbors: int,
        sigma: float,
        compat: bool,
    ):
        if len(backbone.layers) != 2:
            raise UsageError(f"a fine and a coarse level are needed; got the layers {list(backbone.layers)}")
        if not 0 < coreset_ratio <= 1 or harder < 1:
            raise UsageError(
                f"coreset_ratio is a share in (0, 1], harder at least 1; got {coreset_ratio} and {harder}"
            )
        if cells < 1 or neighbors < 2:
            raise UsageError(f"cells is at least 1, neighbors at least 2; got {cells} and {neighbors}")
        super().__init__()
        self.backbone, self.cells, self.neighbors = backbone, cells, neighbors
        self.coreset_ratio, self.harder, self.sigma, self.compat = coreset_ratio, harder, sigma, compat
        self.banks = nn.ModuleList(Memory() for _ in backbone.layers)

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """A coreset of each region, of which the hard ones get more."""
        generator = run.generator("coresets")
        for level, bank in zip(gather(train, run, self.embed), self.banks, strict=True):
            level = level.flatten(1, 2)  # (N, R, cells, C)
            size = level.shape[0] * level.shape[2]
            count = max(min(self.neighbors, size), int(self.coreset_ratio * size))
            start = int(torch.randint(size, (1,), generator=generator))
            picked, left = [], []
            for region in run.track(range(level.shape[1]), text="coresets"):
                points = level[:, region].flatten(0, 1)
                chosen = points[greedy_coreset(points, min(size, round(self.harder * count)), start)]
                # the first picks of a greedy coreset are the smaller coreset
                left.append(distances(points, chosen[:count], 1).amax())
                picked.append(chosen)
            hard = torch.stack(left) > torch.stack(left).mean()
            points = torch.stack(picked)
            cast(Memory, bank).keep(points[~hard, :count], points[hard], hard)
        run.note(hard_regions=[int(cast(Memory, bank).hard.points.sum()) for bank in self.banks])

    def predict(self, inputs: Inputs) -> Prediction:
        """Fine and coarse distances added; an image scores as its worst cell, weighed by how alone it is."""
        fine, coarse = (
            cast(Memory, bank).distances(level, self.neighbors)
            for bank, level in zip(self.banks, self.embed(inputs.images), strict=True)
        )
        total = fine + self._spread(coarse)  # (B, rows, columns, cells, k)
        worst = total[..., 0].flatten(1).argmax(1)
        nearest = total.flatten(1, 3)[torch.arange(len(total), device=total.device), worst]
        scores = (1 - nearest.softmax(1).amax(1)) * nearest[:, 0]
        maps = (
            total[..., 0].unflatten(3, (self.cells, self.cells)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        )
        return Prediction(scores, upsample_and_blur(maps, inputs.size, self.sigma))

    def embed(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> both levels, averaged over 3 x 3 cells: (B, rows, columns, a region's cells, C)."""
        levels = [F.avg_pool2d(level, 3, 1, 1) for level in self.backbone(images)]
        return [cut(level, self.cells * level.shape[2] // levels[0].shape[2]) for level in levels]

    def _spread(self, coarse: Tensor) -> Tensor:
        """(B, rows, columns, coarse cells, k) -> (..., fine cells, k): of the coarse one over each."""
        if self.compat:
            return coarse.repeat_interleave(self.cells**2 // coarse.shape[3], 3)
        side = math.isqrt(coarse.shape[3])
        square = coarse.unflatten(3, (side, side))
        times = self.cells // side
        return square.repeat_interleave(times, 3).repeat_interleave(times, 4).flatten(3, 4)


class Memory(nn.Module):
    """The banks of a level's regions: those of easy regions of one size, those of hard ones of another."""

    def __init__(self) -> None:
        super().__init__()
        self.easy_points, self.hard_points, self.hard = Bank(), Bank(), Bank()

    def keep(self, easy_points: Tensor, hard_points: Tensor, hard: Tensor) -> None:
        """(R - H, n, C), (H, m, C) and which of the R regions are the H hard ones, (R,) bool."""
        self.easy_points.points, self.hard_points.points, self.hard.points = easy_points, hard_points, hard

    def distances(self, level: Tensor, neighbors: int) -> Tensor:
        """(B, rows, columns, cells, C) -> (..., k): distances to the nearest of the region's bank, rising."""
        queries, hard = level.flatten(1, 2).transpose(0, 1).flatten(1, 2), self.hard.points
        k = min(neighbors, self.easy_points.points.shape[1])
        found = level.new_empty(*queries.shape[:2], k)
        found[~hard] = distances(queries[~hard], self.easy_points.points, k)
        found[hard] = distances(queries[hard], self.hard_points.points, k)
        return found.unflatten(1, (len(level), -1)).transpose(0, 1).unflatten(1, level.shape[1:3])


def cut(maps: Tensor, side: int) -> Tensor:
    """(B, C, h, w) -> (B, h / side, w / side, side^2, C): squares of cells, those of each row by row."""
    if side < 1 or maps.shape[2] % side or maps.shape[3] % side:
        raise UsageError(
            f"a level of {maps.shape[2]} x {maps.shape[3]} cells cannot be cut into squares of {side} x "
            f"{side}: choose an input whose sides are multiples of a region's, 32 pixels as published"
        )
    squares = maps.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return squares.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


def distances(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """(..., Q, C), (..., n, C) -> (..., Q, k): distances to the k nearest of the points, rising."""
    with exact_products(queries.device):
        return torch.cdist(queries, points).topk(k, largest=False).values

"""N-pad: Gaussians of small windows of positions, and centres of all normal features, weighed together.

Paper: Jang, Hwang and Park, N-pad: Neighboring Pixel-based Industrial Anomaly Detection, CVPR workshops 2023,
arXiv:2210.08768. No code by the authors, and this follows the paper's abstract, which says that
  - the distribution at a pixel is estimated from the features of that pixel and its neighbours,
  - cluster centres of the normal features are a representative set,
  - a score comes of the Mahalanobis distance to the distributions and the Euclidean distance to the centres.
Ours is the rest:
  1. Features are those of PaDiM. A window of 1 and a weight of 0 make it PaDiM.
  2. There is a Gaussian for each window that lies within the grid, so that all are of as many features. A
     position takes the smallest distance to the Gaussians of the windows that hold it: a shift within a
     window costs nothing.
  3. The Euclidean distance is standardised: at each position its mean over the training images is taken off,
     as at an edge a larger distance to the centres is usual, and its standard deviation there brought to that
     of the Mahalanobis distance. `weight` times that is added to the Mahalanobis distance. Of three ways to
     standardise this one did best on labelled images of the embedded data and of one real category; the
     weight was not tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.channels import count_by_level, draw_channels, join_channels
from ad_bench.parts.gather import gather
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.kmeans import kmeans
from ad_bench.parts.maps import upsample_and_blur, worst_pixel
from ad_bench.parts.neighbors import nearest

BATCH = 8  # training images at a time; no result depends on it beyond rounding


class NPad(Method):
    """A Gaussian for each `window` x `window` positions; `centre_ratio` of the features as centres."""

    picked: Tensor

    def __init__(
        self,
        backbone: Backbone,
        dimensions: int,
        dimension_seed: int,
        window: int,
        eps: float,
        centre_ratio: float,
        rounds: int,
        weight: float,
        sigma: float,
    ):
        if window < 1 or rounds < 0:
            raise UsageError(f"window is at least 1 position, rounds at least 0; got {window} and {rounds}")
        if not 0 < centre_ratio <= 1 or weight < 0:
            raise UsageError(
                f"centre_ratio is a share in (0, 1], weight at least 0; got {centre_ratio} and {weight}"
            )
        super().__init__()
        self.backbone, self.window, self.sigma = backbone, window, sigma
        self.centre_ratio, self.rounds, self.weight = centre_ratio, rounds, weight
        self.register_buffer("picked", draw_channels(backbone, dimensions, dimension_seed))
        self.counts = count_by_level(self.picked, backbone.channels)
        self.gaussian, self.centres = PositionGaussian(eps), Bank()  # of h' x w' windows; (K, D)
        self.usual, self.units = Bank(), Bank()  # (h, w): mean and scale of the Euclidean distance

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """Estimate the windows' Gaussians, the centres, and how the two distances compare."""
        (table,) = gather(train, run, lambda images: [self.embed(images).permute(0, 2, 3, 1)])
        rows, parts = table.flatten(0, 2), table.permute(0, 3, 1, 2).split(BATCH)
        self.gaussian.fit_maps(maps for part in parts for _, maps in self._shifted(part))
        count = max(1, int(self.centre_ratio * len(rows)))
        drawn = torch.randperm(len(rows), generator=run.generator("centres"))[:count]
        self.centres.points = kmeans(rows, rows[drawn.to(rows.device)], self.rounds, 0.0)
        both = torch.cat([torch.stack(self.distances(part)) for part in parts], 1)
        mahalanobis, euclidean = both.std(1, correction=0)
        self.usual.points = both[1].mean(0)
        self.units.points = torch.where(euclidean > 0, mahalanobis / euclidean, 0)
        run.note(centres=count)

    def predict(self, inputs: Inputs) -> Prediction:
        """Both distances added and smoothed; an image scores as its worst position."""
        mahalanobis, euclidean = self.distances(self.embed(inputs.images))
        maps = mahalanobis + self.weight * self.units.points * (euclidean - self.usual.points)
        maps = upsample_and_blur(maps, inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w), as PaDiM's."""
        return join_channels(self.backbone(images), self.picked, self.counts, "repeat")

    def distances(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) -> (B, h, w) twice: to the nearest Gaussian whose window holds it; nearest centre."""
        smallest = maps.new_full((len(maps), *maps.shape[2:]), torch.inf)
        for (rows, columns), part in self._shifted(maps):
            place = smallest[:, rows, columns]
            torch.minimum(place, self.gaussian.distance_maps(part), out=place)
        squared, _ = nearest(maps.permute(0, 2, 3, 1).flatten(0, 2), self.centres.points)
        return smallest, squared.sqrt().view_as(smallest)

    def _shifted(self, maps: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """For each cell of a window: where it lies in all windows, and the maps there, (B, D, h', w')."""
        height, width = (side - self.window + 1 for side in maps.shape[2:])
        if min(height, width) < 1:
            raise UsageError(f"window={self.window} is larger than the grid of {list(maps.shape[2:])}")
        for row, column in product(range(self.window), repeat=2):
            where = slice(row, row + height), slice(column, column + width)
            yield where, maps[:, :, where[0], where[1]]

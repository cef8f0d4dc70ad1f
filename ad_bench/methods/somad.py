"""SOMAD: a self-organising map of the normal features, a Gaussian at each of its nodes.

Paper: Li et al., Anomaly Detection via Self-Organizing Map, ICIP 2021, arXiv:2107.09903.
Reference: ddzxlining/SOMAD at 530254e, no licence file.
Deviations from the reference:
  1. The map is as large as the first level's grid, 56 x 56 there; nodes are not rounded to six decimals.
  2. A node with one single training feature has the covariance eps I, where the reference has none (NaN).
  3. Where none of the nearest nodes owns a training feature, the nearest that does is taken; there such a
     place gets the highest distance of the whole test set.
  4. Scores are not squeezed to [0, 1] over the whole test set; no ranking metric sees the difference.
Its scores by single features and by centres are not here; Mahalanobis distances are its default.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.channels import count_by_level, draw_channels, join_channels
from ad_bench.parts.gather import gather
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample_and_blur, worst_pixel
from ad_bench.parts.neighbors import nearest
from ad_bench.parts.som import batch_som, falling


class SOMAD(Method):
    """A node for each position of the first level; `dimensions` channels are drawn as in PaDiM."""

    picked: Tensor

    def __init__(
        self,
        backbone: Backbone,
        dimensions: int,
        dimension_seed: int,
        rough_rounds: int,
        fine_rounds: int,
        nearest_nodes: int,
        eps: float,
        sigma: float,
    ):
        if rough_rounds < 1 or fine_rounds < 1 or nearest_nodes < 1:
            raise UsageError(
                "rough_rounds, fine_rounds and nearest_nodes are at least 1; "
                f"got {rough_rounds}, {fine_rounds} and {nearest_nodes}"
            )
        super().__init__()
        self.backbone, self.nearest_nodes, self.sigma = backbone, nearest_nodes, sigma
        self.rough_rounds, self.fine_rounds = rough_rounds, fine_rounds
        self.register_buffer("picked", draw_channels(backbone, dimensions, dimension_seed))
        self.counts = count_by_level(self.picked, backbone.channels)
        self.nodes, self.owned = Bank(), Bank()  # (M, D), and which of them own training features (M,)
        self.gaussian = PositionGaussian(eps)

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """Lay the map out by the mean image, train it roughly, then finely, and fit its nodes' Gaussians."""
        (features,) = gather(train, run, lambda images: [self.embed(images)])
        rows, grid = features.flatten(0, 2), cast(tuple[int, int], tuple(features.shape[1:3]))
        radii = run.track(self.radii(max(grid)), text="rounds of the map")
        self.nodes.points, owner = batch_som(rows, features.mean(0).flatten(0, 1), grid, radii)
        self.gaussian.fit_groups(rows, owner, len(self.nodes))
        self.owned.points = torch.bincount(owner, minlength=len(self.nodes)) > 0
        run.note(nodes=len(self.nodes), nodes_with_features=int(self.owned.points.sum()))

    def predict(self, inputs: Inputs) -> Prediction:
        """The smallest Mahalanobis distance to the Gaussians of the nearest nodes, smoothed."""
        features = self.embed(inputs.images)
        distance = self.distance(features.flatten(0, 2)).view(features.shape[:3])
        maps = upsample_and_blur(distance, inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, D): the drawn channels on the grid of the first level."""
        maps = join_channels(self.backbone(images), self.picked, self.counts, "corners")
        return maps.permute(0, 2, 3, 1)

    def radii(self, side: int) -> list[float]:
        """From a third of the map's side to a sixth of that, then from a twelfth to a 25th; none below 1."""
        rough, fine = max(1, math.ceil(side / 3)), max(1, side / 12)
        return [
            *falling(rough, max(1, rough / 6), self.rough_rounds),
            *falling(fine, max(1, fine / 25), self.fine_rounds),
        ]

    def distance(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N,): of the nearest nodes those count that own training features."""
        _, node = nearest(rows, self.nodes.points, self.nearest_nodes)
        owned = self.owned.points
        found = self.gaussian.to_groups(rows, node).masked_fill(~owned[node], torch.inf).amin(1)
        lost = found.isinf().nonzero()[:, 0]
        if len(lost):
            names = owned.nonzero()[:, 0]
            _, index = nearest(rows[lost], self.nodes.points[names])
            found[lost] = self.gaussian.to_groups(rows[lost], names[index])[:, 0]
        return found

"""Semi-orthogonal embedding: a Gaussian at every position, of all channels along a few random directions.

Paper: Kim et al., Semi-orthogonal Embedding for Efficient Unsupervised Anomaly Segmentation, 2021,
arXiv:2105.14737.
Reference: jnhwkim/orthoad at c7eff17, GPL-3.0 (run for the fixture, not copied).
Deviations from the reference:
  1. Each level is projected before it is replicated, means and covariances are streamed over batches, and a
     Cholesky factor is inverted instead of the covariance: equal up to rounding.
  2. The directions come from the run's seed, one draw for all categories; there from torch's after 1111.
  3. All training images count. There every tenth is held back for a validation that nothing uses.
  4. Images are resized once, to 256; there to 320 and from that to 256.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.channels import check_dimensions
from ad_bench.parts.exact import exact_products
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample_and_blur, worst_pixel


class SemiOrthogonal(Method):
    """All C channels along `dimensions` orthonormal directions W (C, k): W^T W = I (Sec. 3)."""

    projection: Tensor

    def __init__(self, backbone: Backbone, dimensions: int, eps: float, sigma: float):
        super().__init__()
        total = check_dimensions(backbone, dimensions)
        self.backbone, self.sigma = backbone, sigma
        self.gaussian = PositionGaussian(eps, correction=0)
        self.register_buffer("projection", nn.init.orthogonal_(torch.empty(total, dimensions)))

    def fit(self, train: TrainSet, run: Run) -> None:
        """Estimate mean and covariance at every position."""
        batches = run.track(train.batches(), text="features")
        self.gaussian.fit_maps(self.embed(batch.images) for batch in batches)

    def predict(self, inputs: Inputs) -> Prediction:
        """Mahalanobis distance at every position, smoothed; an image scores as its worst one."""
        maps = self.gaussian.distance_maps(self.embed(inputs.images))
        maps = upsample_and_blur(maps, inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, k, h, w): the levels, replicated to the first's grid and joined, times W."""
        levels = self.backbone(images)
        size = levels[0].shape[-2:]
        parts = []
        for level, weight in zip(levels, self.projection.split(self.backbone.channels), strict=True):
            with exact_products(level.device):  # as the covariance of what comes out
                maps = (level.permute(0, 2, 3, 1) @ weight).permute(0, 3, 1, 2)
            parts.append(maps if maps.shape[2:] == size else F.interpolate(maps, size=size, mode="nearest"))
        return torch.stack(parts).sum(0)

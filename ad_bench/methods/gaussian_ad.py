"""Gaussian AD: one Gaussian of each level's average feature; far from it is anomalous.

Paper: Rippel, Mertens, Merhof, Modeling the Distribution of Normal Data in Pre-Trained Deep Features for
Anomaly Detection, ICPR 2020, arXiv:2005.14140. The directions `main` and `rest` are its PCA and NPCA.
Reference: ORippler/gaussian-ad-mvtec at bc10bd7, AGPL-3.0 (run for the fixture, not copied).
Deviations from the reference:
  1. All training images are used; there each figure is the mean of five fits, with four fifths of them each.
  2. `rest` keeps only directions in which the training images vary. Where they are fewer than the channels,
     the reference keeps one more, of variance 0, which is whatever its linear algebra says. And it begins
     with the very first direction where that alone holds `variance`; the reference then keeps the last alone.
  3. Strided convolutions are padded for the size that they see, as TensorFlow does; the library that the
     reference pins, efficientnet_pytorch 0.6.3, pads all as for the input. 95 cells show it.
  4. From one single image the covariance is eps I, where the reference has none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.gather import gather
from ad_bench.parts.shrunk import ShrunkGaussian

DIRECTIONS = ("all", "main", "rest")


class GaussianAD(Method):
    """A Gaussian for each level, of all directions, or of those before or after `variance` is reached."""

    def __init__(self, backbone: Backbone, directions: str, variance: float, eps: float):
        if directions not in DIRECTIONS:
            raise UsageError(f"directions is one of {', '.join(DIRECTIONS)}; got {directions!r}")
        if not 0 < variance < 1:
            raise UsageError(f"variance is a share of all variance, between 0 and 1; got {variance}")
        super().__init__()
        self.backbone, self.directions, self.variance = backbone, directions, variance
        self.gaussians = nn.ModuleList(ShrunkGaussian(eps) for _ in backbone.channels)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Estimate mean and covariance of every level."""
        for gaussian, rows in zip(self.gaussians, gather(train, run, self.embed), strict=True):
            gaussian.fit(rows, self.basis(rows))  # type: ignore[operator]

    def predict(self, inputs: Inputs) -> Prediction:
        """The mean over the levels of the Mahalanobis distance; there is no map."""
        levels = zip(self.gaussians, self.embed(inputs.images), strict=True)
        distances = [gaussian.mahalanobis(rows) for gaussian, rows in levels]  # type: ignore[operator]
        return Prediction(torch.stack(distances).mean(0), None)

    def embed(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> for each level the mean over its positions (B, C)."""
        return [level.mean((2, 3)) for level in self.backbone(images)]

    def basis(self, rows: Tensor) -> Tensor | None:
        """(N, C) -> the directions (k, C) that count, as orthonormal rows; None for all of the space."""
        if self.directions == "all" or len(rows) == 1:
            return None
        centred = rows.double() - rows.double().mean(0)
        _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
        axes = axes[spread > spread[0] * torch.finfo(spread.dtype).eps * max(rows.shape)]
        if not len(axes):  # all images are the same
            return None
        share = spread.square().cumsum(0) / spread.square().sum()
        last = int((share > self.variance).int().argmax())  # the one with which `variance` is reached
        return (axes[: last + 1] if self.directions == "main" else axes[max(last - 1, 0) :]).to(rows)

"""PaDiM: one Gaussian of pretrained features at every position, scored by the Mahalanobis distance.

Paper: Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization,
ICPR workshops 2021, arXiv:2011.08785. No code by the authors. The widely used reading, marked [R] here and in
the YAML, is xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master at 616004b, Apache-2.0.
Deviations from [R]:
  1. Means and covariances are streamed over batches, a Cholesky factor is inverted instead of the covariance,
     and the drawn channels are sorted: equal up to rounding.
  2. Scores are not squeezed to [0, 1] over the whole test set; no ranking metric sees the difference.
  3. From one single image the covariance is eps I, where [R] has none (NaN).
"""

from __future__ import annotations

from torch import Tensor

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.channels import count_by_level, draw_channels, join_channels
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample_and_blur, worst_pixel


class PaDiM(Method):
    """`dimensions` random channels of all levels, drawn by `dimension_seed`: the same for all categories."""

    picked: Tensor

    def __init__(self, backbone: Backbone, dimensions: int, dimension_seed: int, eps: float, sigma: float):
        super().__init__()
        self.backbone, self.sigma = backbone, sigma
        self.gaussian = PositionGaussian(eps)
        self.register_buffer("picked", draw_channels(backbone, dimensions, dimension_seed))
        self.counts = count_by_level(self.picked, backbone.channels)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Estimate mean and covariance at every position (Sec. III-B)."""
        batches = run.track(train.batches(), text="features")
        self.gaussian.fit_maps(self.embed(batch.images) for batch in batches)

    def predict(self, inputs: Inputs) -> Prediction:
        """Mahalanobis distance at every position, smoothed; an image scores as its worst one (Sec. III-C)."""
        maps = self.gaussian.distance_maps(self.embed(inputs.images))
        maps = upsample_and_blur(maps, inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dimensions, h, w): deeper levels replicated to the first's grid (III-A)."""
        return join_channels(self.backbone(images), self.picked, self.counts, "repeat")

"""PaDiM: one Gaussian of pretrained features at every position, scored by the Mahalanobis distance.

Paper: Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization,
ICPR workshops 2021, arXiv:2011.08785. No code by the authors. The widely used reading, marked [R] here and in
the YAML, is xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master at 616004b, Apache-2.0.
Deviations from [R]:
  1. Means and covariances are streamed over batches, inverses are Cholesky factors: equal up to rounding.
  2. Scores are not squeezed to [0, 1] over the whole test set; no ranking metric sees the difference.
  3. From one single image the covariance is eps I, where [R] has none (NaN).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import gaussian_blur, upsample, worst_pixel


class PaDiM(Method):
    """`dimensions` random channels of all levels, drawn by `dimension_seed`: the same for all categories."""

    picked: Tensor

    def __init__(self, backbone: Backbone, dimensions: int, dimension_seed: int, eps: float, sigma: float):
        super().__init__()
        total = sum(backbone.channels)
        if not 1 <= dimensions <= total:
            raise UsageError(
                f"dimensions={dimensions}: '{backbone.name}' has {total} channels in its layers "
                f"{list(backbone.layers)}; take from 1 to {total}"
            )
        self.backbone, self.sigma = backbone, sigma
        self.gaussian = PositionGaussian(eps)
        # Python's generator, as in [R]: seed 1024 gives the very channels of its published figures.
        picked = random.Random(dimension_seed).sample(range(total), dimensions)
        self.register_buffer("picked", torch.tensor(picked))

    def fit(self, train: TrainSet, run: Run) -> None:
        """Estimate mean and covariance at every position (Sec. III-B)."""

        def features() -> Iterator[Tensor]:
            for batch in run.track(train.batches(), text="features"):
                yield self.embed(batch.images).flatten(2).transpose(1, 2)

        self.gaussian.fit(features())

    def predict(self, inputs: Inputs) -> Prediction:
        """Mahalanobis distance at every position, smoothed; an image scores as its worst one (Sec. III-C)."""
        features = self.embed(inputs.images)
        distance = self.gaussian.mahalanobis(features.flatten(2).transpose(1, 2))
        maps = distance.reshape(-1, *features.shape[-2:])
        size = cast(tuple[int, int], tuple(inputs.images.shape[-2:]))
        maps = gaussian_blur(upsample(maps, size), self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dimensions, h, w): deeper levels replicated to the first's grid (III-A)."""
        first, *deeper = self.backbone(images)
        levels = [first] + [F.interpolate(level, size=first.shape[-2:], mode="nearest") for level in deeper]
        return torch.cat(levels, 1)[:, self.picked]

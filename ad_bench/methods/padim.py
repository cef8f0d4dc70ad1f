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

import random
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample_and_blur, worst_pixel


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
        # Sorted, those of a level lie together; no distance depends on their order.
        picked = sorted(random.Random(dimension_seed).sample(range(total), dimensions))
        self.register_buffer("picked", torch.tensor(picked))
        self.starts = [0, *accumulate(backbone.channels)][:-1]  # the first channel of each level
        self.splits = [bisect_left(picked, start) for start in self.starts[1:]]  # and where it is in `picked`

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
        maps = upsample_and_blur(maps, size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dimensions, h, w): deeper levels replicated to the first's grid (III-A)."""
        levels = self.backbone(images)
        size = levels[0].shape[-2:]
        found = []
        for level, channels, start in zip(
            levels, self.picked.tensor_split(self.splits), self.starts, strict=True
        ):
            if len(channels):  # picked before they are replicated, in one go from channels-last memory
                rows = level.permute(0, 2, 3, 1).flatten(0, 2).index_select(1, channels - start)
                maps = rows.unflatten(0, (len(level), *level.shape[2:])).permute(0, 3, 1, 2)
                found.append(
                    maps if maps.shape[2:] == size else F.interpolate(maps, size=size, mode="nearest")
                )
        return torch.cat(found, 1)

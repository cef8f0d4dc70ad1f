"""RSTDN: a network that saw made defects cleans the maps of two student-teacher pairs.

Paper: Yamada et al., Reconstructed Student-Teacher and Discriminative Networks for Anomaly Detection, IROS
2022, arXiv:2210.07548. The authors published no code, and the paper was not at hand: what is known of it are
two pairs as in RSTPM, and a discriminative network that is trained on their maps of images with pseudo
anomalies, cleans the maps and gives the score. Ours is the rest:
  1. The pairs, as in our RSTPM (parts/pairs.py); they are frozen before the discriminative network learns.
  2. Pseudo anomalies as in DRAEM: textures inside of noise masks; half of the images stay normal.
  3. A U-Net sees the six distances at the size of the finest level; its loss is the focal one and the
     absolute error, as in a public sketch of the method; an image scores as its worst pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.defects import TextureDefects
from ad_bench.parts.losses import focal
from ad_bench.parts.maps import upsample, worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.pairs import Pairs
from ad_bench.parts.unet import UNet


class RSTDN(Method):
    """Two frozen teachers, a student of each, and a U-Net on their distances.

    base: channels of the U-Net at full size. The recipe is the U-Net's; the students' is that of `pairs`.
    """

    def __init__(
        self,
        pairs: Pairs,
        base: int,
        defects: TextureDefects,
        absolute: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        super().__init__()
        self.pairs = pairs
        halves = [4 * base, 2 * base, base]
        self.cleaner = UNet(
            2 * len(pairs.first.layers), 2, [*halves[::-1], 8 * base], halves, halves, skips=True
        )
        self.defects, self.absolute = defects, absolute
        self.recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train both students, then, on their maps of spoilt images, the network that cleans them."""
        run.note(textures=str(self.defects.textures))
        generator = run.generator("anomalies")
        self.pairs.learn(train, run)
        self.pairs.eval()

        def loss(batch: Batch) -> Tensor:
            made = [self.defects.spoil(image, generator) for image in batch.images]
            images, masks = (torch.stack(column) for column in zip(*made, strict=True))
            return self.loss(images, masks)

        optimize(loss, self.cleaner.parameters(), train, run, **self.recipe)

    def predict(self, inputs: Inputs) -> Prediction:
        """The probability of a defect at every pixel; an image scores as its worst pixel."""
        maps = upsample(self.cleaned(inputs.images)[:, 1], inputs.size)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """Images and masks (B, H, W) -> the focal loss, and `absolute` times the mean absolute error."""
        probability = self.cleaned(images)
        target = F.adaptive_max_pool2d(masks[:, None].to(images), probability.shape[-2:])[:, 0]
        return focal(probability, target) + self.absolute * (probability[:, 1] - target).abs().mean()

    def cleaned(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, h, w) of the finest level: the probabilities of normal and defect."""
        with torch.no_grad():
            levels = self.pairs(images)
            size = cast(tuple[int, int], tuple(levels[0].shape[-2:]))
            distances = torch.stack([upsample(level, size) for level in levels], 1)
        return self.cleaner(distances).softmax(1)

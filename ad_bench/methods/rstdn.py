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

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.blend import blend
from ad_bench.parts.chance import happens, uniform
from ad_bench.parts.distort import distorted
from ad_bench.parts.losses import focal
from ad_bench.parts.maps import upsample, worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.pairs import Optimizers, Pairs
from ad_bench.parts.perlin import PerlinMasks
from ad_bench.parts.selection import hold_out
from ad_bench.parts.textures import Textures
from ad_bench.parts.unet import UNet


class RSTDN(Method):
    """Two frozen teachers, a student of each, and a U-Net on their distances.

    base: channels of the U-Net at full size. textures: None or a folder, see `Textures`.
    """

    def __init__(
        self,
        first: Backbone,
        second: Backbone,
        bottleneck: float | None,
        validation: float,
        epochs: int,
        batch_size: int,
        optimizer: Optimizers,
        rebuilding: Optimizers,
        base: int,
        textures: str | None,
        distortions: int,
        anomalous: float,
        masks: PerlinMasks,
        opacity: tuple[float, float],
        absolute: float,
        cleaning_epochs: int,
        cleaning_batch: int,
        cleaning: Optimizers,
    ):
        super().__init__()
        self.pairs, self.validation = Pairs(first, second, bottleneck), validation
        self.recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
        self.recipe |= {"optimizer": optimizer, "rebuilding": rebuilding}
        halves = [4 * base, 2 * base, base]
        self.cleaner = UNet(2 * len(first.layers), 2, [*halves[::-1], 8 * base], halves, halves, skips=True)
        self.textures, self.distortions, self.anomalous = Textures(textures), distortions, anomalous
        self.masks, self.opacity, self.absolute = masks, opacity, absolute
        self.last: dict[str, Any] = {"epochs": cleaning_epochs, "batch_size": cleaning_batch}
        self.last |= {"optimizer": cleaning}

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train both students, then, on their maps of spoilt images, the network that cleans them."""
        run.note(textures=str(self.textures))
        generator = run.generator("anomalies")
        seen, held = hold_out(train, self.validation, run.generator("validation"))
        self.pairs.learn(seen, held, run, **self.recipe)
        self.pairs.eval()

        def loss(batch: Batch) -> Tensor:
            made = [self.spoil(image, generator) for image in batch.images]
            images, masks = (torch.stack(column) for column in zip(*made, strict=True))
            return self.loss(images, masks)

        optimize(loss, self.cleaner.parameters(), train, run, **self.last)

    def predict(self, inputs: Inputs) -> Prediction:
        """The probability of a defect at every pixel; an image scores as its worst pixel."""
        size = cast(tuple[int, int], tuple(inputs.images.shape[-2:]))
        maps = upsample(self.cleaned(inputs.images)[:, 1], size)
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

    def spoil(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One image -> it with a defect, or as it is, and the mask (H, W) bool."""
        size = (image.shape[1], image.shape[2])
        if not happens(generator, self.anomalous):
            return image, torch.zeros(size, dtype=torch.bool, device=image.device)
        texture = distorted(self.textures.draw(size, generator), self.distortions, generator)
        mask = self.masks.draw(size, generator).to(image.device)
        return blend(image, texture.to(image.device), mask, uniform(generator, *self.opacity)), mask

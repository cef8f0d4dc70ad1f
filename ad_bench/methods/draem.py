"""DRAEM: one network restores images that were spoilt on purpose, another sees both and finds where.

Paper: Zavrtanik et al., DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
Detection, ICCV 2021, arXiv:2108.07610. Reference: VitjanZ/DRAEM at 2dbf673, MIT.
Deviations from the reference:
  1. An epoch is one shuffled pass; there each of its images is drawn from all, with replacement.
  2. Without a folder of textures (there: DTD) they are made; the record says which it was.
  3. The ten distortions of a texture are torchvision's or our own (parts/distort.py), there imgaug's.
  4. SSIM's range of values is 1; there it becomes 2 while a restored pixel is below -0.5.
  5. Images are RGB, there BGR: networks that start from random weights cannot tell.
  6. The focal loss clamps probabilities to [1e-5, 1 - 1e-5]; there the labels are smoothed by as much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.chance import happens, uniform
from ad_bench.parts.defects import TextureDefects
from ad_bench.parts.distort import rotate
from ad_bench.parts.losses import focal
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.similarity import ssim
from ad_bench.parts.unet import UNet


class DRAEM(Method):
    """A reconstructive network without skips, then a discriminative U-Net; both from random weights."""

    def __init__(
        self,
        base: int,
        base_discriminative: int,
        turned: float,
        rotation: float,
        defects: TextureDefects,
        window: int,
        epochs: int,
        batch_size: int,
        milestones: tuple[float, float],
        decay: float,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base, 8 * base]
        halved = [4 * base, 2 * base, base, base]
        self.reconstructive = UNet(3, 3, widths, widths[3::-1], halved, skips=False)
        wide = base_discriminative
        widths = [wide, 2 * wide, 4 * wide, 8 * wide, 8 * wide, 8 * wide]
        ups = [8 * wide, 4 * wide, 2 * wide, wide, wide]
        self.discriminative = UNet(6, 2, widths, ups, ups, skips=True)
        self.apply(_draw)
        self.turned, self.rotation, self.defects, self.window = turned, rotation, defects, window
        self.epochs, self.batch_size, self.optimizer = epochs, batch_size, optimizer
        self.schedule = partial(
            MultiStepLR, milestones=[round(share * epochs) for share in milestones], gamma=decay
        )

    def fit(self, train: TrainSet, run: Run) -> None:
        """Both networks at once, on images of which some were spoilt (Sec. 3)."""
        generator = run.generator("anomalies")
        run.note(textures=str(self.defects.textures))

        def loss(batch: Batch) -> Tensor:
            made = [self.spoil(image, generator) for image in batch.images]
            images, spoilt, masks = (torch.stack(column) for column in zip(*made, strict=True))
            return self.loss(images, spoilt, masks)

        optimize(
            loss,
            self.parameters(),
            train,
            run,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            schedule=self.schedule,
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """The probability of a defect at every pixel; an image scores as the worst mean over a window."""
        maps = self(inputs.images)[1].softmax(1)[:, 1]
        smoothed = F.avg_pool2d(maps[:, None], self.window, stride=1, padding=self.window // 2)[:, 0]
        return Prediction(worst_pixel(smoothed), maps)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> restored images of that shape, and logits (B, 2, H, W) of normal and defect."""
        restored = self.reconstructive(images)
        return restored, self.discriminative(torch.cat([restored, images], 1))

    def loss(self, images: Tensor, spoilt: Tensor, masks: Tensor) -> Tensor:
        """Eq. 1 to 4, all weights 1: restored as the image in square and in structure, the mask found."""
        restored, logits = self(spoilt)
        unlike = F.mse_loss(restored, images) + 1 - ssim(restored, images).mean()
        return unlike + focal(logits.softmax(1), masks)

    def spoil(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One image -> itself, at times turned; that with a defect, or without; the mask (Sec. 3.3)."""
        if happens(generator, self.turned):
            image = rotate(image, uniform(generator, -self.rotation, self.rotation))
        return image, *self.defects.spoil(image, generator)


def _draw(layer: nn.Module) -> None:
    """The reference's start: weights from N(0, 0.02), those of batch norms from N(1, 0.02)."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)

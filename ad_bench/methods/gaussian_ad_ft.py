"""Gaussian AD, fine-tuned: the network is drawn towards fixed Gaussians of its own normal features.

Paper: Rippel, Chavan, Lei, Merhof, Transfer Learning Gaussian Anomaly Detection by Fine-tuning
Representations, arXiv:2108.04116. No code by the authors.
What the paper says of it: a Gaussian of each level's average feature is estimated and then held; the network
is trained on the Mahalanobis distance of normal images; images changed a little tell when it forgets. Our
readings, where it leaves a choice:
  1. The loss is the mean over the levels of the squared distance; all levels are trained together.
  2. The changed images are held-out ones with patches and scars of CutPaste, the same in every epoch. The
     epoch that tells most of them from the unchanged ones is kept, of equal ones the last; it may be the
     network before the training, where that tells them best.
  3. Batch norms keep their statistics; rates, epochs and batches are ours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.cutpaste import cut_paste, scar
from ad_bench.parts.finetuned import Finetuned
from ad_bench.parts.selection import Best, Images, hold_out
from ad_bench.parts.shrunk import ShrunkGaussian


class GaussianADFineTuned(Method):
    """A copy of the backbone that is trained on, and a Gaussian for each of its levels."""

    def __init__(
        self,
        backbone: Backbone,
        eps: float,
        validation: float,
        area: tuple[float, float],
        aspect: float,
        width: tuple[int, int],
        length: tuple[int, int],
        rotation: float,
        strength: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        super().__init__()
        self.features = Finetuned(backbone)
        self.gaussians = nn.ModuleList(ShrunkGaussian(eps) for _ in backbone.channels)
        self.validation, self.area, self.aspect, self.strength = validation, area, aspect, strength
        self.width, self.length, self.rotation = width, length, rotation
        self.epochs, self.batch_size, self.optimizer = epochs, batch_size, optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Estimate the Gaussians, then train until the changed images are told apart no better."""
        seen, held = hold_out(train, self.validation, run.generator("validation"))
        changed = self.changed(held, run.generator("changes"))
        order, best = run.generator("order"), Best(self.features, latest=True)
        self.features.eval()  # batch norms keep their statistics
        self.estimate(seen)
        if len(held):
            best.offer(self.error(held, changed), -1)
        steps = self.optimizer(list(self.features.parameters()))
        for epoch in run.epochs(self.epochs, {"optimizer": steps, "best": best}):
            self.features.eval()
            for images in seen.batches(self.batch_size, order):
                steps.zero_grad(set_to_none=True)
                run.loss(self.loss(images)).backward()
                steps.step()
            if len(held):
                best.offer(self.error(held, changed), epoch)
        best.restore()
        run.note(validation_images=len(held), chosen_epoch=best.epoch + 1 if len(held) else "last")

    def predict(self, inputs: Inputs) -> Prediction:
        """The mean over the levels of the Mahalanobis distance; there is no map."""
        return Prediction(self.squared(inputs.images).sqrt().mean(0), None)

    def loss(self, images: Tensor) -> Tensor:
        """The squared distance, mean of images and levels."""
        return self.squared(images).mean()

    def squared(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (levels, B): the squared Mahalanobis distance of each level's average."""
        levels = zip(self.gaussians, self.features(images), strict=True)
        return torch.stack([gaussian.squared(level.mean((2, 3))) for gaussian, level in levels])  # type: ignore[operator]

    @torch.no_grad()
    def estimate(self, seen: Images) -> None:
        """Fit the Gaussians to the network's features as they are now."""
        batches = [
            [level.mean((2, 3)) for level in self.features(images)]
            for images in seen.batches(self.batch_size)
        ]
        for gaussian, rows in zip(self.gaussians, zip(*batches, strict=True), strict=True):
            gaussian.fit(torch.cat(rows))  # type: ignore[operator]

    def changed(self, held: Images, generator: torch.Generator) -> Images:
        """The held-out images, with a patch and a scar in turn."""
        pixels = held.pixels.clone()
        for number, image in enumerate(held.pixels):
            whole = image.float() / 255
            if number % 2:
                whole, _ = scar(whole, generator, self.width, self.length, self.rotation, self.strength)
            else:
                whole, _ = cut_paste(whole, generator, self.area, self.aspect, self.strength)
            pixels[number] = (whole * 255).round()
        return Images(pixels, held.device)

    @torch.no_grad()
    def error(self, held: Images, changed: Images) -> float:
        """The share of pairs in which an unchanged image scores higher than a changed one: 1 - AUROC."""
        normal, broken = (
            torch.cat([self.squared(images).sqrt().mean(0) for images in some.batches(self.batch_size)])
            for some in (held, changed)
        )
        pairs = normal[:, None] - broken
        return float((pairs > 0).double().mean() + (pairs == 0).double().mean() / 2)

"""STFPM: a student network imitates a pretrained teacher at three scales, and fails to on what it never saw.

Paper: Wang et al., Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC 2021,
arXiv:2103.04257.
Reference: gdwang08/STFPM at 2598a5e, GPL-3.0 (run for the fixture, not copied).
A fifth of the normal training images is held out, and the epoch with the lowest mean of their anomaly maps is
the one that predicts: part of the published recipe, without any test image.
Deviations:
  1. From the paper: the loss is without its factor 1/2, as in the reference, to which the learning rate
     belongs.
  2. From the reference: the held-out images are drawn by the run's seed, not by scikit-learn's random_state
     0; of a single training image none is held out, and the last epoch predicts.
  3. From the reference: maps are multiplied at the size of the first level; 64 x 64 there, which is that size
     for its only input, 256 x 256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.maps import upsample, worst_pixel
from ad_bench.parts.matching import multiplied, unit_distance
from ad_bench.parts.selection import Best, Images, hold_out
from ad_bench.parts.student import Student


class STFPM(Method):
    """A frozen teacher, and a student of the same architecture that starts from random weights."""

    def __init__(
        self,
        backbone: Backbone,
        validation: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[torch.nn.Parameter]], Optimizer],
    ):
        super().__init__()
        self.backbone, self.student = backbone, Student(backbone)
        self.validation, self.epochs, self.batch_size = validation, epochs, batch_size
        self.optimizer = optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train the student on four fifths of the images; keep the epoch that the others choose."""
        seen, held = hold_out(train, self.validation, run.generator("validation"))
        order = run.generator("order")
        steps, best = self.optimizer(list(self.student.parameters())), Best(self.student)
        for epoch in run.epochs(self.epochs, {"optimizer": steps, "best": best}):
            self.student.train()
            for images in seen.batches(self.batch_size, order):
                steps.zero_grad(set_to_none=True)
                run.loss(self.loss(images)).backward()
                steps.step()
            if len(held):
                best.offer(self.error(held), epoch)
        best.restore()
        run.note(validation_images=len(held), chosen_epoch=best.epoch + 1 if len(held) else "last")

    def predict(self, inputs: Inputs) -> Prediction:
        """The product of the three maps; an image scores as its worst pixel."""
        maps = upsample(self.maps(inputs.images), inputs.size)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, images: Tensor) -> Tensor:
        """Sum over the levels of the mean distance over their positions."""
        return torch.stack([level.mean() for level in self.distances(images)]).sum()

    def maps(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w), h and w of the first level: the levels' distances multiplied."""
        return multiplied(self.distances(images))

    def distances(self, images: Tensor) -> Sequence[Tensor]:
        """Of each level (B, h, w) in [0, 4]: the squared distance of the normalised features, 2 - 2 cos."""
        with torch.no_grad():
            taught = self.backbone(images)
        return [
            unit_distance(known, learnt) for known, learnt in zip(taught, self.student(images), strict=True)
        ]

    @torch.no_grad()
    def error(self, held: Images) -> float:
        """The mean of the held-out images' anomaly maps."""
        self.student.eval()
        total = sum(float(self.maps(images).mean()) * len(images) for images in held.batches(self.batch_size))
        return total / len(held)

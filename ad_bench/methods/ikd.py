"""IKD: a student learns the teacher's hard pixels, and how alike they are among each other.

Paper: Cao et al., Informative knowledge distillation for image anomaly segmentation, Knowledge-Based Systems
248, 2022, doi 10.1016/j.knosys.2022.108846.
Reference: caoyunkang/IKD at ec8d4f9 (no licence: run for the fixture, not copied).
Deviations from the reference:
  1. Where no pixel reaches the margin the hardest is kept; there the loss is NaN.
  2. The margin is held in float32, there in Python's float64.
  3. For networks other than HRNets the YAML's `backbones` names levels of the same strides: our reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.maps import upsample, worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.student import Student


class IKD(Method):
    """A frozen teacher and a student of its architecture, compared at one cell for each `stride` pixels.

    aligned: the branches of an HRNet are joined bilinearly with aligned corners, as in the reference, not by
    repeating pixels, as its weights were trained.
    """

    margin: Tensor

    def __init__(
        self,
        backbone: Backbone,
        aligned: bool,
        stride: int,
        weights: Sequence[float],
        beta: float,
        gamma: float,
        memory: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        super().__init__()
        if len(weights) != len(backbone.layers):
            raise UsageError(
                f"weights are {len(backbone.layers)}, one for each of the layers {list(backbone.layers)}; "
                f"got {list(weights)}"
            )
        for layer in backbone.modules() if aligned else ():
            if isinstance(layer, nn.Upsample):
                layer.mode, layer.align_corners = "bilinear", True
        self.backbone, self.student = backbone, Student(backbone)
        # Drawn as torch does, as the reference's; `Student` draws as torchvision's ResNets.
        for layer in self.student.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
        self.stride, self.weights, self.beta, self.gamma, self.memory = stride, weights, beta, gamma, memory
        self.register_buffer("margin", torch.zeros(()))
        self.recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train the student."""
        optimize(self.loss, self.student.parameters(), train, run, **self.recipe)

    def predict(self, inputs: Inputs) -> Prediction:
        """The levels' distances multiplied; an image scores as its worst pixel."""
        distances = [(known - learnt).square().sum(1) for known, learnt in self.levels(inputs.images)]
        maps = upsample(torch.stack(distances).prod(0), inputs.size)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, batch: Batch) -> Tensor:
        """Of each level's hard pixels the mean distance, and gamma times how their similarities differ.

        Hard are those of at least the margin: the mean and beta standard deviations of the distances, and a
        share `memory` of the margin before: of the level before, or of the last level in the step before.
        At most 1 / (1 + beta^2) of all pixels are above the former, so that the Gram matrices stay small.
        """
        losses = []
        for known, learnt in self.levels(batch.images):
            distance = (known - learnt).square().sum(1)
            with torch.no_grad():
                fresh = distance.mean() + self.beta * distance.std()
                self.margin.mul_(self.memory).add_((1 - self.memory) * fresh)
                hard = distance >= self.margin.clamp(max=distance.max())
            taught, told = (features.permute(0, 2, 3, 1)[hard] for features in (known, learnt))
            context = (taught @ taught.T - told @ told.T).square().mean()
            losses.append(distance[hard].mean() + self.gamma * context)
        shares = [weight / sum(self.weights) for weight in self.weights]
        return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum()

    def levels(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(B, 3, H, W) -> of each level the teacher's and the student's vectors (B, C, h, w), of length 1."""
        size = [-(-side // self.stride) for side in images.shape[-2:]]
        with torch.no_grad():
            # Not by way of a run's memory of features: it cannot know how the branches are joined.
            taught = self.backbone.features(images)

        def wide(level: Tensor) -> Tensor:
            return F.normalize(F.interpolate(level, size, mode="bilinear", align_corners=True), dim=1)

        return [
            (wide(known), wide(learnt)) for known, learnt in zip(taught, self.student(images), strict=True)
        ]

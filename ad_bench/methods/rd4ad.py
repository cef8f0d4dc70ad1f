"""RD4AD: a student restores the teacher's features from a narrow embedding, which no anomaly gets through.

Paper: Deng & Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022,
arXiv:2201.10703.
Reference: hq-deng/RD4AD at 6554076, MIT.
Deviations:
  1. From the paper, as in the reference: the loss compares each level as one long vector, not position by
     position, and the student's stages have 3, 4 and 6 blocks from deep to shallow (a mirror has 6, 4, 3).
  2. From the reference: its embedding holds one more convolution with its norm, which it never uses.
  3. For backbones that are no ResNets the YAML's `backbones` gives basic blocks between the channels of their
     levels: our reading of "mirrored". Levels that do not halve from one to the next are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.maps import gaussian_blur, worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.reverse import OneClassEmbedding, ReverseDecoder
from ad_bench.parts.similarity import cosine_distance


class RD4AD(Method):
    """Frozen teacher -> one-class embedding -> student, which is the teacher mirrored; the last two learn."""

    def __init__(
        self,
        backbone: Backbone,
        blocks: Sequence[int],
        embedding_blocks: int,
        bottleneck: float | None,
        sigma: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[torch.nn.Parameter]], Optimizer],
    ):
        super().__init__()
        strides = backbone.strides
        if len(strides) != 3 or strides[1] != 2 * strides[0] or strides[2] != 2 * strides[1]:
            raise UsageError(
                f"RD4AD mirrors three levels, each half as large as the one before; '{backbone.name}' gives "
                f"strides {list(strides)} for layers {list(backbone.layers)}: choose layers such as [1, 2, 3]"
            )
        self.backbone, self.sigma = backbone, sigma
        self.embedding = OneClassEmbedding(backbone.channels, embedding_blocks, bottleneck)
        self.student = ReverseDecoder(backbone.channels, blocks, bottleneck)
        self.recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train embedding and student together."""
        cell = 2 * self.backbone.strides[-1]
        if train.size[0] % cell or train.size[1] % cell:
            raise UsageError(
                f"RD4AD halves images to cells of {cell} pixels and doubles them back: both sides are "
                f"multiples of {cell}; got {train.size[0]}x{train.size[1]}. Set dataset.input, or "
                f"method.input where the data set has none, such as method.input={{size: [256, 256]}}"
            )
        trained = [*self.student.parameters(), *self.embedding.parameters()]
        optimize(self.loss, trained, train, run, **self.recipe)

    def predict(self, inputs: Inputs) -> Prediction:
        """The levels' cosine distances added up and smoothed; an image scores as its worst pixel."""
        size = inputs.size
        total = inputs.images.new_zeros(len(inputs.images), *size)
        for known, restored in zip(*self.levels(inputs.images), strict=True):
            level = cosine_distance(known, restored)
            total += F.interpolate(level[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
        maps = gaussian_blur(total, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, batch: Batch) -> Tensor:
        """Sum over the levels of 1 - cosine between the whole maps, each flattened to one vector."""
        distances = [
            cosine_distance(known.flatten(1), restored.flatten(1)).mean()
            for known, restored in zip(*self.levels(batch.images), strict=True)
        ]
        return torch.stack(distances).sum()

    def levels(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, 3, H, W) -> the teacher's levels and the student's."""
        with torch.no_grad():
            known = self.backbone(images)
        return known, self.student(self.embedding(known))

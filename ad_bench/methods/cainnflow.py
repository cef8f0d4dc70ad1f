"""CAINNFlow: flows over feature maps whose couplings look at channels and cells with attention.

Paper: Yan et al., CAINNFlow: Convolutional block Attention modules and Invertible Neural Networks Flow for
anomaly detection and localization tasks, arXiv:2206.01992. No code by the authors.
What the paper says of it: the couplings' networks are stacked 3 x 3 convolutions in which convolutional block
attention modules alternate. Readings of ours, where it leaves a choice:
  1. All else is FastFlow (arXiv:2111.07677): norms, couplings, loss, maps, schedule.
  2. Attention follows the first convolution of every second coupling.
  3. Convolutional backbones only; its published figures are those of a vision transformer.
  4. An image scores as its worst pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.cbam import CBAM
from ad_bench.parts.flowmaps import FlowMaps
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.optimize import optimize


class CAINNFlow(Method):
    """One flow of `steps` couplings for each level; every `attend`-th of them has attention."""

    def __init__(
        self,
        backbone: Backbone,
        steps: int,
        kernel: int,
        hidden_ratio: float,
        attend: int,
        reduction: int,
        window: int,
        clamp: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if kernel < 1 or kernel % 2 == 0 or not hidden_ratio > 0 or attend < 1:
            raise UsageError(
                "kernel is an odd width, hidden_ratio above 0 and attend at least 1; "
                f"got {kernel}, {hidden_ratio}, {attend}"
            )
        super().__init__()
        self.backbone = backbone
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}

        def subnet(attends: bool, channels_in: int, channels_out: int) -> nn.Module:
            hidden = max(1, int(channels_in * hidden_ratio))
            conv = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2)
            seen = [CBAM(hidden, reduction, window)] if attends else []
            return nn.Sequential(conv(channels_in, hidden), *seen, nn.ReLU(), conv(hidden, channels_out))

        subnets = [partial(subnet, step % attend == attend - 1) for step in range(steps)]
        self.maps = FlowMaps(backbone.channels, subnets, clamp, "standard")

    def fit(self, train: TrainSet, run: Run) -> None:
        """Raise the likelihood of the normal features."""
        with torch.no_grad():
            self.maps.take_shapes(self.backbone(torch.zeros(1, 3, *train.size, device=run.device)))
        optimize(self.loss, self.parameters(), train, run, **self.recipe)  # type: ignore[arg-type]

    def loss(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of the features, up to a constant."""
        return self.maps.loss(self.backbone(batch.images))

    def predict(self, inputs: Inputs) -> Prediction:
        """Minus the likelihood of each cell, mean over levels; in [-1, 0]."""
        size = cast(tuple[int, int], tuple(inputs.images.shape[-2:]))
        anomaly = self.maps(self.backbone(inputs.images), size)
        return Prediction(worst_pixel(anomaly), anomaly)

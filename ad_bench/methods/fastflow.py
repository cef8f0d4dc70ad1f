"""FastFlow: two-dimensional normalising flows over pretrained features; what is unlikely is the defect.

Paper: Yu et al., FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows,
arXiv:2111.07677. No code by the authors. The public implementation that the fixture of our tests comes from,
marked [R] here and in the YAML, is gathierry/FastFlow at 2cf1f2f, Apache-2.0, with FrEIA at 1779d1f.
Deviations from [R]:
  1. The last incomplete batch of a pass counts; there it is dropped.
  2. Convolutional backbones only: of the paper's four, not the transformers DeiT and CaiT. The published
     pixel AUROC, 0.985, is CaiT's; the paper has 0.981 for Wide ResNet-50 and 0.972 for ResNet-18 [R].
  3. An image scores as its worst pixel; neither paper nor [R] says how it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.flow import Flow
from ad_bench.parts.maps import upsample, worst_pixel
from ad_bench.parts.optimize import optimize


class FastFlow(Method):
    """One flow of `steps` couplings for each level, their kernels taken from `kernels` in turn."""

    def __init__(
        self,
        backbone: Backbone,
        steps: int,
        kernels: Sequence[int],
        hidden_ratio: float,
        clamp: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise UsageError(f"kernels are odd widths of convolutions, such as [3, 1]; got {list(kernels)}")
        if not hidden_ratio > 0:
            raise UsageError(f"hidden_ratio is hidden channels by channels, above 0; got {hidden_ratio}")
        super().__init__()
        self.backbone = backbone
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}
        subnets = [partial(_subnet, kernels[i % len(kernels)], hidden_ratio) for i in range(steps)]
        self.norms = nn.ModuleList(CellNorm() for _ in backbone.channels)
        self.flows = nn.ModuleList(Flow(count, subnets, clamp, "hard") for count in backbone.channels)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Raise the likelihood of the normal features (Eq. 5)."""
        with torch.no_grad():
            levels = self.backbone(torch.zeros(1, 3, *train.size, device=run.device))
        for norm, level in zip(self.norms, levels, strict=True):
            cast(CellNorm, norm).take_shape(level[0])
        optimize(self.loss, self.parameters(), train, run, **self.recipe)  # type: ignore[arg-type]

    def loss(self, batch: Batch) -> Tensor:
        """Negative log-likelihood up to a constant: 0.5 |z|^2 - log det, mean of images, sum of levels."""
        likelihoods = [
            (0.5 * z.square().flatten(1).sum(1) - log_det).mean() for z, log_det in self.latents(batch.images)
        ]
        return torch.stack(likelihoods).sum()

    def predict(self, inputs: Inputs) -> Prediction:
        """Minus the likelihood exp(-0.5 |z|^2 / C) of each cell, mean over levels; in [-1, 0] (Sec. 3.3)."""
        size = cast(tuple[int, int], tuple(inputs.images.shape[-2:]))
        maps = [upsample(-torch.exp(-0.5 * z.square().mean(1)), size) for z, _ in self.latents(inputs.images)]
        anomaly = torch.stack(maps).mean(0)
        return Prediction(worst_pixel(anomaly), anomaly)

    def latents(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(B, 3, H, W) -> for each level the latent (B, C, h, w) and the log-determinant (B,)."""
        levels = zip(self.flows, self.norms, self.backbone(images), strict=True)
        return [flow(norm(level)) for flow, norm, level in levels]


class CellNorm(nn.Module):
    """LayerNorm over a whole (C, h, w), with a weight and a bias of its own for every cell and channel.

    Its shape is that of the training images' features, or of the state that is loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(0))

    def take_shape(self, features: Tensor) -> None:
        """Begin anew with the shape of `features`, unless it is that already."""
        if self.weight.shape != features.shape:
            self.weight = nn.Parameter(torch.ones_like(features))
            self.bias = nn.Parameter(torch.zeros_like(features))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w), normalised; ValueError where it is not of the trained shape."""
        if features.shape[1:] != self.weight.shape:
            raise ValueError(
                f"the features are {tuple(features.shape[1:])}, the norm is for {tuple(self.weight.shape)}: "
                "fit the method, and predict at the size it was fitted with"
            )
        return F.layer_norm(features, self.weight.shape, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}weight" in state_dict:
            self.take_shape(torch.empty_like(state_dict[f"{prefix}weight"], device=self.weight.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _subnet(kernel: int, hidden_ratio: float, channels_in: int, channels_out: int) -> nn.Module:
    hidden = max(1, int(channels_in * hidden_ratio))
    return nn.Sequential(
        nn.Conv2d(channels_in, hidden, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(hidden, channels_out, kernel, padding=kernel // 2),
    )

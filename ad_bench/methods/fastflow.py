"""FastFlow: two-dimensional normalising flows over pretrained features; what is unlikely is the defect.

Paper: Yu et al., FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows,
arXiv:2111.07677. No code by the authors. The public implementation that the fixture of our tests comes from,
marked [R] here and in the YAML, is gathierry/FastFlow at 2cf1f2f, Apache-2.0, with FrEIA at 1779d1f.
Deviations from [R]:
  1. The last incomplete batch of a pass counts; there it is dropped.
  2. Convolutional backbones only: of the paper's four, not the transformers DeiT and CaiT. The published
     pixel AUROC, 0.985, is CaiT's; the paper has 0.981 for Wide ResNet-50 and 0.972 for ResNet-18 [R].
  3. An image scores as its worst pixel; neither paper nor [R] says how it does.

With attention modules in the couplings' networks it is CAINNFlow: Yan et al., CAINNFlow: Convolutional block
Attention modules and Invertible Neural Networks Flow for anomaly detection and localization tasks,
arXiv:2206.01992. No code by the authors; the paper says that in stacked 3 x 3 convolutions such modules
alternate. Readings of ours, where it leaves a choice:
  1. Attention follows the first convolution of every second coupling; all else is FastFlow.
  2. Convolutional backbones only; its published figures are those of a vision transformer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.flowmaps import FlowMaps
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.optimize import optimize


class FastFlow(Method):
    """One flow of `steps` couplings for each level, their `kernels` and `attention` taken in turn.

    attention: channels -> the module after a coupling's first convolution, or None for no module.
    With a learnt `base` and an `Alternating` optimiser it is FastFlow with AltUB (arXiv:2210.14913).
    """

    def __init__(
        self,
        backbone: Backbone,
        steps: int,
        kernels: Sequence[int],
        hidden_ratio: float,
        attention: Sequence[Callable[[int], nn.Module] | None],
        clamp: float,
        base: str,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise UsageError(f"kernels are odd widths of convolutions, such as [3, 1]; got {list(kernels)}")
        if not hidden_ratio > 0:
            raise UsageError(f"hidden_ratio is hidden channels by channels, above 0; got {hidden_ratio}")
        if not attention:
            raise UsageError("attention is a list, taken in turn, such as [null] for none; got an empty one")
        super().__init__()
        self.backbone = backbone
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}
        turns = zip(itertools.cycle(kernels), itertools.cycle(attention))
        subnets = [
            partial(_subnet, kernel, hidden_ratio, attend)
            for kernel, attend in itertools.islice(turns, steps)
        ]
        self.maps = FlowMaps(backbone.channels, subnets, clamp, base)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Raise the likelihood of the normal features (Eq. 5)."""
        with torch.no_grad():
            self.maps.take_shapes(self.backbone(torch.zeros(1, 3, *train.size, device=run.device)))
        optimize(self.loss, self.parameters(), train, run, **self.recipe)  # type: ignore[arg-type]

    def loss(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of the features, up to a constant."""
        return self.maps.loss(self.backbone(batch.images))

    def predict(self, inputs: Inputs) -> Prediction:
        """Minus the likelihood of each cell, mean over levels; in [-1, 0] for a standard base (Sec. 3.3)."""
        anomaly = self.maps(self.backbone(inputs.images), inputs.size)
        return Prediction(worst_pixel(anomaly), anomaly)


def _subnet(
    kernel: int,
    hidden_ratio: float,
    attention: Callable[[int], nn.Module] | None,
    channels_in: int,
    channels_out: int,
) -> nn.Module:
    hidden = max(1, int(channels_in * hidden_ratio))
    seen = [attention(hidden)] if attention else []
    return nn.Sequential(
        nn.Conv2d(channels_in, hidden, kernel, padding=kernel // 2),
        *seen,
        nn.ReLU(),
        nn.Conv2d(hidden, channels_out, kernel, padding=kernel // 2),
    )

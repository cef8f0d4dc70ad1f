"""CS-Flow: one normalising flow over the feature maps of several image sizes, which hear each other.

Paper: Rudolph, Wehrbein, Rosenhahn, Wandt, Fully Convolutional Cross-Scale-Flows for Image-based Defect
Detection, WACV 2022, arXiv:2110.02855.
Reference: marco-rudolph/cs-flow at 88a13b8, MIT.
Deviations from the reference:
  1. Features are those of efficientnet_pytorch 0.6.3, the oldest that it allows; from 0.7 on the library pads
     strided convolutions as for 456 pixels, whatever it sees, which moves the features by a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.extracted import Extracted
from ad_bench.parts.glow import GlowFlow
from ad_bench.parts.maps import upsample
from ad_bench.parts.optimize import optimize
from ad_bench.parts.scales import at_scales, check_scales


class CSFlow(Method):
    """A flow with one step for each of `kernels`, the width of the convolutions in it."""

    def __init__(
        self,
        backbone: Backbone,
        scales: int,
        kernels: Sequence[int],
        hidden: int,
        clamp: float,
        epochs: int,
        batch_size: int,
        clip: float,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise UsageError(f"kernels are odd widths of convolutions, such as [3, 5]; got {list(kernels)}")
        super().__init__()
        self.backbone, self.scales = backbone, scales
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "clip": clip}
        subnets = [partial(CrossScale, scales, hidden, kernel) for kernel in kernels]
        self.flow = GlowFlow(check_scales(backbone, scales), subnets, clamp, scales=scales)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Raise the likelihood of the normal feature maps."""
        features = Extracted(train, run, lambda images: at_scales(self.backbone, images, self.scales))
        optimize(self.loss, self.parameters(), features, run, **self.recipe)  # type: ignore[arg-type]

    def loss(self, levels: Sequence[Tensor]) -> Tensor:
        """Of (B, C, h, w) at each scale: minus the mean log-likelihood by dimension, up to a constant."""
        z, log_det = self.flow(levels)
        squares, dets = together(z).square().sum(1), together(log_det).sum(1)
        return (0.5 * squares - dets).mean() / together(z).shape[1]

    def predict(self, inputs: Inputs) -> Prediction:
        """Half the mean square of z over all scales; on the map that of the finest."""
        z, _ = self.flow(at_scales(self.backbone, inputs.images, self.scales))
        return Prediction(together(z).square().mean(1) / 2, upsample(z[0].square().mean(1), inputs.size))


class CrossScale(nn.Module):
    """Two convolutions for each scale; the second hears the scales above and below too.

    (B, channels_in, h, w) of each scale, the finest first -> (B, channels_out, h, w), 0 at first: each
    scale's answer is multiplied by a number that is learnt.
    """

    def __init__(self, scales: int, hidden: int, kernel: int, channels_in: int, channels_out: int):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2)
        self.gains = nn.ParameterList(torch.zeros(1) for _ in range(scales))
        self.first = nn.ModuleList(conv(channels_in, hidden) for _ in range(scales))
        self.second = nn.ModuleList(conv(hidden, channels_out) for _ in range(scales))
        self.up = nn.ModuleList(conv(hidden, channels_out) for _ in range(scales - 1))
        self.down = nn.ModuleList(conv(hidden, channels_out, stride=2) for _ in range(scales - 1))

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """An answer for each scale."""
        heard = [F.leaky_relu(conv(one), 0.1) for conv, one in zip(self.first, maps, strict=True)]
        found = [conv(one) for conv, one in zip(self.second, heard, strict=True)]
        for finer, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            size = heard[finer].shape[-2:]
            wide = F.interpolate(heard[finer + 1], size=size, mode="bilinear", align_corners=False)
            found[finer] = found[finer] + up(wide)
            found[finer + 1] = found[finer + 1] + down(heard[finer])
        return [gain * one for gain, one in zip(self.gains, found, strict=True)]


def together(maps: Sequence[Tensor]) -> Tensor:
    """(B, ...) of each scale -> (B, all of their numbers)."""
    return torch.cat([one.flatten(1) for one in maps], 1)

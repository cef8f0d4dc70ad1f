"""MKD: a small cloner copies a network's activations; where the copy fails, the gradient says what it saw.

Paper: Salehi et al., Multiresolution Knowledge Distillation for Anomaly Detection, CVPR 2021,
arXiv:2011.11108.
Reference: rohban-lab/Knowledge_Distillation_AD at 0c574ae (no licence: run for the fixture, not copied).
Deviations from the reference:
  1. Its third way to a map, SmoothGrad, is left out: it draws new noise for each image that it judges.
  2. A gradient that is the same everywhere gives a map of zeros, there NaN.
  3. Its pixel AUROC is over anomalous images alone, from maps that are thresholded and opened at 1000 values,
     against masks that keep their fractions; ours is over all pixels of all images.
  4. For networks other than VGG the YAML's `backbones` names levels that no pooling has to follow: the cloner
     then pools up to their strides and ends there with their channels. Our reading.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError, closest
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.maps import gaussian_blur
from ad_bench.parts.optimize import optimize
from ad_bench.parts.similarity import cosine_distance

SALIENCIES = ("gradients", "guided")


class Cloner(nn.Module):
    """(B, 3, H, W) -> levels of the given channels and strides, the first on: narrow copies of VGG's stages.

    A stage holds some convolutions 3x3 without bias, `width` wide, and halves the size at its end; the last
    convolution of one that ends at a level has that level's channels. Batch norm before every ReLU but a
    stage's last. guided: no negative gradient passes a ReLU on the way back (guided backpropagation).
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], convolutions: Sequence[int], width: int
    ):
        super().__init__()
        self.wanted = [stride.bit_length() - 2 for stride in strides]  # stages: 4 is the second
        stages = self.wanted[-1] + 1
        if any(stride < 2 or stride & (stride - 1) for stride in strides):
            raise UsageError(f"the cloner halves: strides are 2, 4, 8, ...; got {list(strides)}")
        if len(convolutions) < stages or min(convolutions) < 1:
            raise UsageError(
                f"levels at strides {list(strides)} need {stages} stages of convolutions; got "
                f"{list(convolutions)}"
            )
        self.stages, self.guided, inside = nn.ModuleList(), False, 3
        ends = dict(zip(self.wanted, channels, strict=True))
        for stage, count in enumerate(convolutions[:stages]):
            widths = [inside, *[width] * (count - 1), ends.get(stage, width)]
            layers: list[nn.Module] = []
            for one, other in itertools.pairwise(widths):
                layers += [nn.Conv2d(one, other, 3, padding=1, bias=False), nn.BatchNorm2d(other), nn.ReLU()]
                nn.init.xavier_uniform_(layers[-3].weight)  # type: ignore[arg-type]
            del layers[-2]  # no norm before the pooling
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            inside = widths[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """One (B, C, h, w) for each of the levels."""
        levels = []
        for stage, layers in enumerate(self.stages):
            for layer in layers:  # type: ignore[attr-defined]
                images = layer(images)
                if self.guided and isinstance(layer, nn.ReLU) and images.requires_grad:
                    images.register_hook(lambda gradient: gradient.clamp(min=0))
            if stage in self.wanted:
                levels.append(images)
        return levels


class MKD(Method):
    """A frozen source and a cloner that learns to answer as it does, in value and in direction.

    pooled: the source's levels are halved first, as VGG's are by the pooling that follows them. normalised:
    whether the source sees images as it was trained on them, or as they are.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooled: bool,
        normalised: bool,
        convolutions: Sequence[int],
        width: int,
        values: float,
        scored: int,
        saliency: str,
        percentile: float,
        sigma: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        super().__init__()
        if not 1 <= scored <= len(backbone.layers):
            raise UsageError(f"scored is 1 to {len(backbone.layers)}, of the deepest levels; got {scored}")
        if saliency not in SALIENCIES:
            raise UsageError(
                f"saliency={saliency}: expected {' or '.join(SALIENCIES)}.{closest(saliency, SALIENCIES)}"
            )
        strides = [stride * 2 if pooled else stride for stride in backbone.strides]
        self.backbone, self.pooled, self.normalised = backbone, pooled, normalised
        self.cloner = Cloner(backbone.channels, strides, convolutions, width)
        self.values, self.scored, self.saliency = values, scored, saliency
        self.percentile, self.sigma = percentile, sigma
        self.recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train the cloner on all levels (Eq. 1 to 3)."""

        def loss(batch: Batch) -> Tensor:
            with torch.no_grad():
                known = self.source(batch.images)
            return self.errors(known, self.cloner(batch.images)).mean()

        optimize(loss, self.cloner.parameters(), train, run, **self.recipe)

    def predict(self, inputs: Inputs) -> Prediction:
        """The error of the deepest levels; the map is the size of its gradient at each pixel, smoothed."""
        self.cloner.guided = self.saliency == "guided"
        with torch.enable_grad():
            images = inputs.images.detach().clone().requires_grad_()
            levels = zip(self.source(images), self.cloner(images), strict=True)
            known, learnt = zip(*list(levels)[-self.scored :], strict=True)
            scores = self.errors(known, learnt)
            (gradient,) = torch.autograd.grad(scores.sum(), images)  # no image has part in another's error
        self.cloner.guided = False
        return Prediction(scores.detach(), gaussian_blur(self.shown(gradient), self.sigma))

    def errors(self, known: Sequence[Tensor], learnt: Sequence[Tensor]) -> Tensor:
        """(B,): summed over levels, the directions' distance and `values` times the mean squared error."""
        levels = []
        for one, other in zip(known, learnt, strict=True):
            far = (one - other).square().flatten(1).mean(1)
            levels.append(cosine_distance(one.flatten(1), other.flatten(1)) + self.values * far)
        return torch.stack(levels).sum(0)

    def source(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the critical levels."""
        if not self.normalised:  # what the backbone does first, undone
            images = images * self.backbone.std + self.backbone.mean
        levels = self.backbone(images)
        return [F.max_pool2d(level, 2) for level in levels] if self.pooled else levels

    def shown(self, gradient: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H, W) in [0, 1]: size of the gradient, from its lowest to its percentile."""
        size = gradient.abs().sum(1)
        low = size.amin((1, 2), keepdim=True)
        high = torch.stack([one.flatten().quantile(self.percentile / 100) for one in size])[:, None, None]
        return ((size - low) / (high - low).clamp(min=torch.finfo(size.dtype).tiny)).clamp(0, 1)

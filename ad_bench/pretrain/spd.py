"""SPD: contrastive pretraining whose features keep what a small local edit changes (SPot-the-Difference).

Paper: Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation,
ECCV 2022, arXiv:2207.14315. No training code and no weights by the authors.
What is known: the term, its weight, that it is added to SimSiam's (Chen and He, arXiv:2011.10566) or SimCLR's
(Chen et al., arXiv:2002.05709) loss, SmoothBlend. Our readings, where the paper leaves a choice:
  1. The anchor is the whole image, squeezed to the views' size; the positive a weak view of it, the negative
     that view with SmoothBlend. Cosines are those of the projected vectors; gradients flow through all three.
  2. Sizes of the blended pieces, and views of the term; the YAML says which.
  3. What is projected is the mean over the last of the backbone's layers, which need not be its last.
The supervised variant and MoCo are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.smoothblend import smooth_blend
from ad_bench.pretrain.views import View

OBJECTIVES = ("simsiam", "simclr")


class SPD(nn.Module):
    """A backbone's network that is trained on, a projector and, for SimSiam, a predictor.

    objective: simsiam | simclr. projector: hidden widths and the vectors' length. predictor: the width in its
    middle. eta: weight of the term. Batch norms that the file of weights says are folded keep still.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        objective: str,
        projector: Sequence[int],
        predictor: int,
        temperature: float,
        eta: float,
        strong: View,
        weak: View,
        area: tuple[float, float],
        aspect: float,
        softness: float,
        strength: float,
    ):
        if objective not in OBJECTIVES or temperature <= 0:
            raise UsageError(
                f"objective is {' or '.join(OBJECTIVES)}, temperature above 0; got '{objective}' "
                f"and {temperature}"
            )
        super().__init__()
        self.weights = backbone.weights  # where the training starts
        self.network: Any = backbone.network
        self.network.requires_grad_(True)
        self.folded = backbone.weights.metadata.get("batchnorm") == "folded"
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        length = projector[-1]
        self.projector = perceptron([backbone.channels[-1], *projector], ended=objective == "simsiam")
        self.predictor = perceptron([length, predictor, length], ended=False)
        self.objective, self.temperature, self.eta = objective, temperature, eta
        self.strong, self.weak = strong, weak
        self.area, self.aspect, self.softness, self.strength = area, aspect, softness, strength
        self.train()

    def train(self, mode: bool = True) -> SPD:
        """As every module, but for folded batch norms: statistics of a batch would undo what was folded."""
        super().train(mode)
        for module in self.network.modules() if self.folded else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, views: Tensor) -> Tensor:
        """(B, 3, size, size) in [0, 1] -> projected vectors (B, length)."""
        levels = self.network(((views - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        vectors: Tensor = self.projector(levels[-1].mean((2, 3)))
        return vectors

    def views(self, images: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Images (3, H, W) -> two strong views, anchors, positives, negatives, each (B, 3, size, size)."""
        made = []
        size = (self.weak.size, self.weak.size)
        for image in images:
            one, other = (self.strong(image, generator) for _ in range(2))
            anchor = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
            positive, edited = (self.weak(image, generator) for _ in range(2))
            negative, _ = smooth_blend(
                edited, generator, self.area, self.aspect, self.softness, self.strength
            )
            made.append((one, other, anchor, positive, negative))
        return [torch.stack(view) for view in zip(*made, strict=True)]

    def losses(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Of what `views` gives: the objective, and SPD's term without its weight."""
        one, other, *three = views
        first, second = self(one), self(other)
        if self.objective == "simsiam":
            found = (
                alike(self.predictor(first), second.detach()) + alike(self.predictor(second), first.detach())
            ) / -2
        else:
            found = info_nce(first, second, self.temperature)
        return found, spd_term(*self(torch.cat(three)).chunk(3))


def spd_term(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Vectors (B, D): how much more the locally edited view is like the anchor than the weak global one."""
    return alike(anchor, negative) - alike(anchor, positive)


def alike(one: Tensor, other: Tensor) -> Tensor:
    """The mean cosine."""
    return F.cosine_similarity(one, other).mean()


def info_nce(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Vectors (B, D) of two views -> SimCLR's cross entropy: each finds its image's other of 2B - 1."""
    vectors = F.normalize(torch.cat([one, other]), dim=1)
    logits = vectors @ vectors.T / temperature
    logits = logits.masked_fill(torch.eye(len(vectors), dtype=torch.bool, device=logits.device), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(vectors), device=logits.device).roll(len(one)))


def perceptron(widths: Sequence[int], ended: bool) -> nn.Sequential:
    """Linear layers, batch norms and ReLUs between them; `ended`: a batch norm behind the last too."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside, bias=False), nn.BatchNorm1d(outside), nn.ReLU(inplace=True)]
    last = [nn.BatchNorm1d(widths[-1], affine=False)] if ended else []
    return nn.Sequential(*layers[:-3], nn.Linear(widths[-2], widths[-1], bias=not ended), *last)

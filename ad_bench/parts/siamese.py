"""Siamese training without negative examples: what is predicted of one image is the other's projection.

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv:2011.10566; on feature maps,
every position for itself, as in MediaBrain-SJTU/RegAD at 5e2c1f8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def head(width: int, depth: int) -> nn.Sequential:
    """`depth` convolutions of single positions, norm and ReLU between them."""
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1, bias=False))


def unlikeness(predicted: Tensor, projected: Tensor) -> Tensor:
    """(B, C, h, w) twice -> minus the cosine of an image's prediction and another's projection; -1 to 1.

    The mean over all pairs of images, both ways, and over all positions; no gradient reaches the projections.
    0 for an image alone. The sum over pairs is that of the products of sums: B products instead of B^2.
    """
    count = len(predicted)
    one, other = F.normalize(predicted, dim=1), F.normalize(projected.detach(), dim=1)
    products = (one.sum(0) * other.sum(0)).sum(0) - (one * other).sum((0, 1))  # (h, w)
    return -products.mean() / max(count * (count - 1), 1)

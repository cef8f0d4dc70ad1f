"""An image at its size, at half of it and so on, through one network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone


def check_scales(backbone: Backbone, scales: int) -> int:
    """The channels of the backbone's one layer; UsageError for several layers, or for no scale."""
    if len(backbone.channels) != 1:
        raise UsageError(f"one layer is read at several scales, such as [3]; got {list(backbone.layers)}")
    if scales < 1:
        raise UsageError(f"scales is a number of image sizes, at least 1; got {scales}")
    return backbone.channels[0]


def at_scales(backbone: Backbone, images: Tensor, scales: int) -> list[Tensor]:
    """(B, 3, H, W) -> the layer's (B, C, h, w) for heights H, H // 2, H // 4, ...; pixels are left out."""
    found = []
    for scale in range(scales):
        size = [side // 2**scale for side in images.shape[-2:]]
        found += backbone(F.interpolate(images, size=size, mode="nearest") if scale else images)
    return found

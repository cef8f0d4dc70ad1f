"""A network of patches evaluated around every pixel of an image at once."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError


def dense(layers: nn.Sequential, side: int, images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D, H - side + 1, W - side + 1): what `layers` give for every patch.

    layers: unpadded convolutions, max poolings and activations, which turn (N, C, side, side) into
    (N, D, 1, 1). A pooling moves on by one pixel here, and what follows it looks at every second one, at the
    cells that it would have seen: fast dense feature extraction (Bailer et al., BMVC 2017) by dilation.
    Raises UsageError for convolutions that are padded, dilated or move on by more than 1.
    """
    height, width = (length - side + 1 for length in images.shape[2:])
    step = 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            if {layer.stride, layer.dilation} != {(1, 1)} or layer.padding not in ((0, 0), 0):
                raise UsageError(f"dense evaluation knows plain convolutions; got {layer}")
            images = F.conv2d(images, layer.weight, layer.bias, dilation=step, groups=layer.groups)
        elif isinstance(layer, nn.MaxPool2d):
            images = F.max_pool2d(images, layer.kernel_size, stride=1, dilation=step)
            step *= cast(int, layer.stride)
        else:
            images = layer(images)
    return images[:, :, :height, :width]  # poolings may leave the last row of a patch unseen

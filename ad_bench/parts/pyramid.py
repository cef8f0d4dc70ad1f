"""Steps of a Gaussian pyramid (Burt and Adelson 1983) on 8-bit levels, equal to OpenCV's to the last bit.

Images (B, C, H, W) of whole numbers from 0 to 255, held as floats.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def halved(levels: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, (H + 1) // 2, (W + 1) // 2): smoothed, every second pixel. H and W from 3 on."""
    wide = F.pad(levels, (2, 2, 2, 2), mode="reflect")
    sums = F.conv2d(wide, _binomial(levels), stride=2, groups=levels.shape[1])
    return (sums / 256 + 0.5).floor()


def doubled(levels: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2h, 2w): zeros between the pixels, smoothed. h and w from 2 on."""
    wide = F.pad(F.pad(levels, (1, 0, 1, 0), mode="reflect"), (0, 1, 0, 1), mode="replicate")
    weights = _binomial(levels)
    sums = F.conv_transpose2d(wide, weights, stride=2, padding=4, output_padding=1, groups=levels.shape[1])
    return (sums / 64 + 0.5).floor()


def _binomial(levels: Tensor) -> Tensor:
    """(C, 1, 5, 5) whole numbers, so that the sums are exact in any precision of the products."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=levels.dtype, device=levels.device)
    return torch.outer(row, row).expand(levels.shape[1], 1, 5, 5).contiguous()

"""SmoothBlend: a piece of an image, its colours changed, fades into another place (SPD, arXiv:2207.14315).

The paper says so much; sizes and the width of the fading are the caller's, and our reading.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.chance import whole
from ad_bench.parts.cutpaste import jitter, sides

EDGE = 2.0  # deviations of the blur from a piece's border to the edge of the box that is blurred


def smooth_blend(
    image: Tensor,
    generator: torch.Generator,
    area: tuple[float, float],
    aspect: float,
    softness: float,
    strength: float,
) -> tuple[Tensor, Tensor]:
    """(3, H, W) in [0, 1] -> itself with a piece of its own blended in elsewhere; the mask (H, W) in [0, 1].

    The mask, a box under a Gaussian blur, is the share of the piece at a pixel; where it is 0 the image stays
    the same to the last bit. area, aspect: of the piece's `sides`. softness: the deviation of the blur, a
    share of a side. strength: of the jitter of the piece's colours.
    """
    if not 0 < softness < 0.5 / EDGE:
        raise UsageError(f"softness is a share above 0 and below {0.5 / EDGE}; got {softness}")
    height, width = sides(image, generator, area, aspect)
    (row, column), (top, left) = (
        (whole(generator, 0, image.shape[1] - height), whole(generator, 0, image.shape[2] - width))
        for _ in range(2)
    )
    piece = jitter(image[:, row : row + height, column : column + width], strength, generator)
    share = (_faded(height, softness)[:, None] * _faded(width, softness)).to(image)
    there = (slice(top, top + height), slice(left, left + width))
    mask, blended = torch.zeros_like(image[0]), image.clone()
    mask[there] = share
    blended[:, *there] = torch.lerp(image[:, *there], piece, share)
    return blended, mask


def _faded(length: int, softness: float) -> Tensor:
    """(length,): a box within a row of pixels, blurred; its edges lie EDGE deviations inside the row."""
    deviation = softness * length
    pixel = torch.arange(length, dtype=torch.float64) + 0.5
    rising, falling = (pixel - EDGE * deviation), (pixel - (length - EDGE * deviation))
    root = math.sqrt(2) * deviation
    return (torch.erf(rising / root) - torch.erf(falling / root)) / 2

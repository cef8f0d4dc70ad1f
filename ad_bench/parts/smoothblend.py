"""SmoothBlend: a piece of an image, its colours changed, fades into another place (SPD, arXiv:2207.14315).

The paper says so much; sizes and the width of the fading are the caller's, and our reading.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.chance import uniform, whole
from ad_bench.parts.cutpaste import jitter

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
    the same to the last bit. area: lowest and highest share of the image that a piece has; the ratio of its
    sides is drawn from `aspect` to its inverse, evenly on a logarithmic scale. softness: the deviation of the
    blur, a share of a side. strength: of the jitter of the piece's colours.
    """
    low, high = area
    if not (0 < low <= high <= 1 and 0 < aspect <= 1 and 0 < softness < 0.5 / EDGE):
        raise UsageError(
            f"area is two rising shares, aspect at most 1, softness below {0.5 / EDGE}; got {list(area)}, "
            f"{aspect} and {softness}"
        )
    size, ratio = uniform(generator, low, high), math.log(aspect)
    ratio, size = math.exp(uniform(generator, ratio, -ratio)), size * image.shape[1] * image.shape[2]
    height = min(image.shape[1], max(1, round(math.sqrt(size / ratio))))
    width = min(image.shape[2], max(1, round(math.sqrt(size * ratio))))
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

"""Pieces of an image pasted elsewhere in it: defects of CutPaste (Li et al., CVPR 2021, arXiv:2104.04015).

Pure functions of the image and the generator. What is pasted, and where, is uniform over all places that fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision.transforms.functional as T
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.chance import uniform, whole


def jitter(image: Tensor, strength: float | Sequence[float], generator: torch.Generator) -> Tensor:
    """(3, H, W) in [0, 1] with brightness, contrast, saturation and hue changed, in a drawn order.

    The first three by factors of 1 - strength to 1 + strength, the hue by up to `strength` of the circle.
    strength: one for all, or four.
    """
    reaches = [float(strength)] * 4 if isinstance(strength, int | float) else [float(one) for one in strength]
    if len(reaches) != 4 or not all(0 <= reach <= 0.5 for reach in reaches):
        raise UsageError(f"the jitter of colours is a share from 0 to 0.5, or four of them; got {strength}")
    if not any(reaches):
        return image
    changes = (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue)
    for index in torch.randperm(4, generator=generator).tolist():
        middle, reach = 0.0 if changes[index] is T.adjust_hue else 1.0, reaches[index]
        image = changes[index](image, middle + uniform(generator, -reach, reach))
    return image


def sides(
    image: Tensor, generator: torch.Generator, area: tuple[float, float], aspect: float
) -> tuple[int, int]:
    """Height and width of a rectangle in an image (3, H, W), drawn.

    area: lowest and highest share of the image. The ratio of the sides is drawn from `aspect` to its inverse,
    evenly on a logarithmic scale. In images that are not square a side ends at the border.
    """
    low, high = area
    if not (0 < low <= high <= 1 and 0 < aspect <= 1):
        raise UsageError(f"area is two rising shares and aspect at most 1; got {list(area)} and {aspect}")
    size, ratio = uniform(generator, low, high), math.log(aspect)
    ratio = math.exp(uniform(generator, ratio, -ratio))
    size *= image.shape[1] * image.shape[2]
    height = min(image.shape[1], max(1, round(math.sqrt(size / ratio))))
    return height, min(image.shape[2], max(1, round(math.sqrt(size * ratio))))


def cut_paste(
    image: Tensor,
    generator: torch.Generator,
    area: tuple[float, float],
    aspect: float,
    strength: float,
) -> tuple[Tensor, Tensor]:
    """(3, H, W) -> itself with a rectangle of its own, jittered, pasted elsewhere; that place, (H, W) bool.

    area, aspect: of its `sides`.
    """
    height, width = sides(image, generator, area, aspect)
    piece = jitter(_cut(image, height, width, generator), strength, generator)
    return _paste(image, piece, torch.ones_like(piece[0], dtype=torch.bool), generator)


def scar(
    image: Tensor,
    generator: torch.Generator,
    width: tuple[int, int],
    length: tuple[int, int],
    rotation: float,
    strength: float,
) -> tuple[Tensor, Tensor]:
    """(3, H, W) -> itself with a thin strip of its own, jittered and turned, pasted elsewhere; its mask.

    width, length: lowest and highest, in pixels. rotation: degrees, at most, either way (nearest pixels).
    """
    across, along = whole(generator, *width), whole(generator, *length)
    reach = math.ceil(math.hypot(width[1], length[1])) + 1
    if min(width[0], length[0]) < 1 or reach > min(image.shape[1:]):
        raise UsageError(
            f"scars of {list(width)} x {list(length)} pixels need images of at least {reach} pixels a side; "
            f"these have {image.shape[1]}x{image.shape[2]}: choose smaller ones or a larger method.input"
        )
    piece = jitter(_cut(image, along, across, generator), strength, generator)
    angle = uniform(generator, -rotation, rotation)
    turned = T.rotate(torch.cat([piece, torch.ones_like(piece[:1])]), angle, expand=True)
    return _paste(image, turned[:3], turned[3] > 0.5, generator)


def _cut(image: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    top, left = _place(image, height, width, generator)
    return image[:, top : top + height, left : left + width]


def _paste(image: Tensor, piece: Tensor, shape: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The image with `piece` where `shape` holds, at a drawn place; the mask."""
    height, width = shape.shape
    top, left = _place(image, height, width, generator)
    mask = torch.zeros_like(image[0], dtype=torch.bool)
    mask[top : top + height, left : left + width] = shape
    pasted = image.clone()
    pasted[:, mask] = piece[:, shape]
    return pasted, mask


def _place(image: Tensor, height: int, width: int, generator: torch.Generator) -> tuple[int, int]:
    """Row and column of the upper left corner."""
    rows, columns = image.shape[1] - height, image.shape[2] - width
    return whole(generator, 0, rows), whole(generator, 0, columns)

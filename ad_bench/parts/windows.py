"""Square patches of images: slid over them, their scores spread back to pixels, and drawn with a neighbour.

What methods share that learn where two patches lie to each other, from Patch SVDD on (Yi and Yoon, ACCV 2020,
arXiv:2006.16067). A place is the row and column of a patch's upper left pixel; an offset leads from one to
another. The facts are those of nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch at 934d623 and, for twelve
directions, of Howeng98/MSPBA at 55a3356. Draws depend on the generator alone. UsageError for images without
room for a patch.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.exact import exact_products

# (down, right) of each label: the eight cells around a cell, row by row, and steps of 30 degrees from "down".
# Rounded, so that a half is one: a step that ends between two pixels goes to the even one, as in MSPBA.
EIGHT = [(-1.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (0.0, -1.0), (0.0, 1.0), (1.0, -1.0), (1.0, 0.0), (1.0, 1.0)]
TURNS = [step * math.pi / 6 for step in range(12)]
TWELVE = [(round(math.cos(turn), 15), round(math.sin(turn), 15)) for turn in TURNS]
DIRECTIONS = {count: torch.tensor(ways, dtype=torch.float64) for count, ways in ((8, EIGHT), (12, TWELVE))}


def grid(images: Tensor, size: int, stride: int) -> Tensor:
    """(N, C, H, W) -> (N, rows, cols, C, size, size), a view: the patches that lie whole in the image."""
    _check(size, stride, (images.shape[2], images.shape[3]))
    return images.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)


def spread(scores: Tensor, size: int, stride: int, shape: tuple[int, int]) -> Tensor:
    """Scores (N, rows, cols) of the patches of `grid` -> (N, *shape).

    A pixel gets the mean of all patches that cover it; one that none covers, that of the nearest covered one.
    """
    _check(size, stride, shape)
    places = tuple((length - size) // stride + 1 for length in shape)
    if tuple(scores.shape[1:]) != places:
        raise ValueError(f"images of {shape} have {places} patches, the scores are {tuple(scores.shape[1:])}")
    down, across = (_means(length, size, stride).to(scores) for length in shape)
    with exact_products(scores.device):
        return down.expand(len(scores), -1, -1).bmm(scores @ across.T)


@lru_cache(maxsize=32)
def _means(length: int, size: int, stride: int) -> Tensor:
    """(length, places): of each row of pixels the share of each row of patches. Columns are alike."""
    pixel, start = torch.arange(length)[:, None], torch.arange(0, length - size + 1, stride)
    covers = (start <= pixel) & (pixel < start + size)
    covered = covers.any(1).nonzero()[:, 0]
    covers = covers[covered[(pixel - covered).abs().argmin(1)]].double()
    return covers / covers.sum(1, keepdim=True)


def places(generator: torch.Generator, count: int, size: int, shape: tuple[int, int]) -> Tensor:
    """(count, 2): places of patches of `size`, uniform over all that fit into images of `shape`."""
    _check(size, 1, shape)
    ends = (length - size + 1 for length in shape)
    return torch.stack([torch.randint(end, (count,), generator=generator) for end in ends], 1)


def offsets(generator: torch.Generator, count: int, size: int, directions: int) -> tuple[Tensor, Tensor]:
    """Ways to a neighbour: (count, 2) float64 and their labels (count,), each of 8 or 12 equally likely.

    A label's direction, rows and columns each times 3/4 of `size` and up to another quarter of it, drawn for
    itself. Labels whose directions are opposite are l and 7 - l of 8, l and (l + 6) % 12 of 12.
    """
    if directions not in DIRECTIONS:
        raise UsageError(f"directions are 8 or 12; got {directions}")
    if size < 4:
        raise UsageError(f"neighbours are a quarter of a patch apart or more: 4 pixels or more; got {size}")
    label = torch.randint(directions, (count,), generator=generator)
    reach = 3 * size // 4 + torch.randint(size // 4, (count, 2), generator=generator)
    return DIRECTIONS[directions][label] * reach, label


def jitters(generator: torch.Generator, count: int, reach: int) -> Tensor:
    """(count, 2): up to `reach` pixels each way, (0, 0) excepted, all equally likely."""
    if reach < 1:
        raise UsageError(f"a patch is moved by at least one pixel; got {reach}")
    side = 2 * reach + 1
    drawn = torch.randint(side * side - 1, (count,), generator=generator)
    drawn += drawn >= side * side // 2  # the middle is left out
    return torch.stack([drawn // side - reach, drawn % side - reach], 1)


def moved(start: Tensor, offset: Tensor, size: int, shape: tuple[int, int]) -> Tensor:
    """(count, 2) twice -> the places `offset` away, rounded, held back where they would leave the image."""
    end = start.new_tensor([length - size for length in shape])
    return (start + offset.round().to(start.dtype)).clamp(min=0).minimum(end)


def neighbours(
    generator: torch.Generator, count: int, size: int, shape: tuple[int, int], directions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Places (count, 2) of patches and of a neighbour each, and the labels (count,) of where that lies."""
    start = places(generator, count, size, shape)
    offset, label = offsets(generator, count, size, directions)
    return start, moved(start, offset, size, shape), label


def cut(images: Tensor, place: Tensor, size: int) -> Tensor:
    """(N, C, H, W), one place (N, 2) each -> the patches there, (N, C, size, size)."""
    row, column = ((place[:, axis, None] + torch.arange(size)).to(images.device) for axis in (0, 1))
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[image, row[:, :, None], column[:, None]].permute(0, 3, 1, 2)


def disturbed(patches: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """(N, C, h, w) with normal noise of deviation `sigma`: one number for each channel, one for each pixel.

    So that where patches meet cannot be told from colours (chromatic aberration) or single pixels.
    """
    shift = torch.randn(*patches.shape[:2], 1, 1, generator=generator)
    noise = shift + torch.randn(patches.shape, generator=generator)
    return patches + sigma * noise.to(patches.device)


def _check(size: int, stride: int, shape: tuple[int, int]) -> None:
    if not 1 <= size <= min(shape) or stride < 1:
        raise UsageError(
            f"patches of {size} pixels, {stride} apart, do not fit into images of {shape[0]}x{shape[1]}: "
            "choose a larger method.input, or smaller patches"
        )

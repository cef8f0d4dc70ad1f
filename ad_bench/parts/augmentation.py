"""Changed copies of an image, the same every time: what few-shot methods make of a small support.

Every function maps (H, W, 3) uint8 to the same shape. What turning or shifting leaves empty is filled with
the image mirrored at its edge: black corners would be learnt as normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ad_bench.errors import UsageError, closest

Picture = NDArray[np.uint8]


def rotate(image: Picture, angle: float) -> Picture:
    """The image turned about its centre by `angle` radians, counter-clockwise as one looks at it."""
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width)) - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    y = math.cos(angle) * rows + math.sin(angle) * columns
    x = math.cos(angle) * columns - math.sin(angle) * rows
    return _sample(image, y + (height - 1) / 2, x + (width - 1) / 2)


def translate(image: Picture, right: float, down: float) -> Picture:
    """The image moved by shares of its width and height."""
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width)).astype(float)
    return _sample(image, rows - down * height, columns - right * width)


def quarter_turns(image: Picture, count: int) -> Picture:
    """The image turned counter-clockwise by `count` right angles; UsageError where it is not square."""
    if image.shape[0] != image.shape[1]:
        raise UsageError(
            f"a quarter turn needs square images, these are {image.shape[0]}x{image.shape[1]} (height x "
            "width): leave turns and regad out of protocol.augment, or set method.input={size: 256}"
        )
    return np.ascontiguousarray(np.rot90(image, count))


def flip(image: Picture, horizontally: bool, vertically: bool) -> Picture:
    """The image mirrored: left and right, top and bottom, or both."""
    return np.ascontiguousarray(image[:: -1 if vertically else 1, :: -1 if horizontally else 1])


def grey(image: Picture) -> Picture:
    """The luma (ITU-R 601) in all three channels."""
    luma = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def _sample(image: Picture, y: NDArray[np.float64], x: NDArray[np.float64]) -> Picture:
    """Bilinear values at (y, x), pixel centres at whole numbers, the outside mirrored at the edge."""
    y, x = _mirrored(y, image.shape[0]), _mirrored(x, image.shape[1])
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    down, across = (y - top)[..., None], (x - left)[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def _mirrored(position: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Positions inside [0, length - 1]; the mirror is the outer edge of the last pixel."""
    folded = np.mod(position + 0.5, 2 * length)
    return np.clip(np.minimum(folded, 2 * length - folded) - 0.5, 0, length - 1)


_TURN = math.pi / 16
_SHIFTS = (
    (0.2, 0.2),
    (-0.2, 0.2),
    (-0.2, -0.2),
    (0.2, -0.2),
    (0.1, 0.1),
    (-0.1, 0.1),
    (-0.1, -0.1),
    (0.1, -0.1),
)
_QUARTERS = tuple(partial(quarter_turns, count=count) for count in (1, 2, 3))

AUGMENTATIONS: dict[str, tuple[Callable[[Picture], Picture], ...]] = {
    # M-3LAB/open-iad at 05044fe, augmentation/domain_gen.py: fewshot_num_dg 4 turns of 360/5 degrees. There
    # the corners are black, and every image adds its turn to those of all before it: neither is followed.
    "rotations": tuple(partial(rotate, angle=math.radians(72 * step)) for step in (1, 2, 3, 4)),
    # The same file: horizontally, vertically, both; its fourth copy is a random one of these.
    "flips": tuple(
        partial(flip, horizontally=across, vertically=down)
        for across, down in ((True, False), (False, True), (True, True))
    ),
    "turns": _QUARTERS,  # by 90, 180 and 270 degrees
    "grey": (grey,),
    # MediaBrain-SJTU/RegAD at 4a45bf5, test.py: 22 images with the original. Its shifts are in units of half
    # the image, and name where the new pixel comes from.
    "regad": (
        *(partial(rotate, angle=step * _TURN) for step in (-4, -3, -2, -1, 1, 2, 3, 4)),
        *(partial(translate, right=-across / 2, down=-down / 2) for across, down in _SHIFTS),
        partial(flip, horizontally=True, vertically=False),
        grey,
        *_QUARTERS,
    ),
}


def check_augmentations(names: Sequence[str]) -> None:
    """Raises UsageError for a name that is none."""
    for name in names:
        if name not in AUGMENTATIONS:
            hint = f"Known: {', '.join(AUGMENTATIONS)}"
            raise UsageError(f"protocol.augment has no '{name}'.{closest(name, AUGMENTATIONS, hint)}")


def augmented(image: Picture, names: Sequence[str]) -> list[Picture]:
    """The image, then its copies: those of every name, each made of the original."""
    return [image, *(change(image) for name in names for change in AUGMENTATIONS[name])]

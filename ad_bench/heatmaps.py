"""An anomaly map over its image, and lines around what is marked; pixels in, pixels out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ad_bench.heat import colour

MARK = (64, 224, 255)  # of the line around what is anomalous: a colour that no heat has
STRONGEST = 0.7  # share of the heat's colour at the end of the scale; at its start the image is as it was
UNSEEN = 0.4  # brightness of what no network saw


def overlay(
    image: NDArray[np.uint8], values: NDArray[np.floating[Any]], low: float, high: float
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the image under the colours of a map (H, W) on a scale from `low` to `high`.

    What the map does not reach (-inf: outside the crop) is darkened.
    """
    seen = np.isfinite(values)
    share = np.clip((np.where(seen, values, low) - low) / (high - low), 0.0, 1.0)
    level = np.rint(share * 255).astype(np.uint8)
    weight = (STRONGEST * np.linspace(0, 1, 256))[level][..., None]
    heat = colour(np.linspace(0, 1, 256))[level]
    mixed = (1 - weight) * image + weight * heat
    mixed[~seen] *= UNSEEN
    return np.rint(mixed).astype(np.uint8)


def outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """(H, W) bool: the line of `width` pixels around a mask, outside of it; at the picture's edge inside."""
    grey = Image.fromarray(np.pad(mask, width).astype(np.uint8) * np.uint8(255))
    outer = np.asarray(grey.filter(ImageFilter.MaxFilter(2 * width + 1))) > 0
    line: NDArray[np.bool_] = outer[width:-width, width:-width] & ~mask
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        line[edge] |= mask[edge]
    return line


def line_width(size: tuple[int, int]) -> int:
    """Of an outline that is seen on a picture of (H, W), shown as large as a screen."""
    return max(1, round(max(size) / 400))

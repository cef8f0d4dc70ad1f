"""The number of false alarms of a contrario methods: how many regions as rare chance alone would show.

Regions of connected pixels, as in Tailanian, Pardo, Muse, arXiv:2205.11611, with the number of polyominoes
as the number of shapes that are tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.stats import chi2

POLYOMINOES = (0.316915, 4.062570)  # of n cells there are about a b^n / n (Jensen and Guttmann, 2000)
FLOATS = float(np.finfo(np.float64).eps)  # a probability below it is not known


def region_log_nfa(planes: NDArray[np.float64], threshold: float, independent: float) -> NDArray[np.float64]:
    """(C, H, W) of squares, chi2 of one degree by chance -> (H, W): the smallest log NFA of each pixel.

    In each plane the pixels of at least `threshold` make up regions of 4-neighbours. A region is as rare as
    the sum of its squares, of which one in `independent` counts. Pixels in no region get the largest value
    of all, at least 0.
    """
    cross = np.zeros((3, 3, 3), dtype=bool)  # neighbours within a plane
    cross[1, 1, :] = cross[1, :, 1] = True
    regions, count = label(planes >= threshold, cross)
    sums = np.bincount(regions.ravel(), planes.ravel(), count + 1)[1:].astype(np.float64)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    values = log_nfa(sums, sizes, planes.shape[1] * planes.shape[2], independent)
    found = np.concatenate([[0.0], values])[regions]
    found[regions == 0] = found.max()
    return found.min(0)


def log_nfa(
    sums: NDArray[np.float64], sizes: NDArray[np.int64], pixels: int, independent: float
) -> NDArray[np.float64]:
    """For regions of so many pixels: log of the tests, times the chance of a sum as large."""
    degrees = sizes / independent
    shapes = np.log(POLYOMINOES[0]) + degrees * np.log(POLYOMINOES[1]) - np.log(degrees)
    chance = np.maximum(1 - chi2.cdf(sums / independent, degrees), FLOATS)
    found: NDArray[np.float64] = np.log(pixels / independent) + shapes + np.log(chance)
    return found

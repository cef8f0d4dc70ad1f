"""Scores -> whole numbers in the same order: what lets counting stand in for sorting.

A grid may merge scores, it never swaps two. So what lies in another cell than a score is surely above or
below it, and only what shares its cell must be compared. The choice of grid changes the time, not the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Cells = NDArray[np.int32]
_FEW = 1 << 14  # fewer are sorted as soon as they are counted


@dataclass(frozen=True, eq=False)
class Grid:
    """`cells` cells of equal width between two scores; below them cell 0, above them the last cell.

    `ordered`: equal width in the order of the floating-point numbers, whose leading bits are the exponent.
    That spends as many cells on every power of two, as heavy tails want it.
    """

    low: Any  # scalar of the scores' type
    scale: Any
    cells: int
    ordered: bool

    @classmethod
    def between(
        cls, lowest: Any, highest: Any, cells: int, dtype: np.dtype[Any], ordered: bool
    ) -> Grid | None:
        """The grid from the lowest to the highest finite score; None where the type cannot hold one."""
        ends = np.array([lowest, highest], dtype)
        low, high = _ordered(ends) if ordered else ends
        with np.errstate(over="ignore", divide="ignore"):
            width = dtype.type(high - low)
            scale = dtype.type((cells - 2) / width) if width > 0 else dtype.type(0)
        if not np.isfinite(width) or not np.isfinite(scale) or scale == 0:
            return None
        return cls(low, scale, cells, ordered)

    def of(self, scores: Array, out: Cells | None = None, work: Array | None = None) -> Cells:
        """The cell of each score, in [0, cells]; `work` is room for as many floats."""
        at = np.empty_like(scores) if work is None else work
        if self.ordered:
            _ordered(scores, at)
        with np.errstate(over="ignore"):  # far below or above the grid: clipped to its ends
            np.subtract(at if self.ordered else scores, self.low, out=at)
            np.multiply(at, self.scale, out=at)
        np.add(at, 1, out=at)  # what is below the lowest score becomes negative or 0, and so cell 0
        np.clip(at, 0, self.cells, out=at)
        if out is None:
            return at.astype(np.int32)
        np.copyto(out, at, casting="unsafe")
        return out


def place_of(scores: Array) -> NDArray[Any]:
    """The place of each float among all numbers of its type, a signed integer of the same width."""
    bits = (scores + scores.dtype.type(0)).view(f"i{scores.dtype.itemsize}")  # -0.0 becomes 0.0, its equal
    return _mirror(bits)


def order_of(scores: Array) -> NDArray[np.intp]:
    """The stable order of floats, lowest first: that of np.argsort(kind="stable"), sooner for float32.

    In two halves of 16 bits, which NumPy sorts by counting.
    """
    if scores.dtype != np.float32 or len(scores) < _FEW:
        return np.argsort(scores, kind="stable")
    place = place_of(scores).view(np.uint32) ^ np.uint32(
        1 << 31
    )  # from signed to unsigned, in the same order
    order = np.argsort(place.astype(np.uint16), kind="stable")
    return order[np.argsort((place >> np.uint32(16)).astype(np.uint16)[order], kind="stable")]


def score_at(place: NDArray[Any], kind: np.dtype[Any]) -> Array:
    """The float of type `kind` at each place: the inverse of `place_of`."""
    return _mirror(place).view(kind)


def _mirror(bits: NDArray[Any]) -> NDArray[Any]:
    # The bits of a float are its place, but for a negative one, whose magnitude counts downwards.
    return bits ^ ((bits >> (8 * bits.dtype.itemsize - 1)) & np.iinfo(bits.dtype).max)


def _ordered(scores: Array, out: Array | None = None) -> Array:
    """Floats that rise with the place of `scores` among all numbers of their type."""
    out = np.empty_like(scores) if out is None else out
    np.copyto(out, place_of(scores), casting="unsafe")
    return out

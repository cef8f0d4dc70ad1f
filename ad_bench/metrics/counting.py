"""Where all pixels stand among the scores of the defects: counted, without sorting the pixels."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ad_bench.metrics.grid import Grid

Array = NDArray[Any]
Codes = NDArray[np.int32]
BLOCK = 1 << 18  # pixels worked on at once: a few arrays of so many stay in the processor's cache
_KEPT = 1 << 22  # codes kept, or more, before they are counted: a count costs as much as there are scores
_PENDING = 1 << 20  # pixels to be searched for that wait for one another
_FEW = 1 << 16  # fewer pixels are sorted sooner than a table is made
_CELLS = (1 << 14, 1 << 24)  # of the grid; float32 tells no more than 2^24 whole numbers apart
_PER_SCORE = 32  # cells for each defect score, so that few pixels share the cell of one
_COMPARE, _SEARCH = 15.0, 60.0  # nanoseconds for a pixel in a defect's cell, and for one to be searched for
_SORT = 30.0  # nanoseconds a pixel, what counting competes with


class Places:
    """Counts pixels by their place among U distinct defect scores: 2j + 1 is a tie with the j-th lowest, 2j
    lies between it and the one before.

    A bit for each cell of a grid says whether a defect score lies in it. So the number of such cells below a
    pixel's is read from a running count for every 32 cells and the bits of the last 32: an eighth of a byte
    a cell, twice, which stays in the cache where a table of places would not. Where a defect score shares the
    pixel's cell one comparison decides, and where several do the few that are left are searched for.
    """

    def __init__(self, rising: Array, grid: Grid) -> None:
        self.rising, self.grid = rising, grid
        cell = grid.of(rising)
        first = np.flatnonzero(np.concatenate(([True], cell[1:] != cell[:-1])))
        taken = np.zeros(-(-(grid.cells + 1) // 32) * 32, bool)
        taken[cell[first]] = True
        words = np.packbits(taken, bitorder="little").view("<u4").astype(np.uint32, copy=False)
        until = np.cumsum(np.bitwise_count(words), dtype=np.int32)  # taken cells to the end of the word
        # Side by side, as they are read together.
        self._table = np.stack([words.view(np.int32), until], axis=1).view(np.int64).ravel()
        # Of each taken cell its lowest score, the place of that, and whether there are more.
        self._lowest, self._first = rising[first], first
        self._crowded = np.diff(np.append(first, len(rising))) > 1
        self._before = np.append(2 * first, 2 * len(rising))  # the place of what lies below a taken cell
        self._tie = len(first) + 1  # codes: taken cells below; from here on ties; at last what is left
        self._last = self._tie + len(rising)
        self._counts = np.zeros(self._last + 1, np.int64)
        self._left: list[Array] = []
        self._pending = 0
        self._searched: NDArray[np.int64] | None = None
        self._codes, self._filled = np.empty(max(_KEPT, 8 * len(rising)), np.int32), 0
        self._float = np.empty(BLOCK, rising.dtype)
        self._room, self._found = np.empty((2, BLOCK), np.int32), np.empty(BLOCK, np.int64)
        self._ones, self._flags = np.empty(BLOCK, np.uint8), np.empty(BLOCK, bool)

    def cost(self, sample: Array) -> float:
        """Nanoseconds that a pixel beyond its look-up is likely to take, judged by some of them."""
        cell = self.grid.of(sample)
        word, until = self._table[cell >> 5].view(np.uint32).reshape(-1, 2).T
        word = word >> (cell & 31).astype(np.uint32)
        inside = (word & 1).astype(bool)
        below = until[inside] - np.bitwise_count(word[inside])
        unsure = np.count_nonzero((sample[inside] > self._lowest[below]) & self._crowded[below])
        return (_COMPARE * np.count_nonzero(inside) + _SEARCH * unsure) / max(len(sample), 1)

    def add(self, scores: Array) -> None:
        """Count a block of at most BLOCK scores; none is NaN."""
        size = len(scores)
        if self._filled + size > len(self._codes):
            self._tally()
        codes = self._codes[self._filled : self._filled + size]
        self._filled += size
        cell, at = (room[:size] for room in self._room)
        found, ones, inside = self._found[:size], self._ones[:size], self._flags[:size]
        self.grid.of(scores, cell, self._float[:size])
        np.right_shift(cell, 5, out=at)
        _take(self._table, at, found)
        word, until = found.view(np.uint32).reshape(-1, 2).T
        bits, cell = at.view(np.uint32), cell.view(np.uint32)
        np.bitwise_and(cell, 31, out=cell)
        np.right_shift(word, cell, out=bits)  # the last bit is now that of the pixel's cell
        np.bitwise_count(bits, out=ones)
        np.subtract(until.view(np.int32), ones, out=codes)
        np.bitwise_and(bits, 1, out=bits)
        np.copyto(inside, bits, casting="unsafe")
        self._compare(scores, codes, np.flatnonzero(inside))

    def _compare(self, scores: Array, codes: Codes, shared: NDArray[np.intp]) -> None:
        """The codes of pixels that share their cell with a defect score."""
        below = codes.take(shared)
        value, defect = scores.take(shared), self._lowest.take(below)
        equal = np.flatnonzero(value == defect)
        tie = self._tie + self._first.take(below.take(equal))
        above = value > defect
        # Above the lowest of several: where exactly is found for many blocks together.
        unsure = np.flatnonzero(above & self._crowded.take(below))
        self._left.append(value.take(unsure))
        self._pending += len(unsure)
        if self._pending > _PENDING:
            self._search()
        below += above
        below[equal] = tie
        below[unsure] = self._last
        codes[shared] = below

    def _tally(self) -> None:
        self._counts += bincount(self._codes[: self._filled], len(self._counts))
        self._filled = 0

    def _search(self) -> None:
        left = np.concatenate(self._left)
        self._left, self._pending = [], 0
        left.sort()  # searched for in order, neighbours find what they need in the cache
        places = np.searchsorted(self.rising, left)
        places += np.searchsorted(self.rising, left, side="right")
        if self._searched is None:
            self._searched = np.zeros(2 * len(self.rising) + 1, np.int64)
        self._searched += np.bincount(places, minlength=len(self._searched))

    def finish(self) -> NDArray[np.int64]:
        """(2 U + 1,) pixels at each place, of all blocks so far."""
        self._tally()
        if self._pending:
            self._search()
        counts = np.zeros(2 * len(self.rising) + 1, np.int64)
        counts[self._before] = self._counts[: self._tie]
        counts[1::2] = self._counts[self._tie : self._last]
        return counts if self._searched is None else counts + self._searched


def count_places(
    blocks: Iterable[Array], rising: Array, sample: Array, pixels: int
) -> NDArray[np.int64] | None:
    """Pixels at each of the 2 U + 1 places among U >= 1 distinct, finite defect scores (see Places).

    sample: some of the pixels, to choose the grid by. None where sorting is likely to be quicker; then
    `blocks` was not touched.
    """
    if pixels < _FEW:
        return None
    cells = int(np.clip(1 << (_PER_SCORE * len(rising) - 1).bit_length(), *_CELLS))
    best: tuple[float, Places] | None = None
    for ordered in (False, True):
        grid = Grid.between(rising[0], rising[-1], cells, rising.dtype, ordered)
        if grid is None:
            continue
        places = Places(rising, grid)
        cost = places.cost(sample)
        if best is None or cost < best[0]:
            best = cost, places
        if cost < _COMPARE / 4:  # good enough: the other grid is not tried
            break
    if best is None or best[0] > _SORT:
        return None
    for block in blocks:
        best[1].add(block)
    return best[1].finish()


def _take(table: NDArray[np.int64], at: Codes, out: NDArray[np.int64]) -> None:
    """out = table[at]; by torch, where it is loaded anyway, as its int32 indices need no copy."""
    torch = sys.modules.get("torch")
    if torch is None:
        np.take(table, at, out=out, mode="clip")
    else:
        torch.index_select(torch.from_numpy(table), 0, torch.from_numpy(at), out=torch.from_numpy(out))


def bincount(codes: Codes, length: int) -> NDArray[np.int64]:
    """(length,) how often each whole number occurs."""
    torch = sys.modules.get("torch")
    if torch is None:
        return np.bincount(codes, minlength=length)
    counts: NDArray[np.int64] = torch.bincount(torch.from_numpy(codes), minlength=length).numpy()
    return counts

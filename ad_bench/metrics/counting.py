"""Where all pixels stand among the scores of the defects: counted, without sorting the pixels."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ad_bench.metrics.grid import Grid

Array = NDArray[Any]
Codes = NDArray[np.int32]
BLOCK = 1 << 17  # pixels worked on at once: a few arrays of so many stay in the processor's cache
_KEPT = 1 << 20  # codes kept, or more, before they are counted: a count costs as much as there are scores
_PENDING = 1 << 17  # pixels, or more, that wait to be compared or searched for together
_FEW = 1 << 16  # fewer pixels are sorted sooner than a table is made
_CELLS = (1 << 14, 1 << 24)  # of the grid; float32 tells no more than 2^24 whole numbers apart
_PER_SCORE = 32  # cells for each defect score, so that few pixels share the cell of one
_MANY = 1 << 18  # more defect scores have tables that leave the cache: the pixels are parted first
_COLUMNS = 1 << 10  # parts, equal in the score
_RANGE = 1 << 12  # defect scores, or more, for which neighbouring parts are counted together
_HELD = 1 << 27  # pixels, or some for each defect score, that are parted before they are counted
_PARTED = 1 << 19  # pixels parted at once
_EACH = 16  # pixels for each defect score, below which counting costs more than the pixels do
# Nanoseconds for a pixel: to be looked up in a table, to be parted before; in a defect's cell; searched for.
_LOOK, _PART, _COMPARE, _SEARCH = 6.0, 3.0, 15.0, 60.0
_TRIAL = 1 << 16  # numbers that are sorted to see how quickly this machine does
_FAR = 1.25  # times as long for a step of a sort that leaves the cache
_PLACE = 40.0  # nanoseconds to find a defect score among all that are sorted


class Shared:
    """Counts pixels in the cells of a grid that hold defect scores, where cells alone do not tell the place.

    One comparison with the lowest score of the cell decides; above the lowest of several it is searched for.
    """

    def __init__(self, rising: Array, cell: Codes) -> None:
        first = np.flatnonzero(np.concatenate(([True], cell[1:] != cell[:-1])))
        self.cells = cell[first]
        self.lowest, self.crowded = rising[first], np.diff(np.append(first, len(rising))) > 1
        self._rising, self._first = rising, first
        self._sides = np.zeros(3 * len(first), np.int64)  # of each cell: below its lowest score, on it, above
        self._unsure: list[Array] = []
        self._pending = 0
        self._searched: NDArray[np.int64] | None = None

    def add(self, scores: Array, at: Codes) -> None:
        """Count pixels by their score and the place of their cell among `cells`."""
        lowest = self.lowest.take(at)
        above = scores > lowest
        side = 3 * at
        side += above
        side += scores >= lowest
        self._sides += bincount(side, len(self._sides))
        unsure = np.flatnonzero(above & self.crowded.take(at))
        self._unsure.append(scores.take(unsure))
        self._pending += len(unsure)
        if self._pending > max(_PENDING, len(self._rising)):
            self._search()

    def _search(self) -> None:
        left = np.concatenate(self._unsure)
        self._unsure, self._pending = [], 0
        left.sort()  # searched for in order, neighbours find what they need in the cache
        found = searched(self._rising, left)
        self._searched = found if self._searched is None else self._searched + found

    def counts(self, below: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2 U + 1,) pixels at each place; below: at j, the pixels with j of `cells` below their own."""
        if self._pending:
            self._search()
        sides, first = self._sides.reshape(-1, 3), self._first
        counts = np.zeros(2 * len(self._rising) + 1, np.int64)
        counts[2 * first] = below[:-1] - sides[:, 1] - sides[:, 2]
        counts[-1] = below[-1]
        counts[2 * first + 1] = sides[:, 1]
        counts[2 * first + 2] += np.where(self.crowded, 0, sides[:, 2])
        return counts if self._searched is None else counts + self._searched


class Places:
    """Counts pixels by their place among U distinct defect scores: 2j + 1 is a tie with the j-th lowest, 2j
    lies between it and the one before.

    A bit for each cell of a grid says whether a defect score lies in it. So the number of such cells below a
    pixel's is read from a running count for every 32 cells and the bits of the last 32: an eighth of a byte
    a cell, twice, which stays in the cache where a table of places would not. Where a defect score shares the
    pixel's cell the two are compared.
    """

    def __init__(self, rising: Array, grid: Grid) -> None:
        self.rising, self.grid = rising, grid
        self._shared = Shared(rising, grid.of(rising))
        cells = self._shared.cells
        words = np.zeros(grid.cells // 32 + 1, np.uint32)
        # The first cell of a word has its highest bit.
        np.add.at(words, cells >> 5, np.uint32(1 << 31) >> (cells & 31).astype(np.uint32))
        until = np.cumsum(np.bitwise_count(words), dtype=np.int32)  # taken cells to the end of the word
        # Side by side, as they are read together.
        self._table = np.stack([words.view(np.int32), until], axis=1).view(np.int64).ravel()
        self._below = np.zeros(len(cells) + 1, np.int64)
        self._codes, self._filled = np.empty(max(_KEPT, 8 * len(rising)), np.int32), 0
        self._inside: list[tuple[Array, Codes]] = []
        self._pending = 0
        self._float = np.empty(BLOCK, rising.dtype)
        self._room, self._found = np.empty((2, BLOCK), np.int32), np.empty(BLOCK, np.int64)
        self._ones, self._flags = np.empty(BLOCK, np.uint8), np.empty(BLOCK, bool)

    def cost(self, sample: Array) -> float:
        """Nanoseconds that a pixel beyond its look-up is likely to take, judged by some of them."""
        cell = self.grid.of(sample)
        word, until = self._table[cell >> 5].view(np.uint32).reshape(-1, 2).T
        word = word << (cell & 31).astype(np.uint32)
        inside = word.view(np.int32) < 0
        below = until[inside] - np.bitwise_count(word[inside])
        unsure = np.count_nonzero((sample[inside] > self._shared.lowest[below]) & self._shared.crowded[below])
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
        np.left_shift(word, cell, out=bits)  # the highest bit, a sign, is now that of the pixel's cell
        np.bitwise_count(bits, out=ones)
        np.subtract(until.view(np.int32), ones, out=codes)
        np.less(at, 0, out=inside)
        shared = np.flatnonzero(inside)
        self._inside.append((scores.take(shared), codes.take(shared)))
        self._pending += len(shared)
        if self._pending > max(_PENDING, len(self.rising)):
            self._compare()

    def _tally(self) -> None:
        self._below += bincount(self._codes[: self._filled], len(self._below))
        self._filled = 0

    def _compare(self) -> None:
        scores, at = (np.concatenate(parts) for parts in zip(*self._inside, strict=True))
        self._inside, self._pending = [], 0
        self._shared.add(scores, at)

    def finish(self) -> NDArray[np.int64]:
        """(2 U + 1,) pixels at each place, of all blocks so far."""
        self._tally()
        if self._pending:
            self._compare()
        return self._shared.counts(self._below)


class Parts:
    """Counts pixels as `Places`, by their place among so many defect scores that no table stays in the cache.

    First they are parted into columns of equal width. Then in each the pixels are counted by cells finer than
    any table of all could have, and those that share one with a defect score are compared.
    """

    def __init__(self, rising: Array, grid: Grid) -> None:
        self.rising, self.grid = rising, grid
        # Of each column the first score, of each range the first column.
        self._starts = np.searchsorted(grid.of(rising), np.arange(grid.cells + 2))
        ranges = np.searchsorted(self._starts, np.arange(0, len(rising), _RANGE), side="right") - 1
        self._ranges = np.unique(np.append(ranges, [0, grid.cells + 1]))
        self._counts = np.zeros(2 * len(rising) + 1, np.int64)
        self._parts: list[tuple[Array, NDArray[Any]]] = []
        self._held = 0

    def add(self, scores: Array) -> None:
        """Count a block of scores; none is NaN."""
        from scipy.sparse import csr_array  # here, so that image metrics and the catalogue do without SciPy

        # One row with a column for each pixel's cell: bringing it into the order of columns is one counting
        # sort in compiled code.
        row = (scores, self.grid.of(scores), np.array([0, len(scores)], np.int32))
        columns = csr_array(row, shape=(1, self.grid.cells + 1)).tocsc()
        self._parts.append((columns.data, columns.indptr))
        self._held += len(scores)
        if self._held >= max(_HELD, _EACH * len(self.rising)):
            self._count()

    def _count(self) -> None:
        for first, last in zip(self._ranges[:-1], self._ranges[1:], strict=True):
            low, high = self._starts[first], self._starts[last]
            parts = [part[ends[first] : ends[last]] for part, ends in self._parts]
            self._counts[2 * low : 2 * high + 1] += _placed(parts, self.rising[low:high], self.grid.ordered)
        self._parts, self._held = [], 0

    def finish(self) -> NDArray[np.int64]:
        """(2 U + 1,) pixels at each place, of all blocks so far."""
        if self._parts:
            self._count()
        return self._counts


def _placed(parts: Sequence[Array], rising: Array, ordered: bool) -> NDArray[np.int64]:
    """(2 U + 1,) how many scores of all parts are at each place, by a histogram of their cells."""
    if not len(rising):
        return np.array([sum(map(len, parts))])
    grid = Grid.between(rising[0], rising[-1], _cells(rising), rising.dtype, ordered)
    if grid is None:
        counts = np.zeros(2 * len(rising) + 1, np.int64)
        for scores in _gathered(parts):
            counts += searched(rising, scores)
        return counts
    shared = Shared(rising, grid.of(rising))
    taken = np.zeros(grid.cells + 1, bool)
    taken[shared.cells] = True
    number = np.empty(grid.cells + 1, np.int32)  # of the cells that are taken; of the others never read
    number[shared.cells] = np.arange(len(shared.cells), dtype=np.int32)
    counts = np.zeros(grid.cells + 2, np.int64)
    for scores in _gathered(parts):
        cell, inside = grid.of(scores), np.empty(len(scores), bool)
        counts += bincount(cell, len(counts))
        _take(taken, cell, inside)
        at = np.flatnonzero(inside)
        shared.add(scores.take(at), number.take(cell.take(at)))
    return shared.counts(np.add.reduceat(counts, np.append(0, shared.cells + 1)))


def _gathered(parts: Sequence[Array]) -> Iterator[Array]:
    """The parts, joined until they are worth a call: a range may hold nearly all pixels, or few."""
    some: list[Array] = []
    size = 0
    for part in parts:
        some.append(part)
        size += len(part)
        if size >= _PARTED:
            yield np.concatenate(some)
            some, size = [], 0
    if size:
        yield np.concatenate(some)


def count_places(
    blocks: Callable[[int], Iterable[Array]], rising: Array, sample: Array, pixels: int
) -> NDArray[np.int64] | None:
    """Pixels at each of the 2 U + 1 places among U >= 1 distinct, finite defect scores (see Places).

    blocks: gives all pixels in blocks of at most so many. sample: some of them, to choose the grid by. None
    where sorting is likely to be quicker; then `blocks` was not called.
    """
    if pixels < _FEW:
        return None
    some = rising[:: -(-len(rising) // _MANY)]  # as they lie, so do all
    sorting = sort_cost(rising.dtype, pixels, len(rising))
    parted = len(some) < len(rising)
    look = _LOOK + _PART * parted
    if sorting < look:
        return None
    best: tuple[float, Places] | None = None
    for ordered in (False, True):
        grid = Grid.between(some[0], some[-1], _cells(some), rising.dtype, ordered)
        if grid is None:
            continue
        places = Places(some, grid)
        cost = look + places.cost(sample)
        if best is None or cost < best[0]:
            best = cost, places
        if cost < look + _COMPARE / 4:  # good enough: the other grid is not tried
            break
    if best is None or best[0] > sorting:
        return None
    way: Places | Parts = best[1]
    size = BLOCK
    if parted:
        columns = Grid.between(rising[0], rising[-1], _COLUMNS, rising.dtype, way.grid.ordered)
        if columns is None:
            return None
        way, size = Parts(rising, columns), _PARTED
    for block in blocks(size):
        way.add(block)
    return way.finish()


def sort_cost(kind: np.dtype[Any], pixels: int, scores: int) -> float:
    """Nanoseconds a pixel that sorting all, and finding so many scores among them, is likely to take here."""
    return _FAR * _sort_step(kind) * math.log2(pixels) + _PLACE * scores / pixels


@functools.cache
def _sort_step(kind: np.dtype[Any]) -> float:
    """Nanoseconds a number, for every doubling of their count, that NumPy's sort takes on this machine.

    Tried once in a process: it differs by a factor of ten between processors (AVX-512, AVX2, neither).
    """
    values = np.random.default_rng(0).random(_TRIAL, kind.type)
    seconds = []
    for _ in range(3):
        trial = values.copy()
        start = time.perf_counter()
        trial.sort()
        seconds.append(time.perf_counter() - start)
    return 1e9 * min(seconds) / (_TRIAL * math.log2(_TRIAL))


def searched(rising: Array, scores: Array) -> NDArray[np.int64]:
    """(2 U + 1,) how many scores are at each place, by bisection."""
    places = np.searchsorted(rising, scores)
    places += np.searchsorted(rising, scores, side="right")
    return np.bincount(places, minlength=2 * len(rising) + 1)


def _cells(rising: Array) -> int:
    return int(np.clip(1 << (_PER_SCORE * len(rising) - 1).bit_length(), *_CELLS))


def _take(table: Array, at: Codes, out: Array) -> None:
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

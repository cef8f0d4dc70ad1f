"""Test sets larger than memory: a histogram instead of a ranking, and how far its metrics can be off.

What lies in one cell of the histogram has lost its order. The metrics of the best order (all defects above
all normal pixels of their cell) and of the worst enclose the exact value, whatever the scores were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.metrics.counting import bincount
from ad_bench.metrics.grid import Grid, place_of, score_at
from ad_bench.metrics.measures import area_shares, rates
from ad_bench.metrics.ranking import Array, as_map, blocks, check_scores, saturating, score_type, stride
from ad_bench.metrics.truth import PixelTruth

CELLS = 1 << 21  # 16 MB for each of the four histograms
_TRIED = 1 << 12  # cells at which the two kinds of grid are compared
_KEPT = 1 << 22  # pixels whose cells are kept before they are counted
_SAMPLE = 1 << 18  # pixels, and defect pixels, that the grid is chosen by
_TERMS = 8  # of a harmonic sum that are added one by one
_OFTEN = 4  # times that a score must occur among these to have a cell of its own


@dataclass(frozen=True, eq=False)
class BoundedRanking:
    """Positives and negatives in each of the U cells that hold a positive, highest first (see Ranking)."""

    hits: NDArray[np.int64]
    above: NDArray[np.int64]  # (U,) negatives in higher cells
    ties: NDArray[np.int64]  # (U,) negatives in the same cell
    tied: NDArray[np.bool_]  # (U,) whether all in the cell have one score; else their order is unknown
    edges: Array  # (U,) the lowest score of the cell
    positives: int
    negatives: int
    overlap: NDArray[np.float64] | None = None
    saturated: NDArray[np.float64] | None = None

    @property
    def two_classes(self) -> bool:
        """Whether there is a positive and a negative; every metric is undefined without."""
        return self.positives > 0 and self.negatives > 0

    def measure(self, name: str, limit: float | None = None) -> tuple[float, float]:
        """The middle of a pixel metric's enclosure and its half-width; limit for pixel_aupro, pixel_spro."""
        low, high = self.enclosure(name, limit)
        # the sums themselves are rounded
        return (low + high) / 2, (high - low) / 2 + 1e-12

    def enclosure(self, name: str, limit: float | None = None) -> tuple[float, float]:
        """The lowest and the highest value that the metric can have."""
        if name == "pixel_auroc":
            pairs = 2 * self.positives * self.negatives
            equal = np.where(self.tied, self.ties, 0)
            right = int(np.dot(self.hits, 2 * (self.negatives - self.above) - equal))
            return (right - 2 * int(np.dot(self.hits, self.ties - equal))) / pairs, right / pairs
        if name == "pixel_aupr":
            return self._average_precision()
        after = self.above + self.ties
        if name in ("pixel_f1max", "pixel_iou"):
            low, high = self._f1(after), self._f1(np.where(self.tied, after, self.above))
            return (low, high) if name == "pixel_f1max" else (low / (2 - low), high / (2 - high))
        gains = {"pixel_aupro": self.overlap, "pixel_spro": self.saturated}
        if name not in gains:
            raise ValueError(f"no bound is known for {name}; add it to BoundedRanking.enclosure")
        gain = gains[name]
        if gain is None or limit is None:
            raise ValueError(f"{name} needs a limit, and a histogram made with its regions or defects")
        whole, none = float(np.sum(gain)), np.zeros_like(self.ties)
        equal = area_shares(self.above, self.ties, self.negatives, limit)
        worst, best = (
            float(np.dot(gain, np.where(self.tied, equal, area_shares(start, none, self.negatives, limit))))
            for start in (after, self.above)
        )
        return worst / whole, best / whole

    def at_best(self) -> dict[str, float]:
        """Precision, recall, tpr, fpr, iou, f1 at the cell edge of the highest F1, and that `threshold`."""
        tp, fp = np.cumsum(self.hits), self.above + self.ties
        at = int(np.argmax(tp / (self.positives + tp + fp)))
        return {
            "threshold": float(self.edges[at]),
            **rates(int(tp[at]), int(fp[at]), self.positives, self.negatives),
        }

    def _f1(self, false: NDArray[np.int64]) -> float:
        tp = np.cumsum(self.hits)
        return float(np.max(2 * tp / (self.positives + tp + false)))

    def _average_precision(self) -> tuple[float, float]:
        """Within a cell h hits follow `a` others; c normal pixels stand above them.

        Found together, their precision is (a + h) / (a + h + c): the most, where none of the cell is above.
        One by one it is (a + k) / (a + k + c) for k = 1 ... h, in sum h - c * sum 1 / (a + c + k): the least,
        where all are. That sum is made of its first terms and, as 1 / x is convex, is for the others at most
        the integral from half a step before them.
        """
        a, h = np.cumsum(self.hits) - self.hits, self.hits
        c = self.above + self.ties
        equal = h * (a + h) / (a + h + c)
        inverse = np.log1p(np.maximum(h - _TERMS, 0) / (a + c + _TERMS + 0.5))
        for k in range(1, _TERMS + 1):
            inverse += np.where(k <= h, 1 / (a + c + k), 0.0)
        low = np.where(self.tied, equal, h - c * inverse)
        high = np.where(self.tied, equal, h * (a + h) / (a + h + self.above))
        return float(np.sum(low)) / self.positives, float(np.sum(high)) / self.positives


def rank_bounded(
    maps: Sequence[ArrayLike], truth: PixelTruth, regions: bool = True, cells: int = CELLS
) -> BoundedRanking:
    """The histogram of the pixels of all images; each map is asked for twice, one at a time.

    Holds a few hundred MB whatever the number and size of the maps (at 2^21 cells). Raises as `rank_pixels`.
    """
    if len(maps) != len(truth):
        raise ValueError(f"one mask for each map: got {len(maps)} maps, {len(truth)} masks")
    bins = _Cells(maps, truth, cells)
    total, hits = np.zeros(bins.count, np.int64), np.zeros(bins.count, np.int64)
    overlap = np.zeros(bins.count) if regions else None
    saturated = np.zeros(bins.count) if truth.defects is not None else None
    room, filled = np.empty(_KEPT, np.int32), 0
    for image in range(len(truth)):
        single = truth.subset([image])
        values = as_map(maps[image], image).astype(bins.kind, copy=False)
        for block in blocks([values], single, bins.kind):
            if filled + len(block) > _KEPT:
                total += bincount(room[:filled], bins.count)
                filled = 0
            room[filled : filled + len(block)] = bins.of(block)
            filled += len(block)
        found = bins.of(values.ravel()[truth.spots[image]])
        np.add.at(hits, found, 1)
        if overlap is not None:
            np.add.at(overlap, found, single.gain)
        if saturated is not None:
            scores, more = saturating([values], single)
            np.add.at(saturated, bins.of(scores), more)
    total += bincount(room[:filled], bins.count)

    falling = bins.rising[::-1]  # the cells from the highest to the lowest
    hits, negatives = hits[falling], (total - hits)[falling]
    own = np.flatnonzero(hits)
    above = np.cumsum(negatives) - negatives
    return BoundedRanking(
        hits=hits[own],
        above=above[own],
        ties=negatives[own],
        tied=bins.tied[falling[own]],
        edges=bins.edges(falling[own]),
        positives=int(hits.sum()),
        negatives=int(negatives.sum()),
        overlap=None if overlap is None else overlap[falling[own]],
        saturated=None if saturated is None else saturated[falling[own]],
    )


class _Cells:
    """Scores -> the cells of a histogram, chosen by a first look at all maps.

    -inf, which defects that were never seen have, is a cell of its own. So is a score that occurs often, as
    that of an empty background or of a map with few levels: it parts the cell of the grid that it lies in.
    """

    def __init__(self, maps: Sequence[ArrayLike], truth: PixelTruth, cells: int) -> None:
        self.low, self.high, kinds = np.inf, -np.inf, {np.dtype(np.float32)}
        found: list[Array] = []
        pixels: list[Array] = []
        each = max(1, _SAMPLE // max(len(truth), 1))
        for image in range(len(truth)):
            values = as_map(maps[image], image)
            truth.check_shape(image, values.shape)
            check_scores([values], [truth.seen[image]], image)
            kinds.add(score_type([values]))
            scores = values.ravel()[truth.spots[image]]
            finite = scores[scores > -np.inf]
            if len(finite):
                self.low, self.high = min(self.low, finite.min()), max(self.high, finite.max())
            found.append(finite[:: max(1, len(finite) // each)].copy())
            flat = values.ravel()[:: stride(values.size, each)]
            pixels.append(flat[flat < np.inf])  # a copy: no map is held. What is left out may hold anything
        self.kind = np.result_type(*kinds)
        sampled, every = (
            np.concatenate([np.empty(0, self.kind), *parts]).astype(self.kind) for parts in (found, pixels)
        )
        self.grid = self._choose(sampled, every, cells)
        self._size = cells + 2
        self._atoms(sampled, every)

    def of(self, scores: Array) -> NDArray[np.int32]:
        """The cell of each score, numbered in no order: `rising` has their order."""
        own = self._plain(scores)
        if not len(self.atoms):
            return own
        atom = self._atom_of.take(own)
        inside = np.flatnonzero(atom >= 0)
        atom = atom.take(inside)
        value, mark = scores.take(inside), self.atoms.take(atom)
        # below the atom the cell itself, on it the first of two further cells, above it the second
        further = self._size + 2 * atom + (value > mark)
        own[inside] = np.where(value < mark, own.take(inside), further)
        return own

    def edges(self, own: NDArray[np.int64]) -> Array:
        """The lowest score of each of the cells `own`, by bisection among all numbers of the type."""
        order = np.empty(self.count, np.int64)
        order[self.rising] = np.arange(self.count)
        wanted = order[own]
        place = np.dtype(f"i{self.kind.itemsize}")
        ends = np.array([-np.inf, self.high if self.high > -np.inf else 0.0], self.kind)
        low, high = (np.full(len(own), end) for end in place_of(ends))
        while (high > low).any():
            middle = (low & high) + ((low ^ high) >> 1)  # rounded down, without the overflow of a sum
            enough = order[self.of(score_at(middle.astype(place), self.kind))] >= wanted
            high, low = np.where(enough, middle, high), np.where(enough, low, middle + 1)
        return score_at(high.astype(place), self.kind)

    def _choose(self, found: Array, pixels: Array, cells: int) -> Grid | None:
        """Of the two kinds of grid the one that keeps more defects and pixels apart."""
        best: tuple[int, Grid | None] | None = None
        for ordered in (False, True):
            trial = Grid.between(self.low, self.high, _TRIED, self.kind, ordered)
            if trial is None:
                continue
            one, other = (np.bincount(trial.of(x), minlength=_TRIED + 1) for x in (found, pixels))
            together = int(np.dot(one, other))
            if best is None or together < best[0]:
                best = together, Grid.between(self.low, self.high, cells, self.kind, ordered)
        return best[1] if best else None

    def _plain(self, scores: Array) -> NDArray[np.int32]:
        """Cell 0 is -inf, 1 what lies below the lowest defect."""
        if self.grid is not None:
            own = self.grid.of(scores)
        else:  # one score among all defects, or none: below it, the score, above it
            own = (scores >= self.low).astype(np.int32) + (scores > self.low)
        own += scores > -np.inf
        return own

    def _atoms(self, found: Array, pixels: Array) -> None:
        """Give the scores that occur often cells of their own, one in each cell of the grid."""
        values, times = np.unique(pixels, return_counts=True)
        often = (times >= _OFTEN) & np.isin(values, found) & (values > -np.inf)
        values, times = values[often], times[often]
        cell = self._plain(values)
        first = np.argsort(-times, kind="stable")
        cell, at = np.unique(cell[first], return_index=True)
        self.atoms = values[first][at]
        self._atom_of = np.full(self._size, -1, np.int32)
        self._atom_of[cell] = np.arange(len(cell))
        self.count = self._size + 2 * len(cell)
        self.tied = np.zeros(self.count, bool)
        self.tied[0] = True
        self.tied[self._size :: 2] = True
        place = np.concatenate(
            [3 * np.arange(self._size), np.repeat(3 * cell, 2) + np.tile([1, 2], len(cell))]
        )
        self.rising = np.argsort(place, kind="stable")

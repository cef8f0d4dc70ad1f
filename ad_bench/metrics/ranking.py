"""Scores and truth become one ranking; every metric reads it, none sorts again.

All exact metrics depend on the negatives (normal pixels, normal images) only through how many of them lie
above and on each distinct score of the positives. So the positives, about 2 % of the pixels of a test set,
are the only ones that are sorted; the rest is counted by its place among them, or sorted if that is quicker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.errors import PredictionError
from ad_bench.metrics.counting import BLOCK, count_places
from ad_bench.metrics.grid import order_of
from ad_bench.metrics.truth import PixelTruth

Array = NDArray[Any]
Gains = Sequence[NDArray[np.float64]]
_SAMPLE = 1 << 15  # pixels that the grid is chosen by
_STEP = 64  # sorted pixels, a power of two, between two that are bisected first
_TIES = 3  # negatives with the score of a positive that are stepped over; more are searched for
_FEW = 1 << 16  # sorted pixels that the cache holds anyway


@dataclass(frozen=True, eq=False)
class Ranking:
    """Positives and negatives at each of the U distinct scores that a positive has, highest score first."""

    scores: Array  # (U,) the distinct scores, falling
    hits: NDArray[np.int64]  # (U,) positives that have this score
    above: NDArray[np.int64]  # (U,) negatives with a higher score
    ties: NDArray[np.int64]  # (U,) negatives with this very score
    positives: int
    negatives: int
    overlap: NDArray[np.float64] | None = None  # (U,) sum of 1 / area of the region, over these hits
    saturated: NDArray[np.float64] | None = None  # (U,) what these hits add to the saturated overlap (sPRO)

    @cached_property
    def tp(self) -> NDArray[np.int64]:
        """(U,) positives at or above each score."""
        return np.cumsum(self.hits)

    @cached_property
    def fp(self) -> NDArray[np.int64]:
        """(U,) negatives at or above each score."""
        return self.above + self.ties

    @cached_property
    def best(self) -> int:
        """The place of the highest F1; of the highest score if several have it."""
        # A score of negatives alone lowers precision at equal recall: it need not be looked at.
        return int(np.argmax(self.tp / (self.positives + self.tp + self.fp)))

    @property
    def two_classes(self) -> bool:
        """Whether there is a positive and a negative; every metric is undefined without."""
        return self.positives > 0 and self.negatives > 0


def rank_images(scores: ArrayLike, labels: ArrayLike) -> Ranking:
    """The ranking of N image scores; labels (N,) are 0 for normal and 1 for anomalous."""
    values, positive = as_scores(scores), np.asarray(labels)
    if values.ndim != 1 or values.shape != positive.shape:
        raise ValueError(
            "image_scores and labels are two rows of one length; "
            f"got shapes {values.shape} and {positive.shape}"
        )
    wrong = ~((positive == 0) | (positive == 1))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"labels are 0 (normal) or 1 (anomalous); got {positive[at]} for image {at}")
    bad = _unrankable(values)
    if bad.any():
        raise PredictionError(
            f"{_tally(values, bad)} among {len(values)} image scores, first at image {int(np.argmax(bad))}; "
            "scores must be numbers below +inf"
        )
    positives = _Positives.of(values[positive == 1], {})
    return positives.among(*_sorted_places(values.copy(), positives), len(values))


def rank_pixels(
    maps: Sequence[ArrayLike],
    truth: PixelTruth | Sequence[ArrayLike | None],
    regions: bool = True,
    device: Any = None,
) -> Ranking:
    """The ranking of the pixels of all images, which may differ in size.

    maps: N of (H, W) scores, each asked for once. truth: what `PixelTruth.of` makes of masks, or the masks.
    regions: also weigh every defect pixel by its region (Ranking.overlap). Where the truth has the defects
    of sPRO, these are weighed as well (Ranking.saturated). device: a torch device that sorts; None: the
    processor counts, or sorts where that is quicker. Each way gives the same ranking.
    """
    truth = truth if isinstance(truth, PixelTruth) else PixelTruth.of(truth)
    scores = read_maps(maps, truth)
    kind = score_type(scores)
    found = [image.ravel()[spots].astype(kind) for image, spots in zip(scores, truth.spots, strict=True)]
    gains: dict[str, NDArray[np.float64]] = {}
    if regions:
        gains["overlap"] = truth.gain
    positives = _Positives.of(_joined(found, kind), gains)
    ranking = None if device is not None else _counted(positives, scores, truth, kind)
    if ranking is None:
        pool = _pooled(scores, truth, kind)
        place = _sorted_places if device is None else partial(_device_places, device=device)
        ranking = positives.among(*place(pool, positives), len(pool))
    if truth.defects is None:
        return ranking
    values, gain = saturating(scores, truth)
    at = np.searchsorted(positives.rising, values)
    return replace(ranking, saturated=np.bincount(at, gain, len(positives.rising)).astype(float)[::-1])


def _counted(
    positives: _Positives, scores: Sequence[Array], truth: PixelTruth, kind: np.dtype[Any]
) -> Ranking | None:
    """The ranking from counts of the normal pixels; None where sorting is likely to be quicker."""
    lowest = int(np.isneginf(positives.rising[:1]).sum())  # 1 where defects stand at -inf, below all cells
    finite = positives.rising[lowest:]
    pixels = _pixels(scores, truth)
    counts = None
    if len(finite):
        normal = partial(blocks, scores, truth, kind, defects=False)
        counts = count_places(normal, finite, sample(scores, kind), pixels)
    if counts is None:
        return None
    negatives = pixels - truth.positives
    above, ties = np.cumsum(counts[::-1])[::-1][2::2], counts[1::2]
    if lowest:
        under = sum(
            int(np.count_nonzero(np.isneginf(image.ravel() if seen is None else image.ravel()[seen])))
            for image, seen in zip(scores, truth.seen, strict=True)
        )
        under -= int(positives.hits[0])
        above, ties = np.append(negatives - under, above), np.append(under, ties)
    return positives.ranked(above, ties, negatives)


def _pooled(scores: Sequence[Array], truth: PixelTruth, kind: np.dtype[Any]) -> Array:
    """All pixels that count in one array."""
    pool = np.empty(_pixels(scores, truth), kind)
    end = 0
    for values, seen in zip(scores, truth.seen, strict=True):
        flat = values.ravel() if seen is None else values.ravel()[seen]
        pool[end : end + len(flat)] = flat
        end += len(flat)
    return pool


def _pixels(scores: Sequence[Array], truth: PixelTruth) -> int:
    """How many pixels count."""
    return sum(
        image.size if seen is None else int(np.count_nonzero(seen))
        for image, seen in zip(scores, truth.seen, strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Positives:
    """The U distinct scores of positives, lowest first, with what stands at each."""

    rising: Array
    hits: NDArray[np.int64]
    gains: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, found: Array, gains: dict[str, NDArray[np.float64]]) -> _Positives:
        """found: (P,) scores in any order. gains: by name (P,), what each adds to an overlap."""
        order = order_of(found)
        rising = found.take(order)
        first = np.flatnonzero(np.concatenate(([len(rising) > 0], rising[1:] != rising[:-1])))
        hits = np.diff(np.append(first, len(rising)))
        sums = {
            name: np.add.reduceat(gain.take(order), first) if len(first) else np.empty(0)
            for name, gain in gains.items()
        }
        return cls(rising[first], hits, sums)

    def ranked(self, above: NDArray[np.int64], ties: NDArray[np.int64], negatives: int) -> Ranking:
        """The ranking; above and ties (U,) are how many negatives are > and equal to each."""
        return Ranking(
            scores=self.rising[::-1],
            hits=self.hits[::-1],
            above=above[::-1],
            ties=ties[::-1],
            positives=int(self.hits.sum()),
            negatives=negatives,
            **{name: sums[::-1] for name, sums in self.gains.items()},
        )

    def among(self, at_least: NDArray[np.int64], more: NDArray[np.int64], total: int) -> Ranking:
        """The ranking; at_least and more (U,) are how many of all `total` scores are >= and > each."""
        found = np.cumsum(self.hits[::-1])[::-1]  # positives at or above
        above, reached = more - (found - self.hits), at_least - found
        return self.ranked(above, reached - above, total - int(self.hits.sum()))


def _sorted_places(pool: Array, positives: _Positives) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of `pool`, which holds the positives and is sorted in place, are >= and > each of them."""
    pool.sort()
    rising = positives.rising
    left = _found(pool, rising)
    right = left + positives.hits  # where no negative has the same score
    # Beyond the end the last one is read again: that is a tie until it is searched for.
    tied = np.flatnonzero(pool.take(right, mode="clip") == rising)
    for _ in range(_TIES):
        right[tied] += 1
        tied = tied[pool.take(right[tied], mode="clip") == rising[tied]]
    right[tied] = np.searchsorted(pool, rising[tied], side="right")
    return len(pool) - left, len(pool) - right


def _found(pool: Array, rising: Array) -> NDArray[np.int64]:
    """np.searchsorted(pool, rising) in half the time; no score is above the whole pool.

    Every `_STEP`-th of the pool, which the cache holds, is bisected; the few between two of these are halved
    for all scores at once.
    """
    if len(pool) < _FEW:
        return np.searchsorted(pool, rising)
    place = np.searchsorted(np.ascontiguousarray(pool[_STEP - 1 :: _STEP]), rising) * _STEP
    step = _STEP
    while step > 1:
        step //= 2
        place += step * (pool.take(place + (step - 1), mode="clip") < rising)
    return place


def _device_places(
    pool: Array, positives: _Positives, device: Any
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `_sorted_places`, by one sort on a torch device."""
    import torch

    values = torch.from_numpy(pool).to(device).sort().values
    marks = torch.from_numpy(positives.rising).to(device)
    left, right = (torch.searchsorted(values, marks, right=side).cpu().numpy() for side in (False, True))
    return len(pool) - left, len(pool) - right


def saturating(scores: Sequence[Array], truth: PixelTruth) -> tuple[Array, NDArray[np.float64]]:
    """The scores that add to the saturated overlap of a defect, and how much each adds.

    Of each defect the highest `saturation` pixels add 1 / saturation, the others nothing. Pixels of one score
    are found together, so which of them are counted makes no difference.
    """
    assert truth.defects is not None
    pairs = [
        (image.ravel()[defect.spots], defect.saturation)
        for image, own in zip(scores, truth.defects, strict=True)
        for defect in own
        if len(defect.spots)
    ]
    kind = score_type(scores)
    if not pairs:
        return np.empty(0, kind), np.empty(0)
    sizes = np.array([len(values) for values, _ in pairs])
    limits = np.array([limit for _, limit in pairs])
    values = np.concatenate([values for values, _ in pairs]).astype(kind)
    owner = np.repeat(np.arange(len(pairs)), sizes)
    order = np.lexsort((-values, owner))
    place = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    counted = order[place < limits[owner]]
    return values[counted], 1.0 / limits[owner[counted]]


def read_maps(maps: Sequence[ArrayLike], truth: PixelTruth, first: int = 0) -> list[Array]:
    """The maps as arrays of the truth's shapes; NaN and +inf where pixels count raise PredictionError.

    Errors number the images from `first`.
    """
    if len(maps) != len(truth):
        raise ValueError(f"one mask for each map: got {len(maps)} maps, {len(truth)} masks")
    scores = []
    for image in range(len(truth)):
        values = as_map(maps[image], first + image)
        truth.check_shape(image, values.shape, first)
        scores.append(values)
    check_scores(scores, truth.seen, first)
    return scores


def check_maps(maps: Sequence[ArrayLike], truth: PixelTruth) -> None:
    """Refuse what `rank_pixels` would, one map at a time."""
    first, images = "", 0
    for image in range(len(truth)):
        try:
            read_maps([maps[image]], truth.subset([image]), image)
        except PredictionError as error:
            first, images = first or str(error), images + 1
    if images:
        raise PredictionError(_so_many(first, images))


def check_scores(scores: Sequence[Array], seen: Sequence[NDArray[np.bool_] | None], first: int = 0) -> None:
    """Raise PredictionError where a pixel that counts is NaN or +inf; images are numbered from `first`."""
    for image, values in enumerate(scores):
        if _rankable(values):
            continue
        counts = seen[image]
        if counts is None or not _rankable(values.ravel()[counts]):
            raise _map_error(scores, seen, first)


def score_type(scores: Sequence[Array]) -> np.dtype[Any]:
    """The floating type that maps are ranked in: float32, or float64 where one needs it."""
    return np.result_type(np.float32, *{_kind(values.dtype) for values in scores})


def _kind(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float64 for what is wider: the order of some longdoubles may be lost, as in most files it was."""
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype


def as_map(values: ArrayLike, image: int) -> Array:
    """One anomaly map as an array (H, W) of real numbers; a tensor is brought to the host."""
    detach = getattr(values, "detach", None)
    array = np.asarray(values if detach is None else detach().cpu().numpy())
    if array.ndim != 2:
        raise ValueError(f"an anomaly map is (H, W); that of image {image} has shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise PredictionError(f"an anomaly map holds real numbers; that of image {image} holds {array.dtype}")
    return array


def blocks(
    scores: Sequence[Array],
    truth: PixelTruth,
    kind: np.dtype[Any],
    size: int | None = None,
    *,
    defects: bool = True,
) -> Iterator[Array]:
    """The pixels that count, BLOCK or `size` at a time, in one buffer: a block is gone with the next one.

    Without `defects` these pixels are -inf, below all others.
    """
    size = BLOCK if size is None else size
    buffer = np.empty(size, kind)
    end = 0
    for values, seen, spots in zip(scores, truth.seen, truth.spots, strict=True):
        flat = values.ravel()
        if seen is not None:
            flat = flat[seen]
            spots = spots if defects else (np.cumsum(seen)[spots] - 1)
        start = 0
        while start < len(flat):
            some = min(size - end, len(flat) - start)
            buffer[end : end + some] = flat[start : start + some]
            if not defects:
                first, last = np.searchsorted(spots, (start, start + some))
                buffer[spots[first:last] + (end - start)] = -np.inf
            start, end = start + some, end + some
            if end == size:
                yield buffer
                end = 0
    if end:
        yield buffer[:end]


def stride(pixels: int, wanted: int) -> int:
    """The step that takes about `wanted` of so many: odd, so that not one column is taken again and again."""
    return max(1, pixels // wanted) | 1


def sample(scores: Sequence[Array], kind: np.dtype[Any]) -> Array:
    """About 2^15 pixels of all images alike, the same ones every time."""
    images = [scores[i] for i in np.unique(np.linspace(0, len(scores) - 1, 64).astype(int))]
    each = _SAMPLE // len(images)
    parts = np.concatenate([image.ravel()[:: stride(image.size, each)] for image in images])
    return parts[parts < np.inf].astype(kind)  # pixels that are left out may hold anything


def _joined(parts: Sequence[Array], kind: np.dtype[Any]) -> Array:
    return np.concatenate([np.empty(0, kind), *parts])


def as_scores(values: ArrayLike) -> Array:
    """Real numbers in the type they are ranked in: float32 or float64, float64 for integers.

    Never float16: NumPy 2.4 with AVX-512 returns an unsorted array from np.sort of some 20,000 of them.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise PredictionError(f"scores must be real numbers; got {array.dtype}")
    kind = np.result_type(np.float32, array.dtype) if array.dtype.kind == "f" else np.float64
    return array.astype(kind, copy=False)


def _rankable(values: Array) -> bool:
    """Whether no value is NaN or +inf: a maximum with NaN is NaN, and NaN is below nothing."""
    return values.dtype.kind != "f" or values.size == 0 or bool(values.max() < np.inf)


def _unrankable(values: Array) -> NDArray[np.bool_]:
    return np.isnan(values) | (values == np.inf)


def _tally(values: Array, bad: NDArray[np.bool_]) -> str:
    nan = int(np.isnan(values).sum())
    infinite = int(bad.sum()) - nan
    return " and ".join(text for text, some in ((f"{nan} NaN", nan), (f"{infinite} +inf", infinite)) if some)


def _map_error(
    maps: Iterable[Array], seen: Sequence[NDArray[np.bool_] | None], number: int
) -> PredictionError:
    """What is wrong with the maps: the first bad image with its count, and how many more there are."""
    first, images = "", 0
    for image, values in enumerate(maps):
        counts = seen[image]
        counted = values.ravel() if counts is None else values.ravel()[counts]
        bad = _unrankable(counted)
        if bad.any():
            images += 1
            text = (
                f"the anomaly map of image {number + image} holds {_tally(counted, bad)} in {bad.size} pixels"
            )
            first = first or f"{text}; scores must be numbers below +inf"
    return PredictionError(_so_many(first, images))


def _so_many(text: str, images: int) -> str:
    return f"{text} ({images} images are so)" if images > 1 else text

"""Scores and truth become one ranking; every metric reads it, none sorts again.

All exact metrics depend on the negatives (normal pixels, normal images) only through how many of them lie
above and on each distinct score of the positives. So the positives, about 2 % of the pixels of a test set,
are the only ones sorted together with something (the weight of their region); the rest is one plain sort of
numbers, in place, in the one copy that is made of the maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.errors import PredictionError

Array = NDArray[Any]


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


def rank(pool: Array, found: Array, gain: NDArray[np.float64] | None = None) -> Ranking:
    """The ranking of `pool`, the scores of positives and negatives together, which is sorted in place.

    found: (P,) the scores of the positives alone, in any order. gain: (P,) what each adds to the overlap.
    """
    pool.sort()
    if gain is None:
        rising = np.sort(found)
    else:
        order = np.argsort(found)
        rising, gain = found[order], gain[order]
    count = len(rising)
    first = np.flatnonzero(np.concatenate(([count > 0], rising[1:] != rising[:-1])))
    distinct, last = rising[first], np.append(first, count)[1:]  # block k is rising[first[k]:last[k]]
    hits = last - first
    left = np.searchsorted(pool, distinct, side="left")
    # Without ties the block of a score ends after its hits. Only where it goes on is its end searched for.
    right = left + hits
    inside = np.flatnonzero(right < len(pool))
    longer = inside[pool[right[inside]] == distinct[inside]]
    right[longer] = np.searchsorted(pool, distinct[longer], side="right")
    overlap = None
    if gain is not None:
        overlap = np.add.reduceat(gain, first)[::-1] if count else np.empty(0)
    return Ranking(
        scores=distinct[::-1],
        hits=hits[::-1],
        above=((len(pool) - right) - (count - last))[::-1],
        ties=((right - left) - hits)[::-1],
        positives=count,
        negatives=len(pool) - count,
        overlap=overlap,
    )


def rank_images(scores: ArrayLike, labels: ArrayLike) -> Ranking:
    """The ranking of N image scores; labels (N,) are 0 for normal and 1 for anomalous."""
    values, positive = _as_scores(scores), np.asarray(labels)
    if values.ndim != 1 or values.shape != positive.shape:
        raise ValueError(
            "image_scores and labels are two rows of one length; "
            f"got shapes {values.shape} and {positive.shape}"
        )
    wrong = ~((positive == 0) | (positive == 1))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"labels are 0 (normal) or 1 (anomalous); got {positive[at]!r} for image {at}")
    bad = _unrankable(values)
    if bad.any():
        raise PredictionError(
            f"{_tally(values, bad)} among {len(values)} image scores, first at image {int(np.argmax(bad))}; "
            "scores must be numbers below +inf"
        )
    return rank(values.copy(), values[positive == 1])


def rank_pixels(
    maps: Sequence[ArrayLike],
    masks: Sequence[ArrayLike | None],
    ignore: Sequence[ArrayLike | None] | None = None,
    regions: bool = True,
) -> Ranking:
    """The ranking of the pixels of all images, which may differ in size.

    maps: (H, W) scores. masks: (H, W), nonzero where defective; None for an image without a defect.
    ignore: (H, W) bool, True for pixels to leave out. regions: also weigh every defect pixel by 1 / area of
    its 8-connected region (Ranking.overlap). Regions are those of the whole mask; their area is what `ignore`
    leaves of them.
    """
    if len(maps) != len(masks) or (ignore is not None and len(ignore) != len(maps)):
        raise ValueError(
            f"one mask for each map: got {len(maps)} maps, {len(masks)} masks"
            + (f" and {len(ignore)} ignore masks" if ignore is not None else "")
        )
    scores = [_as_map(item, image) for image, item in enumerate(maps)]
    pool = np.empty(sum(item.size for item in scores), np.result_type(np.float32, *(s.dtype for s in scores)))
    found: list[Array] = []
    gain: list[NDArray[np.float64]] = []
    end = 0
    for image, (values, mask) in enumerate(zip(scores, masks, strict=True)):
        defect = as_mask(mask, image, values.shape)
        spots = np.flatnonzero(defect)
        region = _regions(defect, spots) if regions and len(spots) else None
        flat = values.ravel()
        seen = seen_pixels(ignore, image, values.shape)
        if seen is None:
            kept = flat
        else:
            kept, inside = flat[seen], seen[spots]
            spots, region = spots[inside], None if region is None else region[inside]
        pool[end : end + len(kept)] = kept
        end += len(kept)
        found.append(flat[spots].astype(pool.dtype, copy=False))
        if region is not None:
            gain.append(1.0 / np.bincount(region)[region])
    positives = np.concatenate([np.empty(0, pool.dtype), *found])
    pool = pool[:end]
    ranking = rank(pool, positives, np.concatenate([np.empty(0), *gain]) if regions else None)
    if not _rankable(pool[-1:]):  # NumPy sorts NaN behind +inf: the last value tells of both
        raise _map_error(scores, ignore)
    return ranking


def check_maps(maps: Sequence[ArrayLike], ignore: Sequence[ArrayLike | None] | None = None) -> None:
    """Refuse NaN and +inf in maps that nothing ranks."""
    scores = [_as_map(item, image) for image, item in enumerate(maps)]
    for image, values in enumerate(scores):
        seen = seen_pixels(ignore, image, values.shape)
        if not _rankable(values if seen is None else values.ravel()[seen]):
            raise _map_error(scores, ignore)


def as_mask(mask: ArrayLike | None, image: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask as bool of the given shape: None has no defect, 0 with 1 or 255 is read, grey is refused."""
    if mask is None:
        return np.zeros(shape, bool)
    values = np.asarray(mask)
    if values.shape != shape:
        raise ValueError(
            f"the map of image {image} has shape {shape}, its mask {values.shape}; resize one first"
        )
    if values.dtype == bool:
        return values
    defect = values != 0
    if defect.any():
        top = values.max()
        if top not in (1, 255) or (values[defect] != top).any():
            levels = np.unique(values)
            raise ValueError(
                f"the mask of image {image} holds the {len(levels)} values {levels[0]} to {levels[-1]}; "
                "a mask is bool, 0 with 1, or 0 with 255: choose a threshold first"
            )
    return defect


def _regions(defect: NDArray[np.bool_], spots: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the 8-connected region of each defect pixel (flat indices `spots`, rising)."""
    from scipy.ndimage import label  # here, so that image metrics and the catalogue do without SciPy

    width = defect.shape[1]
    top, bottom = int(spots[0]) // width, int(spots[-1]) // width  # label only the rows that hold defects
    numbered, _ = label(defect[top : bottom + 1], structure=np.ones((3, 3), dtype=bool))
    return numbered.ravel()[spots - top * width]


def seen_pixels(
    ignore: Sequence[ArrayLike | None] | None, image: int, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """The pixels that count, flat; None if all do."""
    hidden = None if ignore is None else ignore[image]
    if hidden is None:
        return None
    left_out = np.asarray(hidden)
    if left_out.shape != shape or left_out.dtype != bool:
        raise ValueError(
            f"ignore of image {image} must be bool of the map's shape {shape}; "
            f"got {left_out.dtype} of {left_out.shape}"
        )
    return ~left_out.ravel()


def _as_scores(values: ArrayLike) -> Array:
    """Real numbers in the type they are ranked in: their own floating type, float64 for integers."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise PredictionError(f"scores must be real numbers; got {array.dtype}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _as_map(values: ArrayLike, image: int) -> Array:
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"an anomaly map is (H, W); that of image {image} has shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise PredictionError(f"an anomaly map holds real numbers; that of image {image} holds {array.dtype}")
    return array


def _rankable(values: Array) -> bool:
    """Whether no value is NaN or +inf: a maximum with NaN is NaN, and NaN is below nothing."""
    return values.dtype.kind != "f" or values.size == 0 or bool(values.max() < np.inf)


def _unrankable(values: Array) -> NDArray[np.bool_]:
    return np.isnan(values) | (values == np.inf)


def _tally(values: Array, bad: NDArray[np.bool_]) -> str:
    nan = int(np.isnan(values).sum())
    infinite = int(bad.sum()) - nan
    return " and ".join(text for text, some in ((f"{nan} NaN", nan), (f"{infinite} +inf", infinite)) if some)


def _map_error(maps: Iterable[Array], ignore: Sequence[ArrayLike | None] | None) -> PredictionError:
    """What is wrong with the maps: the first bad image with its count, and how many more there are."""
    first, images = "", 0
    for image, values in enumerate(maps):
        seen = seen_pixels(ignore, image, values.shape)
        counted = values.ravel() if seen is None else values.ravel()[seen]
        bad = _unrankable(counted)
        if bad.any():
            images += 1
            text = f"the anomaly map of image {image} holds {_tally(counted, bad)} in {bad.size} pixels"
            first = first or text
    more = f" ({images} images are so)" if images > 1 else ""
    return PredictionError(f"{first}{more}; scores must be numbers below +inf")

"""How far a metric scatters with the choice of test images: bootstrap intervals over images.

A replicate draws as many images as there are, with replacement, normal and anomalous ones apart: how many of
each there are is the data set's design, not chance. Whole images are drawn, as pixels do not stand alone.
An interval lies between two percentiles of the replicates (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, ch. 13). What training images and seed add to the scatter is not in it. With a dozen images
of a class it is too narrow; with one it would say that they do not matter, so there is none.

Image metrics are exact in every replicate, and pixel metrics if the defects (a sample of them, beyond 2^18
pixels) have at most MARKS distinct scores. Else an image's pixels are counted at MARKS scores and between
them, half of these evenly spaced among the defects, half by the logarithm of the false positive rate; what
lies between two is taken to be mixed evenly. On the whole test set, where the exact value is known, the error
of that is known too, and subtracted from every replicate. What is left was 2e-3 at most in any replicate of
F1 and IoU, 6e-4 of the others, and on average a hundredth of the standard deviation, which is less than 1000
replicates leave to chance (scripts/bench_bootstrap.py). Marks are scores that occur, so an increasing
transform moves no interval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.errors import UsageError
from ad_bench.metrics.counting import Places
from ad_bench.metrics.grid import Grid
from ad_bench.metrics.ranking import (
    Array,
    as_map,
    as_scores,
    blocks,
    check_scores,
    rank_images,
    saturating,
    stride,
)
from ad_bench.metrics.truth import PixelTruth

MARKS = 512
_SAMPLE = 1 << 18  # normal pixels, and defect pixels, that the marks are chosen from
_TRIED = 1 << 15  # pixels that the grid is chosen by
_GRID = 1 << 16  # cells of the table that a pixel's place is looked up in
_CHUNK = 1 << 17  # numbers in an array of some replicates: a few such arrays stay in the processor's cache

Weights = NDArray[np.int64]
Values = dict[str, NDArray[np.float64]]
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """From `low` to `high` lie `level` of the replicates; `se` is their standard deviation."""

    low: float
    high: float
    se: float


def bootstrap_images(
    scores: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """The intervals of the image metrics among `names`; none where a class has fewer than two images.

    scores, labels: (N,); a label is 0 (normal) or 1 (anomalous). level: the share of replicates within.
    """
    _check(replicates, level)
    anomalous = int(np.count_nonzero(labels))
    if min(anomalous, np.size(labels) - anomalous) < 2:
        return {}
    values = replicate_images(scores, labels, names, draws(labels, replicates, seed))
    return {name: _interval(found, level) for name, found in values.items()}


def bootstrap_pixels(
    maps: Sequence[ArrayLike],
    truth: PixelTruth,
    names: Sequence[str],
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    *,
    labels: ArrayLike,
    exact: Mapping[str, float] | None = None,
) -> dict[str, Interval]:
    """The intervals of the pixel metrics among `names`.

    There is none where fewer than two images hold a defect pixel, where a single image is normal (every
    replicate would have it), and for pixel_spro where the truth has no saturation areas.
    maps: N of (H, W), each asked for twice, one at a time.
    labels: (N,), as for the image metrics, so that both have the same draws. A replicate whose anomalous
        images hold no defect pixel is left out.
    exact: the exact values. Intervals are moved by how far these are from the counted ones and cut to [0, 1];
        without, they stand about the counted ones.
    """
    _check(replicates, level)
    classes = np.asarray(labels)
    if len(maps) != len(truth) or classes.shape != (len(truth),):
        raise ValueError(
            f"one mask and one label for each map: got {len(maps)} maps, {len(truth)} masks, "
            f"labels of shape {classes.shape}"
        )
    if sum(len(found) > 0 for found in truth.spots) < 2 or np.count_nonzero(classes == 0) == 1:
        return {}
    weights = draws(classes, replicates, seed)
    whole = np.ones((1, len(truth)), weights.dtype)
    values = replicate_pixels(maps, truth, names, np.concatenate([whole, weights]))
    result = {}
    for name, found in values.items():
        counted = found[0]
        shift = 0.0 if exact is None else exact[name] - counted
        defined = found[1:][~np.isnan(found[1:])]
        if not np.isnan(counted + shift) and len(defined) > 1:
            result[name] = _interval(defined, level, shift)
    return result


def draws(labels: ArrayLike, replicates: int, seed: int) -> Weights:
    """(replicates, N) how often each image is drawn; in every row each class has its own number of images.

    From SHAKE-256, not from a library's random stream, none of which is promised to stay: the same on every
    platform, for ever. Two methods scored on one test set, in one order, have the same draws, so that the
    difference of their replicates has an interval too. More replicates begin with the fewer.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or not np.isin(classes, (0, 1)).all():
        raise ValueError(
            f"labels are one row of 0 (normal) and 1 (anomalous); got {np.unique(classes)[:5]} "
            f"in shape {classes.shape}"
        )
    weights = np.zeros((replicates, len(classes)), np.int64)
    for label in (0, 1):
        own = np.flatnonzero(classes == label)
        if not len(own):
            continue
        stream = hashlib.shake_256(f"bootstrap:{seed}:{label}".encode()).digest(4 * replicates * len(own))
        # A 32-bit number scaled to [0, count): an image's chance is off by less than 2^-32.
        drawn = (np.frombuffer(stream, "<u4").astype(np.uint64) * np.uint64(len(own))) >> np.uint64(32)
        row = np.repeat(np.arange(replicates) * len(own), len(own))
        times = np.bincount(drawn.astype(np.int64) + row, minlength=replicates * len(own))
        weights[:, own] = times.reshape(replicates, len(own))
    return weights


def replicate_images(scores: ArrayLike, labels: ArrayLike, names: Sequence[str], weights: Weights) -> Values:
    """By name (R,) each image metric among `names`, exact, where image i counts weights[r, i] times.

    NaN where a replicate lacks a class.
    """
    rank_images(scores, labels)  # refuses what cannot be ranked
    values, positive = as_scores(scores), np.asarray(labels) == 1
    wanted = _wanted(names, "image_")
    order = np.argsort(values)[::-1]
    falling, positive = values[order], positive[order]
    first = np.flatnonzero(np.concatenate(([True], falling[1:] != falling[:-1])))
    parts = []
    for rows in _rows(weights, len(values), len(values)):
        drawn = weights[rows][:, order].astype(np.float64)
        hits, normal = (np.add.reduceat(drawn * own, first, axis=1) for own in (positive, ~positive))
        parts.append(_measure(wanted, hits, normal, {}, np.ones(len(first))))
    return _joined(wanted, parts)


def replicate_pixels(
    maps: Sequence[ArrayLike], truth: PixelTruth, names: Sequence[str], weights: Weights
) -> Values:
    """By name (R,) each pixel metric among `names` from the counts, where image i counts weights[r, i] times.

    NaN where a replicate has no defect pixel, or no normal one. pixel_spro is left out where it is undefined.
    """
    wanted = {
        name: of
        for name, of in _wanted(names, "pixel_").items()
        if of[0] != "pixel_spro" or truth.defects is not None
    }
    if not wanted:
        return {}
    cells = _Cells.of(maps, truth, {metric for metric, _ in wanted.values()})
    parts = []
    for rows in _rows(weights, len(truth), len(cells.share)):
        drawn = weights[rows].astype(np.float64)
        found = drawn[:, cells.defective]
        gains = {name: found @ gain for name, gain in cells.gains.items()}
        parts.append(_measure(wanted, found @ cells.hits, drawn @ cells.normal, gains, cells.share))
    return _joined(wanted, parts)


@dataclass(frozen=True, eq=False)
class _Cells:
    """What each image has at each of K places, highest first: at a mark, or between two."""

    normal: Counts  # (N, K)
    hits: Counts  # (D, K) of the D images that hold a defect pixel
    gains: dict[str, Counts]  # pixel_aupro, pixel_spro: (D, K) what the hits add to the overlap
    defective: NDArray[np.int64]  # (D,) which images they are
    share: Counts  # (K,) see _measure

    @classmethod
    def of(cls, maps: Sequence[ArrayLike], truth: PixelTruth, metrics: set[str]) -> _Cells:
        marks, sample = _survey(maps, truth)
        finite = marks[np.isfinite(marks)]  # a defect never seen stands at -inf, below all places counted
        count = _counter(finite, sample)
        size = 2 * len(marks) + 1
        defective = np.flatnonzero([len(found) > 0 for found in truth.spots])
        normal = np.zeros((len(truth), size))
        hits = np.zeros((len(defective), size))
        gains = {name: np.zeros_like(hits) for name in ("pixel_aupro", "pixel_spro") if name in metrics}
        overlap = truth.per_image(truth.gain) if "pixel_aupro" in gains else []
        row = 0
        for image in range(len(truth)):
            single = truth.subset([image])
            values = as_map(maps[image], image).astype(marks.dtype, copy=False)
            places = count(blocks([values], single, marks.dtype))
            normal[image, size - len(places) :] = places
            if len(finite) < len(marks):
                under = int(np.count_nonzero(np.isneginf(_counted(values, single))))
                normal[image, 1:3] = under, places[0] - under
            if not len(truth.spots[image]):
                continue
            found = _places(marks, values.ravel()[truth.spots[image]])
            hits[row] = np.bincount(found, minlength=size)
            normal[image] -= hits[row]
            if "pixel_aupro" in gains:
                gains["pixel_aupro"][row] = np.bincount(found, overlap[image], size)
            if "pixel_spro" in gains:
                scores, gain = saturating([values], single)
                gains["pixel_spro"][row] = np.bincount(_places(marks, scores), gain, size)
            row += 1
        share = np.where(np.arange(size) % 2, 1.0, 0.5)
        return cls(
            normal[:, ::-1].copy(),
            hits[:, ::-1].copy(),
            {name: gain[:, ::-1].copy() for name, gain in gains.items()},
            defective,
            share[::-1],
        )


def _survey(maps: Sequence[ArrayLike], truth: PixelTruth) -> tuple[Array, Array]:
    """The first look at all maps: the marks, rising, in the type to rank in; pixels to choose a grid by."""
    every = -(-truth.positives // _SAMPLE) | 1
    each = max(1, _SAMPLE // max(len(truth), 1))
    defects: list[Array] = []
    normals: list[Array] = []
    pixels: list[Array] = []
    for image in range(len(truth)):
        values = as_map(maps[image], image)
        truth.check_shape(image, values.shape)
        seen, spots = truth.seen[image], truth.spots[image]
        check_scores([values], [seen], image)
        flat = values.ravel()
        defects.append(flat[spots[::every]])
        taken = np.arange(0, flat.size, stride(flat.size, each))
        if seen is not None:
            taken = taken[seen[taken]]
        pixels.append(flat[taken])
        if len(spots):
            taken = taken[spots[np.searchsorted(spots, taken).clip(max=len(spots) - 1)] != taken]
        normals.append(flat[taken])
    kind = np.result_type(np.float32, *{part.dtype for part in pixels})
    found, normal, sample = (np.concatenate(parts).astype(kind) for parts in (defects, normals, pixels))
    return _marks(np.sort(found), np.sort(normal)), sample[:: stride(len(sample), _TRIED)]


def _marks(found: Array, normal: Array) -> Array:
    """From rising scores, all distinct ones of the defects if they are few; else some of both kinds."""
    distinct = np.unique(found)
    if len(distinct) <= MARKS:
        return distinct
    even = np.linspace(0, len(found) - 1, MARKS // 2).astype(np.int64)
    rank = np.geomspace(1, max(len(normal), 1), MARKS // 2).astype(np.int64)
    tail = normal[len(normal) - rank[rank <= len(normal)]]
    # Where no defect is, no mark is needed.
    return np.unique(np.concatenate([found[even], tail[(tail > found[0]) & (tail < found[-1])]]))


def _counter(marks: Array, sample: Array) -> Callable[[Iterable[Array]], NDArray[np.int64]]:
    """What counts the pixels of one image by their place among U finite marks, (2 U + 1,): see `Places`."""
    tries = [
        Grid.between(marks[0], marks[-1], _GRID, marks.dtype, ordered) if len(marks) else None
        for ordered in (False, True)
    ]
    ways = [Places(marks, grid) for grid in tries if grid is not None]
    best = min(ways, key=lambda way: way.cost(sample), default=None)
    before = np.zeros(2 * len(marks) + 1, np.int64)

    def search(parts: Iterable[Array]) -> NDArray[np.int64]:
        return sum((np.bincount(_places(marks, part), minlength=len(before)) for part in parts), 0 * before)

    def look_up(parts: Iterable[Array]) -> NDArray[np.int64]:
        assert best is not None
        for part in parts:
            best.add(part)
        total = best.finish().copy()
        own = total - before
        before[:] = total
        return own

    return search if best is None else look_up


def _places(marks: Array, scores: Array) -> NDArray[np.int64]:
    """2 j + 1 for a score that is the j-th lowest mark, 2 j for one between it and the mark before."""
    if not len(marks):
        return np.zeros(len(scores), np.int64)
    at = np.searchsorted(marks, scores)
    return 2 * at + (marks[at.clip(max=len(marks) - 1)] == scores)


def _counted(values: Array, single: PixelTruth) -> Array:
    return values.ravel() if single.seen[0] is None else values.ravel()[single.seen[0]]


def _measure(
    wanted: Mapping[str, tuple[str, float]],
    hits: Counts,
    normal: Counts,
    gains: Mapping[str, Counts],
    share: Counts,
) -> Values:
    """The metrics of some replicates from what stands at K places, highest first.

    hits, normal: (R, K) defect and normal pixels, or images. gains: by metric (R, K) what the hits add to the
    overlap. share: (K,) 1 where all at a place have one score, so that they are found together; 1/2 where
    they are mixed: the middle one of them stands for all.
    """
    tp, fp = np.cumsum(hits, axis=1), np.cumsum(normal, axis=1)
    positives, negatives = tp[:, -1], fp[:, -1]
    values: Values = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, (metric, limit) in wanted.items():
            if metric.endswith("_auroc"):
                right = np.einsum("rk,rk->r", hits, negatives[:, None] - fp + normal / 2)
                values[name] = right / (positives * negatives)
            elif metric.endswith("_aupr"):
                true, false = tp - (1 - share) * hits, fp - (1 - share) * normal
                precision = true / np.maximum(true + false, 0.5)
                values[name] = np.einsum("rk,rk->r", hits, precision) / positives
            elif metric in gains:
                values[name] = _area(gains[metric], normal, fp, limit)
            elif metric.endswith("_f1max") or metric == "pixel_iou":
                f1 = np.max(2 * tp / (positives[:, None] + tp + fp), axis=1)
                values[name] = f1 / (2 - f1) if metric == "pixel_iou" else f1
            else:
                raise ValueError(f"no bootstrap is written for {name}; add it to _measure")
        for found in values.values():
            found[(positives == 0) | (negatives == 0)] = np.nan
    return values


def _area(gain: Counts, normal: Counts, fp: Counts, limit: float) -> Counts:
    """(R,) the area under the overlap up to the limit, divided by it; the curve is linear across a place."""
    overlap = np.cumsum(gain, axis=1)
    regions = overlap[:, -1:]
    piece = (overlap - gain / 2) * normal
    end = limit * fp[:, -1:]
    last = np.argmax(fp >= end, axis=1)[:, None]  # where the limit is reached
    whole = np.cumsum(piece, axis=1)
    whole, piece, gain, normal, fp, overlap = (
        np.take_along_axis(values, last, axis=1) for values in (whole, piece, gain, normal, fp, overlap)
    )
    rest = end - (fp - normal)  # of this place's normal pixels, those up to the limit
    area = whole - piece + rest * (overlap - gain + gain * rest / (2 * normal))
    return (area / (end * regions))[:, 0]


def _wanted(names: Sequence[str], prefix: str) -> dict[str, tuple[str, float]]:
    """Metric name -> its name without a limit, and the limit (0 where it has none)."""
    from ad_bench.metrics import evaluation  # here, so that evaluation may import this module

    evaluation.check_names(names)
    usual = {"pixel_aupro": evaluation.AUPRO_LIMIT, "pixel_spro": evaluation.SPRO_LIMIT}
    wanted = {}
    for name in names:
        metric, _, limit = name.partition("@")
        if metric.startswith(prefix):
            wanted[name] = metric, float(limit) if limit else usual.get(metric, 0.0)
    return wanted


def _rows(weights: Weights, images: int, width: int) -> Iterator[slice]:
    if weights.ndim != 2 or weights.shape[1] != images:
        raise ValueError(f"weights are (replicates, {images} images); got shape {weights.shape}")
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, len(weights), step):
        yield slice(start, start + step)


def _joined(wanted: Mapping[str, Any], parts: Sequence[Values]) -> Values:
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def _interval(found: NDArray[np.float64], level: float, shift: float = 0.0) -> Interval:
    low, high = np.clip(np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) + shift, 0, 1)
    return Interval(low=float(low), high=float(high), se=float(np.std(found, ddof=1)))


def _check(replicates: int, level: float) -> None:
    if replicates < 2:
        raise UsageError(f"an interval takes at least 2 replicates, better 1000; got {replicates}")
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval is a share in (0, 1), as 0.95; got {level}")

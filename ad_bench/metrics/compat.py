"""Metrics as other projects compute them, to compare with the tables that they published; never the default.

They are inexact, and `ader`'s pixel values change when the scores are rescaled. What differs from ours:

`imiad`: Xie et al., "IM-IAD: Industrial Image Anomaly Detection Benchmark in Manufacturing",
    arXiv:2301.13359. Reference: M-3LAB/open-iad at 05044fe, metric/cal_metric.py, metric/mvtec3d/au_pro.py.
  1. AUPRO up to 0.3 follows a curve of 101 points: the thresholds are 100 scores of normal pixels at evenly
     spaced ranks, the lowest and the highest among them; the last point calls everything defective. About 30
     points lie below the limit.
  2. The false positive rate of a point is that of its rank: of the normal pixels that tie with the threshold,
     those ranked above it count as called. Defect pixels that tie with it count as missed.
  AUROC and average precision are scikit-learn's, which are exact. F1 and IoU it does not compute.

`ader`: Zhang et al., "ADer: A Comprehensive Benchmark for Multi-class Visual Anomaly Detection",
    arXiv:2406.03262. Reference: zhangzjn/ADer at 902937a, util/metric.py with use_adeval=True, as
    configs/__base__/cfg_common.py and the configs of its benchmark have it; and what that calls, ADEval 1.1.0
    (PyPI), adeval/iterative_cuda.py and adeval/cuda_mem_effic.py.
  1. Pixel AUROC, AP and AUPRO come from a histogram of 50 strips of equal width between the lowest and the
     highest score. A curve has a point for each edge of a strip: what lies at or above it.
  2. Pixels of the highest score count twice, in the last strip and beyond its end.
  3. The curves begin at the pixels of the highest score, not at (0, 0): the area before them is lost.
  4. AP is the area under straight lines between the points, where ours is a sum of steps.
  5. The weight of a region is rounded to float32.
  6. Pixel F1 and IoU are the best of 21 thresholds, 0 to 1 by 0.05, on scores stretched to 0..1, with 1e-8
     added to each denominator.
  Image metrics are scikit-learn's, which are exact. ADer's image score is the maximum of the anomaly map, in
  some configs after an average over 16 x 16 or 21 x 21 pixels; here it is whatever score is given. Its image
  label is whether the mask shows a defect; here it is the label given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.errors import UsageError, closest
from ad_bench.metrics import measures
from ad_bench.metrics.ranking import Ranking, rank_pixels, read_maps, score_type
from ad_bench.metrics.truth import PixelTruth

Array = NDArray[Any]
Masks = Sequence[ArrayLike | None] | PixelTruth
Values = tuple[dict[str, float], dict[str, str]]  # by metric name: the value; the reason if that is NaN

MODES: Mapping[str, str] = {
    "imiad": "as in IM-IAD's tables (open-iad): AUPRO from 100 quantiles of the normal scores, else exact",
    "ader": "as in ADer's tables: pixel metrics from 50 bins or 21 thresholds, image metrics exact",
}

_IMAGE = {  # exact in both projects
    "imiad": ["image_auroc", "image_aupr"],
    "ader": ["image_auroc", "image_aupr", "image_f1max"],
}
_PIXEL = {
    "imiad": ["pixel_auroc", "pixel_aupr", "pixel_aupro"],
    "ader": ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro"],
}
LIMIT = 0.3  # [R] both: the false positive rate up to which AUPRO is taken
_QUANTILES = 100  # [R] open-iad, calculate_au_pro(num_thresholds)
_STRIPS = 50  # [R] ADer, EvalAccumulatorCuda(nstrips)
_CUTS = np.arange(21) * 0.05  # [R] ADer, score_l, score_h, score_step of mF1_max_px and mIoU_max_px
_EPS = 1e-8  # [R] ADer, Evaluator.eps
_BLOCK = 1 << 16  # pixels worked on at once: they and what is made of them stay in the processor's cache


def compatible(
    mode: str,
    maps: Sequence[ArrayLike] | None,
    masks: Masks | None,
    image_scores: ArrayLike,
    labels: ArrayLike,
) -> dict[str, float]:
    """The metrics that the project `mode` computes, by our names, as it computes them; NaN where undefined.

    Arguments as in `evaluate_maps`. Where the project asks for maps of one size these may differ, and all
    pixels count alike. Each map is asked for once. What a PixelTruth ignores is left out. Raises UsageError
    for a mode that is not in MODES.
    """
    return compatible_with_reasons(mode, maps, masks, image_scores, labels)[0]


def compatible_with_reasons(
    mode: str,
    maps: Sequence[ArrayLike] | None,
    masks: Masks | None,
    image_scores: ArrayLike,
    labels: ArrayLike,
) -> Values:
    """The values of `compatible`, and for each that is NaN the reason."""
    from ad_bench.metrics.evaluation import evaluate  # here, so that evaluation may import this module

    if mode not in MODES:
        hint = f"There are {', '.join(MODES)}."
        raise UsageError(f"no compatibility mode '{mode}'." + closest(mode, MODES, hint))
    truth = masks if masks is None or isinstance(masks, PixelTruth) else PixelTruth.of(masks)
    images = evaluate(None, None, image_scores, labels, _IMAGE[mode])
    if maps is None or truth is None:
        return images.values, images.reasons
    defective = np.asarray(labels)
    for name, given in (("maps", maps), ("masks", truth)):
        if len(given) != len(defective):
            raise ValueError(
                f"{len(defective)} image scores but {len(given)} {name}; wanted one for each image"
            )
    for image, shape in enumerate(truth.shapes):
        if shape is None and defective[image]:
            raise ValueError(f"image {image} is anomalous but has no mask; leave it out of the pixel metrics")
    values, reason = _imiad(maps, truth) if mode == "imiad" else _ader(maps, truth)
    pixels = {name: values.get(name, measures.NAN) for name in _PIXEL[mode]}
    reasons = {name: reason for name, value in pixels.items() if np.isnan(value)}
    return images.values | pixels, images.reasons | reasons


def _imiad(maps: Sequence[ArrayLike], truth: PixelTruth) -> tuple[dict[str, float], str]:
    """open-iad's pixel metrics, and why those that are not there are undefined."""
    ranking = rank_pixels(maps, truth)
    reason = _missing(ranking.positives, ranking.negatives)
    if reason:
        return {}, reason
    return {
        "pixel_auroc": measures.auroc(ranking),
        "pixel_aupr": measures.average_precision(ranking),
        "pixel_aupro": _quantile_aupro(ranking),
    }, ""


def _quantile_aupro(ranking: Ranking) -> float:
    """The curve at all thresholds at once, and the area under it."""
    assert ranking.overlap is not None
    # What is above the threshold at a rank has at most the normal pixels of higher ranks at or above itself.
    rank = np.linspace(0, ranking.negatives - 1, _QUANTILES, dtype=np.int64)[::-1]
    beyond = ranking.negatives - 1 - rank
    found = np.searchsorted(ranking.fp, beyond, side="right")
    overlap = np.append(0.0, np.cumsum(ranking.overlap))
    fpr, pro = beyond / ranking.negatives, overlap[found] / overlap[-1]
    return _area(np.append(fpr, 1.0), np.append(pro, 1.0), LIMIT) / LIMIT


def _missing(positives: int, negatives: int) -> str:
    """Why no metric over pixels has a value; empty if they have."""
    if positives and negatives:
        return ""
    if not positives and not negatives:
        return "no pixel to score"
    return "no normal pixel" if positives else "no defective pixel"


def _ader(maps: Sequence[ArrayLike], truth: PixelTruth) -> tuple[dict[str, float], str]:
    """ADer's pixel metrics, and why those that are not there are undefined."""
    pixels = _Pixels.of(maps, truth)
    reason = _missing(len(pixels.defect), len(pixels.normal)) or _no_width(*pixels.ends)
    if reason:
        return {}, reason
    late = f"the normal pixels of the highest score alone make a false positive rate above {LIMIT}"
    return _strip_metrics(pixels) | _cut_metrics(pixels), late


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The scores of the pixels of all images."""

    normal: Array  # (N,)
    defect: Array  # (P,) in the same type
    gain: NDArray[np.float64]  # (P,) 1 / area of the 8-connected region

    @classmethod
    def of(cls, maps: Sequence[ArrayLike], truth: PixelTruth) -> _Pixels:
        scores = read_maps(maps, truth)
        kind = score_type(scores)
        normal, defect = [np.empty(0, kind)], [np.empty(0, kind)]
        for values, spots, seen in zip(scores, truth.spots, truth.seen, strict=True):
            flat = values.ravel()
            defect.append(flat[spots])
            if len(spots) or seen is not None:
                clean = np.ones(flat.size, bool) if seen is None else seen.copy()
                clean[spots] = False
                flat = flat[clean]
            normal.append(flat)
        return cls(
            np.concatenate(normal).astype(kind, copy=False),
            np.concatenate(defect).astype(kind, copy=False),
            truth.gain,
        )

    @property
    def ends(self) -> tuple[Any, Any]:
        """The lowest and the highest score, in the scores' own type, on whose rounding the rest depends."""
        return (
            min(self.normal.min(), self.defect.min()),
            max(self.normal.max(), self.defect.max()),
        )


def _no_width(low: Any, high: Any) -> str:
    """Why scores cannot be cut into strips; empty if they can."""
    if np.isneginf(low):
        return "strips of equal width need finite scores; some pixels were never seen (-inf)"
    if low == high:
        return "all pixels have one score, which leaves no width to cut into strips"
    with np.errstate(over="ignore"):
        span = (high - low) * type(high)(_STRIPS)
    return "" if np.isfinite(span) else f"scores from {low} to {high} overflow {type(high).__name__}"


def _strip_metrics(pixels: _Pixels) -> dict[str, float]:
    """ADEval's AUROC, AP and AUPRO."""
    low, high = pixels.ends
    fp, tp = _called(pixels.normal, low, high), _called(pixels.defect, low, high)
    overlap = _called(pixels.defect, low, high, pixels.gain.astype(np.float32))
    fpr, tpr, pro = fp / fp[-1], tp / tp[-1], overlap / overlap[-1]
    return {
        "pixel_auroc": _area(fpr, tpr),
        "pixel_aupr": _area(tpr, tp / (tp + fp)),
        "pixel_aupro": _area(fpr, pro, LIMIT) / LIMIT if fpr[0] <= LIMIT else measures.NAN,
    }


def _called(scores: Array, low: Any, high: Any, weights: Array | None = None) -> NDArray[np.float64]:
    """(strips + 1,) how many scores, or what weight of them, lie at or above each edge, the highest first.

    Scores at the highest edge count for it and once more for the strip that ends there.
    """
    steps = np.zeros(_STRIPS + 1)
    for part in _blocks(scores):
        # This order of operations, in the scores' type, is that of torch.histc, on CPU and CUDA.
        place = np.minimum((scores[part] - low) * scores.dtype.type(_STRIPS) / (high - low), _STRIPS - 1)
        weight = None if weights is None else weights[part]
        steps[:-1] += np.bincount(place.astype(np.int32), weight, minlength=_STRIPS)
        top = scores[part] == high
        steps[-1] += np.count_nonzero(top) if weight is None else weight[top].sum(dtype=np.float64)
    return np.cumsum(steps[::-1])


def _cut_metrics(pixels: _Pixels) -> dict[str, float]:
    """ADer's best F1 and IoU."""
    low, high = pixels.ends
    fp, tp = _above_cuts(pixels.normal, low, high), _above_cuts(pixels.defect, low, high)
    positives = len(pixels.defect)
    precision, recall = tp / (tp + fp + _EPS), tp / (positives + _EPS)
    f1 = 2 * precision * recall / (precision + recall + _EPS)
    return {"pixel_f1max": float(f1.max()), "pixel_iou": float((tp / (positives + fp + _EPS)).max())}


def _above_cuts(scores: Array, low: Any, high: Any) -> NDArray[np.int64]:
    """(21,) how many scores, stretched to 0..1, lie above each threshold."""
    # ADer asks for torch 2.1.2, so for NumPy 1, where float32 scores meet a float64 threshold in float32.
    cuts = _CUTS.astype(scores.dtype)
    counts = np.zeros(len(cuts), np.int64)
    for part in _blocks(scores):
        stretched = (scores[part] - low) / (high - low)
        counts += [np.count_nonzero(stretched > cut) for cut in cuts]
    return counts


def _blocks(scores: Array) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, len(scores), _BLOCK))


def _area(x: Array, y: Array, limit: float | None = None) -> float:
    """Area under straight lines between points of rising x, up to `limit` if there is one."""
    if limit is not None:
        inside = int(np.searchsorted(x, limit, side="right"))
        slope = (y[inside] - y[inside - 1]) / (x[inside] - x[inside - 1])
        end = y[inside - 1] + slope * (limit - x[inside - 1])
        x, y = np.append(x[:inside], limit), np.append(y[:inside], end)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)

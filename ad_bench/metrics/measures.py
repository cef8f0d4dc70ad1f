"""One function per metric, each over a `Ranking` of images or of pixels. NaN where there are not two classes.

Exact and with ties in closed form: the result is that of a curve with one point per distinct score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.metrics.ranking import Ranking, as_mask, seen_pixels

NAN = float("nan")


def auroc(ranking: Ranking) -> float:
    """Share of (positive, negative) pairs in the right order, ties counting half; integers until the end."""
    if not ranking.two_classes:
        return NAN
    below_twice = 2 * (ranking.negatives - ranking.above) - ranking.ties
    return int(np.dot(ranking.hits, below_twice)) / (2 * ranking.positives * ranking.negatives)


def average_precision(ranking: Ranking) -> float:
    """Precision averaged over the steps of recall, without interpolation (scikit-learn's definition)."""
    if not ranking.two_classes:
        return NAN
    precision = ranking.tp / (ranking.tp + ranking.fp)
    return float(np.sum(ranking.hits * precision) / ranking.positives)


def f1_max(ranking: Ranking) -> float:
    """The highest F1 of any threshold."""
    if not ranking.two_classes:
        return NAN
    tp, fp = int(ranking.tp[ranking.best]), int(ranking.fp[ranking.best])
    return 2 * tp / (ranking.positives + tp + fp)


def iou_max(ranking: Ranking) -> float:
    """The highest intersection over union of any threshold; that of `f1_max`, as IoU = F1 / (2 - F1)."""
    if not ranking.two_classes:
        return NAN
    return int(ranking.tp[ranking.best]) / (ranking.positives + int(ranking.fp[ranking.best]))


def f1_max_threshold(ranking: Ranking) -> float:
    """The score at and above which calling things defective gives `f1_max`; the highest if several do.

    -inf if it is best to call everything defective, unseen pixels included.
    """
    return float(ranking.scores[ranking.best]) if ranking.two_classes else NAN


def aupro(ranking: Ranking, limit: float = 0.3) -> float:
    """Area under the mean overlap of the regions against the false positive rate to `limit`, divided by it.

    The per-region overlap of Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021. Every
    8-connected region of every image counts alike, however small. The false positive rate is over the normal
    pixels of all images. The curve is linear between the points of neighbouring scores and is cut at `limit`
    on that line, so a constant map gives limit / 2, and 1.0 is perfect.
    """
    if not ranking.two_classes:
        return NAN
    if ranking.overlap is None:
        raise ValueError("this ranking was made without regions; AUPRO needs rank_pixels(..., regions=True)")
    # Pixels of one score lift the curve by their overlap while the rate goes from `start` to `stop`. Their
    # share of the area up to the limit: all of what follows `stop`, and of the slope what the limit leaves.
    start, stop = ranking.above / ranking.negatives, ranking.fp / ranking.negatives
    after = np.maximum(limit - stop, 0.0)
    climbed = np.minimum(stop, limit) - np.minimum(start, limit)
    width = ranking.ties / ranking.negatives
    slope = np.divide(climbed**2, 2 * width, out=np.zeros_like(width), where=width > 0)
    share = (after + slope) / limit
    return float(np.sum(ranking.overlap * share) / np.sum(ranking.overlap))


def at_threshold(
    scores: Sequence[Any] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    threshold: float,
    ignore: Sequence[ArrayLike | None] | None = None,
) -> dict[str, float]:
    """Precision, recall, tpr, fpr, iou and f1 when all scores >= `threshold` are called defective.

    Either image scores and labels, both (N,), or maps and masks, sequences of (H, W) that may differ in size,
    with pixels to leave out in `ignore`. A share of nothing (recall without a defect, precision without a
    find) is NaN.
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN; wanted a number, -inf (all is defective) or inf (nothing is)")
    if len(scores) != len(labels):
        raise ValueError(f"scores and labels differ in length: {len(scores)} and {len(labels)}")
    flat = np.ndim(scores[0]) == 0 if len(scores) else True
    pairs = [(scores, labels)] if flat else zip(scores, labels, strict=True)
    if flat and ignore is not None:
        raise ValueError("ignore is for maps; drop images from scores and labels instead")
    tp = fp = positives = total = 0
    for image, (values, truth) in enumerate(pairs):
        numbers = np.asarray(values)
        # float64 of NumPy, as a plain float would be rounded to the type of the scores before it is compared
        called = (numbers >= np.float64(threshold)).ravel()
        positive = as_mask(truth, image, numbers.shape).ravel()
        seen = seen_pixels(ignore, image, numbers.shape)
        if seen is not None:
            positive, called = positive[seen], called[seen]
        right = int(np.count_nonzero(called & positive))
        tp, fp = tp + right, fp + int(np.count_nonzero(called)) - right
        positives, total = positives + int(np.count_nonzero(positive)), total + positive.size
    recall = _share(tp, positives)
    return {
        "precision": _share(tp, tp + fp),
        "recall": recall,
        "tpr": recall,
        "fpr": _share(fp, total - positives),
        "iou": _share(tp, positives + fp),
        "f1": _share(2 * tp, positives + tp + fp),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else NAN

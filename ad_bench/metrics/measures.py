"""One function per metric, each over a `Ranking` of images or of pixels. NaN where there are not two classes.

Exact and with ties in closed form: the result is that of a curve with one point per distinct score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_bench.errors import PredictionError
from ad_bench.metrics.ranking import Ranking, as_map, check_scores
from ad_bench.metrics.truth import PixelTruth, as_mask

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
    return _area(ranking, ranking.overlap, limit)


def spro(ranking: Ranking, limit: float = 0.05) -> float:
    """Area under the mean saturated overlap of the defects against the false positive rate, as `aupro`.

    Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
    Localization", IJCV 2022 (MVTec LOCO AD): the overlap of a defect is the found share of its saturation
    area, at most 1. Defects may overlap one another; a pixel is normal if it is in none. Exact, where the
    authors' code refines thresholds until neighbouring points of the curve are at most 0.01 apart.
    """
    if not ranking.two_classes:
        return NAN
    if ranking.saturated is None:
        raise ValueError("this ranking was made without defects; sPRO needs PixelTruth.of(..., defects=...)")
    return _area(ranking, ranking.saturated, limit)


def _area(ranking: Ranking, gain: NDArray[np.float64], limit: float) -> float:
    """Area under the curve that rises by `gain` at each score, up to a false positive rate of `limit`."""
    within = int(np.searchsorted(ranking.above, limit * ranking.negatives))  # under what follows lies nothing
    share = area_shares(ranking.above[:within], ranking.ties[:within], ranking.negatives, limit)
    return float(np.dot(gain[:within], share) / np.sum(gain))


def area_shares(
    above: NDArray[np.int64], ties: NDArray[np.int64], negatives: int, limit: float
) -> NDArray[np.float64]:
    """(U,) the share of the area up to `limit` that lies under what a curve gains at each score, in [0, 1].

    A gain lifts the curve while the rate goes from above / negatives to (above + ties) / negatives: under it
    lies all that follows, and of the slope itself the half, or what the limit leaves of it.
    """
    stop = (above + ties) / negatives
    share = np.maximum(limit - stop, 0.0)
    tied = np.flatnonzero(ties)
    start, stop = above[tied] / negatives, stop[tied]
    climbed = np.minimum(stop, limit) - np.minimum(start, limit)
    share[tied] += climbed**2 / (2 * (ties[tied] / negatives))
    share /= limit
    return share


def at_best(ranking: Ranking) -> dict[str, float]:
    """What `at_threshold` gives at the threshold of the highest F1, and that `threshold`; all NaN without."""
    if not ranking.two_classes:
        return dict.fromkeys(("threshold", *at_threshold([], [], 0.0)), NAN)
    tp, fp = int(ranking.tp[ranking.best]), int(ranking.fp[ranking.best])
    return {
        "threshold": f1_max_threshold(ranking),
        **rates(tp, fp, ranking.positives, ranking.negatives),
    }


def at_threshold(
    scores: Sequence[Any] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any] | PixelTruth,
    threshold: float,
    ignore: Sequence[ArrayLike | None] | None = None,
) -> dict[str, float]:
    """Precision, recall, tpr, fpr, iou and f1 when all scores >= `threshold` are called defective.

    Either image scores and labels, both (N,), or maps (H, W) that may differ in size, with masks and pixels
    to leave out in `ignore`, or with a PixelTruth. A share of nothing (recall without a defect, precision
    without a find) is NaN.
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN; wanted a number, -inf (all is defective) or inf (nothing is)")
    if len(scores) != len(labels):
        raise ValueError(f"scores and labels differ in length: {len(scores)} and {len(labels)}")
    # float64 of NumPy, as a plain float would be rounded to the type of the scores before it is compared
    limit = np.float64(threshold)
    if not isinstance(labels, PixelTruth) and (not len(scores) or np.ndim(scores[0]) == 0):
        if ignore is not None:
            raise ValueError("ignore is for maps; drop images from scores and labels instead")
        values = np.asarray(scores)
        if np.isnan(values).any():
            raise PredictionError(
                f"{int(np.isnan(values).sum())} NaN among {len(values)} image scores, first at image "
                f"{int(np.argmax(np.isnan(values)))}; scores must be numbers"
            )
        called = values >= limit
        truth = as_mask(labels, 0, called.shape)
        tp, positives = int(np.count_nonzero(called & truth)), int(np.count_nonzero(truth))
        return rates(tp, int(np.count_nonzero(called)) - tp, positives, truth.size - positives)
    pixels = labels if isinstance(labels, PixelTruth) else PixelTruth.of(list(labels), ignore)
    tp = fp = total = 0
    for image, (spots, seen) in enumerate(zip(pixels.spots, pixels.seen, strict=True)):
        values = as_map(scores[image], image)
        pixels.check_shape(image, values.shape)
        check_scores([values], [seen], image)
        called = values.ravel() >= limit
        right = int(np.count_nonzero(called[spots]))
        counted = called if seen is None else called[seen]
        tp, fp, total = tp + right, fp + int(np.count_nonzero(counted)) - right, total + counted.size
    return rates(tp, fp, pixels.positives, total - pixels.positives)


def rates(tp: int, fp: int, positives: int, negatives: int) -> dict[str, float]:
    """The measures of `at_threshold` from counts."""
    recall = _share(tp, positives)
    return {
        "precision": _share(tp, tp + fp),
        "recall": recall,
        "tpr": recall,
        "fpr": _share(fp, negatives),
        "iou": _share(tp, positives + fp),
        "f1": _share(2 * tp, positives + tp + fp),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else NAN

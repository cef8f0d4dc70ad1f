"""A ranking -> its curves, thinned to be drawn. No metric is computed from them: those are exact without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ad_bench.metrics.bounded import BoundedRanking
from ad_bench.metrics.ranking import Ranking

POINTS = 129
DIGITS = 6
Curve: TypeAlias = Mapping[str, list[float]]  # x and y, as many numbers each


def curves(ranking: Ranking | BoundedRanking) -> dict[str, Curve]:
    """`roc`, `pr` and, where the ranking knows regions, `pro`; empty where there are not two classes.

    roc: x false positive rate, y true positive rate. pr: x recall, y precision. pro: x false positive rate, y
    mean overlap of the regions (Bergmann et al., IJCV 2021). Every point lies on the exact curve (of a
    bounded ranking: on that of its cells); at most 129, evenly along it, the first and the last among them.
    """
    if not ranking.two_classes:
        return {}
    tp = np.cumsum(ranking.hits)
    fp = ranking.above + ranking.ties
    found = {
        "roc": _rising(ranking.above, fp, tp / ranking.positives, ranking.negatives),
        "pr": _thinned(tp / ranking.positives, tp / (tp + fp)),
    }
    if ranking.overlap is not None:
        share = np.cumsum(ranking.overlap) / np.sum(ranking.overlap)
        found["pro"] = _rising(ranking.above, fp, share, ranking.negatives)
    return found


def _rising(
    above: NDArray[np.int64], fp: NDArray[np.int64], gained: NDArray[np.float64], negatives: int
) -> Curve:
    """From (0, 0) to (1, 1): level up to the negatives above a score, then up while its ties are passed."""
    x = np.stack([above, fp], axis=1).ravel() / negatives
    y = np.stack([np.append(0.0, gained[:-1]), gained], axis=1).ravel()
    return _thinned(np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]]))


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    if len(x) > POINTS:
        length = np.append(0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
        kept = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], POINTS - 1)))
        kept = np.unique(np.append(kept.clip(max=len(x) - 1), len(x) - 1))
        x, y = x[kept], y[kept]
    return {"x": np.round(x, DIGITS).tolist(), "y": np.round(y, DIGITS).tolist()}

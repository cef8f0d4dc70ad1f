"""From maps, masks, scores and labels to named values: the names, what they need, why one is undefined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ad_bench.errors import UsageError, closest
from ad_bench.metrics import measures
from ad_bench.metrics.ranking import Ranking, check_maps, rank_images, rank_pixels

AUPRO_LIMIT = 0.3  # [P] Bergmann et al., IJCV 2021: up to an average false positive rate of 30 %

_IMAGE: dict[str, tuple[Callable[[Ranking], float], str]] = {
    "image_auroc": (measures.auroc, "area under the ROC curve of the image scores"),
    "image_aupr": (measures.average_precision, "average precision of the image scores"),
    "image_f1max": (
        measures.f1_max,
        "highest F1 of any threshold on the image scores (tuned on the test set)",
    ),
}
_PIXEL: dict[str, tuple[Callable[[Ranking], float], str]] = {
    "pixel_auroc": (measures.auroc, "area under the ROC curve over all pixels"),
    "pixel_aupr": (measures.average_precision, "average precision over all pixels"),
    "pixel_f1max": (measures.f1_max, "highest F1 of any threshold over all pixels (tuned on the test set)"),
    "pixel_iou": (
        measures.iou_max,
        "highest intersection over union of any threshold (tuned on the test set)",
    ),
}
_AUPRO = (
    f"area under the per-region overlap, up to a false positive rate of {AUPRO_LIMIT}; "
    "others as pixel_aupro@0.05"
)


@dataclass(frozen=True)
class Evaluation:
    """Metric values by name; for each that is NaN a reason; the F1-max thresholds of `image` and `pixel`.

    A threshold is a value of the score: what is >= it is called defective. Absent where F1 is undefined.
    """

    values: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)


def catalogue() -> dict[str, str]:
    """Every metric name with one line on what it is."""
    return {name: text for name, (_, text) in {**_IMAGE, **_PIXEL}.items()} | {"pixel_aupro": _AUPRO}


def evaluate(
    maps: Sequence[ArrayLike] | None,
    masks: Sequence[ArrayLike | None] | None,
    image_scores: ArrayLike,
    labels: ArrayLike,
    metrics: Sequence[str] | None = None,
    ignore: Sequence[ArrayLike | None] | None = None,
) -> Evaluation:
    """Exact values of the named metrics, or of all that maps and masks allow, over one test set.

    maps: N anomaly maps (H, W), higher is more anomalous, sizes may differ; None if the method does not
        localise. -inf is ranked below everything (pixels never seen); NaN and +inf raise PredictionError.
    masks: N masks of the maps' sizes, nonzero where defective; None in place of one mask: no defect there,
        which only a normal image may claim; None in place of all: no pixel truth.
    image_scores, labels: (N,); a label is 0 (normal) or 1 (anomalous).
    ignore: N bool arrays (or None for an image), True for pixels that are left out of everything.
    Values do not change under any strictly increasing transform of the scores that merges none of them.
    """
    wanted = _parse(metrics, pixels=maps is not None and masks is not None)
    image_ranking = rank_images(image_scores, labels)
    count = image_ranking.positives + image_ranking.negatives
    for name, given in (("maps", maps), ("masks", masks), ("ignore", ignore)):
        if given is not None and len(given) != count:
            raise ValueError(f"{count} image scores but {len(given)} {name}; wanted one for each image")

    pixel_ranking = None
    on_pixels = any(name.startswith("pixel_") for name in wanted)
    if maps is not None and masks is not None and on_pixels:
        for image, (mask, label) in enumerate(zip(masks, np.asarray(labels), strict=True)):
            if mask is None and label:
                raise ValueError(
                    f"image {image} is anomalous but has no mask; leave it out of the pixel metrics"
                )
        with_regions = any(limit is not None for limit in wanted.values())
        pixel_ranking = rank_pixels(maps, masks, ignore, regions=with_regions)
    elif maps is not None:
        check_maps(maps, ignore)

    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, limit in wanted.items():
        ranking = image_ranking if name in _IMAGE else pixel_ranking
        reason = _undefined(ranking, "image" if name in _IMAGE else "pixel", maps is None)
        if ranking is None or reason:
            values[name], reasons[name] = measures.NAN, reason
        elif limit is not None:
            values[name] = measures.aupro(ranking, limit)
        else:
            values[name] = {**_IMAGE, **_PIXEL}[name][0](ranking)
    rankings = {"image": image_ranking, "pixel": pixel_ranking}
    thresholds = {
        kind: measures.f1_max_threshold(ranking)
        for kind, ranking in rankings.items()
        if ranking is not None and ranking.two_classes
    }
    return Evaluation(values, reasons, thresholds)


def evaluate_maps(
    maps: Sequence[ArrayLike] | None,
    masks: Sequence[ArrayLike | None] | None,
    image_scores: ArrayLike,
    labels: ArrayLike,
    metrics: Sequence[str] | None = None,
    ignore: Sequence[ArrayLike | None] | None = None,
) -> dict[str, float]:
    """The values of `evaluate` alone, NaN where undefined."""
    return evaluate(maps, masks, image_scores, labels, metrics, ignore).values


def check_names(metrics: Sequence[str]) -> None:
    """Refuse metric names that do not exist, before anything is computed."""
    _parse(metrics, pixels=True)


def _parse(metrics: Sequence[str] | None, pixels: bool) -> dict[str, float | None]:
    """Metric name -> its false positive limit, None for metrics that have none."""
    if metrics is None:
        metrics = [*_IMAGE, *(name for name in catalogue() if pixels and name not in _IMAGE)]
    elif isinstance(metrics, str):
        metrics = [metrics]
    wanted: dict[str, float | None] = {}
    for name in metrics:
        base, at, text = name.partition("@")
        if base not in catalogue():
            known = catalogue()
            raise UsageError(f"no metric '{name}'." + closest(base, known, f"There are {', '.join(known)}."))
        wanted[name] = AUPRO_LIMIT if base == "pixel_aupro" else None
        if not at:
            continue
        if base != "pixel_aupro":
            raise UsageError(f"'{name}': only pixel_aupro takes a limit; write {base}")
        try:
            limit = float(text)
        except ValueError:
            limit = measures.NAN
        if not 0 < limit <= 1:
            raise UsageError(
                f"'{name}': the limit is a false positive rate in (0, 1], as in pixel_aupro@0.05"
            )
        wanted[name] = limit
    return wanted


def _undefined(ranking: Ranking | None, kind: str, no_maps: bool) -> str:
    """Why metrics over images or pixels have no value; empty if they have."""
    if ranking is None:
        return "the method gives no anomaly maps" if no_maps else "the data set has no masks"
    if ranking.two_classes:
        return ""
    if not ranking.positives and not ranking.negatives:
        return f"no {kind} to score"
    missing = "defective" if kind == "pixel" else "anomalous"
    return f"no {missing} {kind}" if not ranking.positives else f"no normal {kind}"

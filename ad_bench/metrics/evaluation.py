"""From maps, masks, scores and labels to named values: the names, what they need, why one is undefined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ad_bench.errors import UsageError, closest
from ad_bench.metrics import measures
from ad_bench.metrics.bounded import BoundedRanking, rank_bounded
from ad_bench.metrics.curves import Curve, curves
from ad_bench.metrics.ranking import Ranking, as_map, check_maps, rank_images, rank_pixels
from ad_bench.metrics.truth import PixelTruth

AUPRO_LIMIT = 0.3  # [P] Bergmann et al., IJCV 2021: up to an average false positive rate of 30 %
SPRO_LIMIT = 0.05  # [P] Bergmann et al., IJCV 2022, the headline figure of MVTec LOCO AD

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
# Areas up to a false positive rate: the measure, the limit where none is named, and what they are.
_LIMITED: dict[str, tuple[Callable[[Ranking, float], float], float, str]] = {
    "pixel_aupro": (
        measures.aupro,
        AUPRO_LIMIT,
        f"area under the per-region overlap, up to a false positive rate of {AUPRO_LIMIT}; "
        "others as pixel_aupro@0.05",
    ),
    "pixel_spro": (
        measures.spro,
        SPRO_LIMIT,
        f"area under the saturated per-defect overlap (MVTec LOCO AD), up to a rate of {SPRO_LIMIT}; "
        "others as pixel_spro@0.3",
    ),
}


@dataclass(frozen=True)
class Evaluation:
    """Metric values by name; for each that is NaN a reason.

    thresholds: the F1-max thresholds of `image` and `pixel`. A threshold is a value of the score: what is >=
    it is called defective. Absent where F1 is undefined. points: at these, precision, recall, tpr, fpr, iou
    and f1. bounds: for a value that is not exact, how far from it the exact one can be. Empty: all are exact.
    curves: those of the pixels, to be drawn (see curves.py), where they were asked for.
    """

    values: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    points: dict[str, dict[str, float]] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether every value is."""
        return not self.bounds


def catalogue() -> dict[str, str]:
    """Every metric name with one line on what it is."""
    return {name: text for name, (_, text) in {**_IMAGE, **_PIXEL}.items()} | {
        name: text for name, (_, _, text) in _LIMITED.items()
    }


def evaluate(
    maps: Sequence[ArrayLike] | None,
    masks: Sequence[ArrayLike | None] | PixelTruth | None,
    image_scores: ArrayLike,
    labels: ArrayLike,
    metrics: Sequence[str] | None = None,
    ignore: Sequence[ArrayLike | None] | None = None,
    defects: Sequence[Sequence[tuple[ArrayLike, int]] | None] | None = None,
    *,
    memory: float | None = None,
    device: Any = None,
    draw: bool = False,
) -> Evaluation:
    """Exact values of the named metrics, or of all that maps and masks allow, over one test set.

    maps: N anomaly maps (H, W), higher is more anomalous, sizes may differ; None if the method does not
        localise. -inf is ranked below everything (pixels never seen); NaN and +inf raise PredictionError.
        Any sequence will do; one that makes its maps when asked for them is asked once for each.
    masks: N masks of the maps' sizes, nonzero where defective; None in place of one mask: no defect there,
        which only a normal image may claim; None in place of all: no pixel truth. Or a PixelTruth, which has
        read them (and `ignore` and `defects`) already.
    image_scores, labels: (N,); a label is 0 (normal) or 1 (anomalous).
    ignore: N bool arrays (or None for an image), True for pixels that are left out of everything.
    defects: for pixel_spro, of each image its (mask, saturation area) pairs; see PixelTruth.of.
    memory: bytes that the scores of all pixels may take. Where they take more, the maps are asked for twice
        and counted in a histogram: then `bounds` says how far the values may be off.
    device: a torch device that sorts the pixels, as "cuda"; the values are the same.
    draw: give the curves of the pixels too.
    Values do not change under any strictly increasing transform of the scores that merges none of them.
    """
    given = isinstance(masks, PixelTruth)
    if given and (ignore is not None or defects is not None):
        raise ValueError("a PixelTruth has read ignore and defects already; give them to PixelTruth.of")
    saturating = defects is not None or (isinstance(masks, PixelTruth) and masks.defects is not None)
    wanted = _parse(metrics, pixels=maps is not None and masks is not None, defects=saturating)
    image_ranking = rank_images(image_scores, labels)
    count = image_ranking.positives + image_ranking.negatives
    for name, values in (("maps", maps), ("masks", masks), ("ignore", ignore)):
        if values is not None and len(values) != count:
            raise ValueError(f"{count} image scores but {len(values)} {name}; wanted one for each image")

    pixel_ranking: Ranking | BoundedRanking | None = None
    if maps is not None:
        truth = (
            masks
            if isinstance(masks, PixelTruth)
            else PixelTruth.of([None] * count if masks is None else masks, ignore, defects)
        )
        if masks is not None and any(name.startswith("pixel_") for name in wanted):
            for image, label in enumerate(np.asarray(labels)):
                if label and not truth.known[image]:
                    raise ValueError(
                        f"image {image} is anomalous but has no mask; leave it out of the pixel metrics"
                    )
            with_regions = any(name.startswith("pixel_aupro") for name in wanted)
            if memory is not None and _bytes(maps, truth) > memory:
                pixel_ranking = rank_bounded(maps, truth, regions=with_regions)
            else:
                pixel_ranking = rank_pixels(maps, truth, regions=with_regions, device=device)
        else:
            check_maps(maps, truth)

    found = Evaluation({})
    for name, limit in wanted.items():
        image = name in _IMAGE
        ranking = image_ranking if image else pixel_ranking
        reason = _undefined(ranking, "image" if image else "pixel", maps is None)
        if not reason and name.startswith("pixel_spro") and not saturating:
            reason = "the data set has no saturation areas of defects"
        if ranking is None or reason:
            found.values[name], found.reasons[name] = measures.NAN, reason
        elif isinstance(ranking, BoundedRanking):
            found.values[name], found.bounds[name] = ranking.measure(name.partition("@")[0], limit)
        elif limit is not None:
            found.values[name] = _LIMITED[name.partition("@")[0]][0](ranking, limit)
        else:
            found.values[name] = {**_IMAGE, **_PIXEL}[name][0](ranking)
    for kind, ranking in (("image", image_ranking), ("pixel", pixel_ranking)):
        if ranking is not None and ranking.two_classes:
            point = measures.at_best(ranking) if isinstance(ranking, Ranking) else ranking.at_best()
            found.thresholds[kind] = point.pop("threshold")
            found.points[kind] = point
    if draw and pixel_ranking is not None:
        found.curves.update(curves(pixel_ranking))
    return found


def evaluate_maps(
    maps: Sequence[ArrayLike] | None,
    masks: Sequence[ArrayLike | None] | PixelTruth | None,
    image_scores: ArrayLike,
    labels: ArrayLike,
    metrics: Sequence[str] | None = None,
    ignore: Sequence[ArrayLike | None] | None = None,
    defects: Sequence[Sequence[tuple[ArrayLike, int]] | None] | None = None,
) -> dict[str, float]:
    """The values of `evaluate` alone, all exact, NaN where undefined."""
    return evaluate(maps, masks, image_scores, labels, metrics, ignore, defects).values


def check_names(metrics: Sequence[str]) -> None:
    """Refuse metric names that do not exist, before anything is computed."""
    _parse(metrics, pixels=True, defects=True)


def _bytes(maps: Sequence[ArrayLike], truth: PixelTruth) -> int:
    """What the scores of all pixels take as float32: by the masks or, without any, by the first map."""
    known = [shape for shape in truth.shapes if shape is not None]
    if not len(truth):
        return 0
    typical = known[0] if known else as_map(maps[0], 0).shape
    return 4 * sum(h * w for h, w in (typical if shape is None else shape for shape in truth.shapes))


def _parse(metrics: Sequence[str] | None, pixels: bool, defects: bool) -> dict[str, float | None]:
    """Metric name -> its false positive limit, None for metrics that have none."""
    if metrics is None:
        kinds = [*_IMAGE, *(_PIXEL if pixels else ()), *(_LIMITED if pixels else ())]
        metrics = [name for name in kinds if name != "pixel_spro" or defects]
    elif isinstance(metrics, str):
        metrics = [metrics]
    wanted: dict[str, float | None] = {}
    for name in metrics:
        base, at, text = name.partition("@")
        known = catalogue()
        if base not in known:
            raise UsageError(f"no metric '{name}'." + closest(base, known, f"There are {', '.join(known)}."))
        wanted[name] = _LIMITED[base][1] if base in _LIMITED else None
        if not at:
            continue
        if base not in _LIMITED:
            raise UsageError(f"'{name}': only {' and '.join(_LIMITED)} take a limit; write {base}")
        try:
            limit = float(text)
        except ValueError:
            limit = measures.NAN
        if not 0 < limit <= 1:
            raise UsageError(f"'{name}': the limit is a false positive rate in (0, 1], as in {base}@0.05")
        wanted[name] = limit
    return wanted


def _undefined(ranking: Ranking | BoundedRanking | None, kind: str, no_maps: bool) -> str:
    """Why metrics over images or pixels have no value; empty if they have."""
    if ranking is None:
        return "the method gives no anomaly maps" if no_maps else "the data set has no masks"
    if ranking.two_classes:
        return ""
    if not ranking.positives and not ranking.negatives:
        return f"no {kind} to score"
    missing = "defective" if kind == "pixel" else "anomalous"
    return f"no {missing} {kind}" if not ranking.positives else f"no normal {kind}"

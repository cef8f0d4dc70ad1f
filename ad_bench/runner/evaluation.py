"""Predictions of one cell -> its metrics, in the geometry of the paper and in that of the original images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from ad_bench.datasets.masks import read_defects, read_mask
from ad_bench.geometry import Geometry, resize_map
from ad_bench.metrics import PixelTruth, at_threshold, evaluate
from ad_bench.metrics.bootstrap import Interval, bootstrap_images, bootstrap_pixels
from ad_bench.metrics.compat import compatible_with_reasons
from ad_bench.metrics.curves import Curve
from ad_bench.metrics.settings import MetricSettings
from ad_bench.samples import ANOMALOUS, Boxes, MaskFiles, Sample, mask_files

IMAGE = "image_"
PIXEL = "pixel_"
_BOOTSTRAP_SEED = 0  # one for all: methods are compared on the same resamples of a test set
Values = dict[str, dict[str, float]]  # by geometry (image, paper, full) and metric


@dataclass
class Scored:
    """What a record says of the predictions; metrics[geometry][name], NaN with a reason where undefined."""

    metrics: Values = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    pixels_seen: float | None = None
    warnings: list[str] = field(default_factory=list)
    intervals: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    operating_points: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    bounds: Values = field(default_factory=dict)
    compat: Values = field(default_factory=dict)
    by_defect: dict[str, Values] = field(default_factory=dict)
    bootstrap: dict[str, Any] | None = None
    averaged: list[str] = field(default_factory=list)  # kinds of defects that `metrics` is the mean over
    curves: dict[str, dict[str, Curve]] = field(default_factory=dict)  # of the pixels of `full`, to be drawn

    def facts(self) -> dict[str, Any]:
        """The fields of a record; curves have a file of their own."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "curves"}


@dataclass(frozen=True, eq=False)
class View(Sequence[np.ndarray]):
    """The maps of one geometry, each made when it is asked for, and what is true of their pixels."""

    truth: PixelTruth
    make: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.truth)

    @overload
    def __getitem__(self, image: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, image: slice) -> list[np.ndarray]: ...
    def __getitem__(self, image: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(image, slice):
            return [self.make(i) for i in range(*image.indices(len(self)))]
        return self.make(image)


def score_cell(
    samples: Sequence[Sample],
    scores: np.ndarray,
    maps: Sequence[np.ndarray] | None,
    original_sizes: Sequence[tuple[int, int]],
    geometry: Geometry,
    paper_eval: Mapping[str, Any] | None,
    metric: Mapping[str, Any] | MetricSettings | None = None,
    tick: Callable[[str], object] = lambda text: None,
    average: Sequence[str] = (),
) -> Scored:
    """Image metrics, and the pixel metrics of both geometries (`paper` and `full`).

    scores (N,), maps N of (h, w) in the method's geometry or None, original_sizes N of (H, W). `paper_eval`
    holds size, mask_interpolation and mask_rule, or is None: then pixel metrics are `full` alone. `metric` is
    the group of the configuration. Maps are brought to their size one by one. `average`: see `measure`.
    Raises DataError for a mask that is missing or of another size.
    """
    wheres = ["paper", "full"] if paper_eval is not None else ["full"]
    reason = _no_pixel_metrics(samples, maps)
    if reason or maps is None:
        return measure(samples, scores, {}, metric, dict.fromkeys(wheres, str(reason)), tick, average)
    tick("masks")
    truth = _read_truth(tuple(samples), tuple(original_sizes), geometry, paper_eval)
    views = {"full": View(truth.full, lambda i: geometry.backward(maps[i], original_sizes[i])[0])}
    if truth.paper is not None:
        shapes = truth.paper.shapes
        views = {"paper": View(truth.paper, lambda i: resize_map(maps[i], shapes[i] or ()))} | views
    result = measure(samples, scores, views, metric, {}, tick, average)
    result.pixels_seen = truth.seen
    result.warnings = [*truth.warnings, *result.warnings]
    return result


def measure(
    samples: Sequence[Sample],
    scores: np.ndarray,
    views: Mapping[str, View],
    metric: Mapping[str, Any] | MetricSettings | None = None,
    without: Mapping[str, str] | None = None,
    tick: Callable[[str], object] = lambda text: None,
    average: Sequence[str] = (),
) -> Scored:
    """All that `metric` asks for: of the image scores, and of the pixels of each view.

    views: by geometry. without: geometries that have no pixel metrics, with the reason.
    average: kinds of defects; each is then scored with all normal images, and a metric is the mean of their
    values (MVTec LOCO: structural and logical count alike). Intervals are left out, thresholds are pooled.
    """
    settings = metric if isinstance(metric, MetricSettings) else MetricSettings.from_config(metric)
    labels = np.array([sample.label for sample in samples], int)
    result = Scored()
    tick("image metrics")
    _add(result, "image", None, scores, labels, settings, settings.chosen(IMAGE, False))
    for where, reason in (without or {}).items():
        names = settings.chosen(PIXEL, False)
        result.metrics[where] = dict.fromkeys(names, float("nan"))
        result.undefined |= {f"{where}.{name}": reason for name in names}
    held: dict[str, tuple[Sequence[np.ndarray], PixelTruth]] = {}
    for where, view in views.items():
        names = settings.chosen(PIXEL, view.truth.defects is not None)
        if not names:
            result.metrics[where] = {}
            continue
        tick(f"pixel metrics, {_GEOMETRY.get(where, where)}")
        size = 4 * sum(h * w for h, w in filter(None, view.truth.shapes))
        maps: Sequence[np.ndarray] = list(view) if size <= settings.memory else view
        _add(result, where, (maps, view.truth), scores, labels, settings, names)
        if settings.by_defect or settings.compat or average:
            held[where] = maps, view.truth
    if settings.replicates:
        result.bootstrap = {
            "replicates": settings.replicates,
            "level": settings.level,
            "seed": _BOOTSTRAP_SEED,
        }
    if settings.compat:
        _add_compatible(result, held, scores, labels, settings, tick)
    if settings.by_defect or average:
        tick("metrics by kind of defect")
        _add_by_defect(result, held, samples, scores, labels, settings)
    if average:
        _average(result, average)
    return result


def _average(result: Scored, kinds: Sequence[str]) -> None:
    """Every metric becomes its mean over kinds of defects; NaN with a reason where one has no value."""
    for where, values in result.metrics.items():
        for name, value in values.items():
            parts = {kind: result.by_defect.get(kind, {}).get(where, {}).get(name) for kind in kinds}
            lacking = [kind for kind, part in parts.items() if part is None or part != part]
            if not lacking:
                values[name] = sum(part for part in parts.values() if part is not None) / len(parts)
            elif value == value:
                values[name] = float("nan")
                result.undefined[f"{where}.{name}"] = f"it has no value for {', '.join(lacking)}"
    result.averaged, result.intervals, result.bootstrap = list(kinds), {}, None
    result.bounds = {}  # those of the pooled values; sets this large have no bound for a mean


_GEOMETRY = {"paper": "geometry of the paper", "full": "original geometry"}


def _add(
    result: Scored,
    where: str,
    pixels: tuple[Sequence[np.ndarray], PixelTruth] | None,
    scores: np.ndarray,
    labels: np.ndarray,
    settings: MetricSettings,
    names: Sequence[str],
) -> None:
    """Values, operating points and intervals of one geometry; of the images where no pixels are given."""
    maps, truth = pixels if pixels is not None else (None, None)
    found = evaluate(maps, truth, scores, labels, names, memory=settings.memory, draw=where == "full")
    kind = "image" if pixels is None else "pixel"
    threshold = settings.image_threshold if pixels is None else settings.pixel_threshold
    result.metrics[where] = found.values
    result.undefined |= {f"{where}.{name}": reason for name, reason in found.reasons.items()}
    if found.bounds:
        result.bounds[where] = found.bounds
    if found.curves:
        result.curves[where] = found.curves
    points: dict[str, dict[str, float]] = {}
    if kind in found.thresholds:
        result.thresholds[where] = found.thresholds[kind]
        points["f1max"] = {"threshold": found.thresholds[kind], **found.points[kind]}
    if threshold is not None:
        given = (
            at_threshold(scores, labels, threshold) if pixels is None else at_threshold(*pixels, threshold)
        )
        points["given"] = {"threshold": threshold, **given}
    if points:
        result.operating_points[where] = points
    if settings.replicates:
        how: dict[str, Any] = {
            "replicates": settings.replicates,
            "level": settings.level,
            "seed": _BOOTSTRAP_SEED,
        }
        defined = [name for name in names if found.values[name] == found.values[name]]
        intervals: Mapping[str, Interval]
        if pixels is None:
            intervals = bootstrap_images(scores, labels, defined, **how)
        else:
            intervals = bootstrap_pixels(*pixels, defined, labels=labels, exact=found.values, **how)
        if intervals:
            result.intervals[where] = {
                name: {"low": one.low, "high": one.high, "se": one.se} for name, one in intervals.items()
            }


def _add_compatible(
    result: Scored,
    held: Mapping[str, tuple[Sequence[np.ndarray], PixelTruth]],
    scores: np.ndarray,
    labels: np.ndarray,
    settings: MetricSettings,
    tick: Callable[[str], object],
) -> None:
    """Other projects score maps at the size of the method's own evaluation: `paper`, where there is one."""
    where = next(iter(held), None)
    for mode in settings.compat:
        tick(f"metrics as {mode} computes them")
        maps, truth = held[where] if where is not None else (None, None)
        if isinstance(maps, View):  # they are written for maps in memory
            reason = "the maps take more than metric.memory"
            names = [name for name in result.metrics[str(where)] if "@" not in name]
            result.compat[mode] = dict.fromkeys(names, float("nan"))
            result.undefined |= {f"{mode}.{name}": reason for name in names}
            continue
        values, reasons = compatible_with_reasons(mode, maps, truth, scores, labels)
        result.compat[mode] = values
        result.undefined |= {f"{mode}.{name}": reason for name, reason in reasons.items()}


def _add_by_defect(
    result: Scored,
    held: Mapping[str, tuple[Sequence[np.ndarray], PixelTruth]],
    samples: Sequence[Sample],
    scores: np.ndarray,
    labels: np.ndarray,
    settings: MetricSettings,
) -> None:
    """Each kind of defect on its own images and all normal ones."""
    for defect in sorted({sample.defect for sample in samples if sample.label == ANOMALOUS}):
        own = [i for i, sample in enumerate(samples) if sample.label != ANOMALOUS or sample.defect == defect]
        names = settings.chosen(IMAGE, False)
        values = {"image": evaluate(None, None, scores[own], labels[own], names).values}
        for where, (maps, truth) in held.items():
            names = settings.chosen(PIXEL, truth.defects is not None)
            part = View(truth.subset(own), lambda i, maps=maps, own=own: maps[own[i]])  # type: ignore[misc]
            found = evaluate(part, part.truth, scores[own], labels[own], names, memory=settings.memory)
            values[where] = found.values
        result.by_defect[defect] = values


def _no_pixel_metrics(samples: Sequence[Sample], maps: Sequence[np.ndarray] | None) -> str | None:
    if maps is None:
        return "the method gives no anomaly map"
    unknown = [s.name for s in samples if s.label == ANOMALOUS and s.mask is None]
    if unknown:
        return f"{len(unknown)} anomalous image(s) have no mask, first {unknown[0]}"
    boxed = [s.name for s in samples if isinstance(s.mask, Boxes) and not s.mask.filled]
    if boxed:
        return (
            f"{len(boxed)} image(s) have boxes in place of masks, first {boxed[0]}; "
            "dataset.samples.filled=true counts every pixel of a box as defective"
        )
    return None


@dataclass(frozen=True, eq=False)
class _Truth:
    """The pixel truth of a test set in both geometries, and what reading its masks showed."""

    full: PixelTruth
    paper: PixelTruth | None
    seen: float  # share of all pixels
    warnings: tuple[str, ...]


_KEPT: dict[Any, _Truth] = {}  # of the last test sets: methods in a row are scored on the same


def _read_truth(
    samples: tuple[Sample, ...],
    sizes: tuple[tuple[int, int], ...],
    geometry: Geometry,
    paper_eval: Mapping[str, Any] | None,
) -> _Truth:
    """Every mask, read one by one: brought to the method's view, and as it is.

    In `full`, what a crop hid counts as missed where defective, else not at all; sPRO is defined there alone,
    since its saturation areas are in pixels of the original masks.
    """
    written = tuple(p.stat().st_mtime_ns for s in samples for p in mask_files(s.mask) if p.is_file())
    key = samples, sizes, geometry, str(sorted((paper_eval or {}).items())), written
    if key in _KEPT:
        return _KEPT[key]
    full, paper, empty, seen_pixels = [], [], [], 0
    saturating = any(isinstance(s.mask, MaskFiles) and s.mask.saturations for s in samples)
    for sample, size in zip(samples, sizes, strict=True):
        mask, seen = read_mask(sample.mask, size, sample.name), geometry.seen(size)
        if sample.label == ANOMALOUS and not mask.any():
            empty.append(sample.name)
        hidden = None if seen is None else [~seen & ~mask]
        defects = [read_defects(sample.mask, size, sample.name)] if saturating else None
        full.append(PixelTruth.of([mask], hidden, defects))
        seen_pixels += mask.size if seen is None else int(seen.sum())
        if paper_eval is not None:
            rule, interpolation = paper_eval["mask_rule"], paper_eval["mask_interpolation"]
            paper.append(
                PixelTruth.of([geometry.forward_mask(mask, rule, interpolation, paper_eval.get("size"))])
            )
    warnings = [f"{len(empty)} anomalous image(s) have an empty mask, first {empty[0]}"] if empty else []
    found = _Truth(
        PixelTruth.join(full),
        PixelTruth.join(paper) if paper_eval is not None else None,
        seen_pixels / sum(h * w for h, w in sizes),
        tuple(warnings),
    )
    if len(_KEPT) >= 2:
        _KEPT.pop(next(iter(_KEPT)))
    _KEPT[key] = found
    return found

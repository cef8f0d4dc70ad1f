"""Predictions of one cell -> its metrics, in the geometry of the paper and in that of the original images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ad_bench.datasets.images import read_mask
from ad_bench.geometry import Geometry, resize_map
from ad_bench.metrics import catalogue, evaluate
from ad_bench.samples import ANOMALOUS, Sample

IMAGE = "image_"
PIXEL = "pixel_"


@dataclass
class Scored:
    """What a record says of the predictions; metrics[geometry][name], NaN with a reason where undefined."""

    metrics: dict[str, dict[str, float]]
    undefined: dict[str, str]
    thresholds: dict[str, float]
    pixels_seen: float | None
    warnings: list[str] = field(default_factory=list)


def score_cell(
    samples: Sequence[Sample],
    scores: np.ndarray,
    maps: Sequence[np.ndarray] | None,
    original_sizes: Sequence[tuple[int, int]],
    geometry: Geometry,
    paper_eval: Mapping[str, Any] | None,
    names: Sequence[str] | None = None,
    tick: Callable[[str], object] = lambda text: None,
) -> Scored:
    """Image metrics, and the pixel metrics of both geometries (`paper` and `full`).

    scores (N,), maps N of (h, w) in the method's geometry or None, original_sizes N of (H, W). `paper_eval`
    holds size, mask_interpolation and mask_rule, or is None: then pixel metrics are `full` alone.
    Raises DataError for a mask that is missing or of another size.
    """
    labels = np.array([sample.label for sample in samples])
    known = list(catalogue()) if names is None else list(names)
    image_names = [name for name in known if name.startswith(IMAGE)]
    pixel_names = [name for name in known if name.startswith(PIXEL)]
    tick("image metrics")
    image = evaluate(None, None, scores, labels, image_names)
    result = Scored(
        {"image": image.values}, _named("image", image.reasons), _named("image", image.thresholds), None
    )
    reason = _no_pixel_metrics(samples, maps)
    geometries = ["paper", "full"] if paper_eval is not None else ["full"]
    if reason or not pixel_names:
        for where in geometries:
            result.metrics[where] = dict.fromkeys(pixel_names, float("nan"))
            result.undefined |= {f"{where}.{name}": str(reason) for name in pixel_names}
        return result
    assert maps is not None
    masks = [read_mask(s.mask, size, s.name) for s, size in zip(samples, original_sizes, strict=True)]
    empty = [
        s.name for s, mask in zip(samples, masks, strict=True) if s.label == ANOMALOUS and not mask.any()
    ]
    if empty:
        result.warnings.append(f"{len(empty)} anomalous image(s) have an empty mask, first {empty[0]}")
    if paper_eval is not None:
        tick("pixel metrics, geometry of the paper")
        _add(result, "paper", _paper(masks, maps, geometry, paper_eval), scores, labels, pixel_names)
    tick("pixel metrics, original geometry")
    full_maps, ignore, seen = _full(masks, maps, original_sizes, geometry)
    _add(result, "full", (full_maps, masks), scores, labels, pixel_names, ignore)
    result.pixels_seen = seen
    return result


def _named(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{where}.{name}": value for name, value in values.items()}


def _no_pixel_metrics(samples: Sequence[Sample], maps: Sequence[np.ndarray] | None) -> str | None:
    if maps is None:
        return "the method gives no anomaly map"
    unknown = [s.name for s in samples if s.label == ANOMALOUS and s.mask is None]
    if unknown:
        return f"{len(unknown)} anomalous image(s) have no mask, first {unknown[0]}"
    return None


def _add(
    result: Scored,
    where: str,
    pixels: tuple[list[np.ndarray], list[np.ndarray]],
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    ignore: list[np.ndarray | None] | None = None,
) -> None:
    found = evaluate(*pixels, scores, labels, names, ignore=ignore)
    result.metrics[where] = found.values
    result.undefined |= _named(where, found.reasons)
    result.thresholds |= {f"{where}.{k}": v for k, v in found.thresholds.items() if k != "image"}


def _paper(
    masks: Sequence[np.ndarray], maps: Sequence[np.ndarray], geometry: Geometry, paper_eval: Mapping[str, Any]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Masks brought to the method's view, maps to the masks' size."""
    rule, interpolation = paper_eval["mask_rule"], paper_eval["mask_interpolation"]
    small = [geometry.forward_mask(mask, rule, interpolation, paper_eval.get("size")) for mask in masks]
    sized = [resize_map(m, (s.shape[0], s.shape[1])) for m, s in zip(maps, small, strict=True)]
    return sized, small


def _full(
    masks: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    original_sizes: Sequence[tuple[int, int]],
    geometry: Geometry,
) -> tuple[list[np.ndarray], list[np.ndarray | None], float]:
    """Maps on the original images; what a crop hid counts as missed where defective, else not at all."""
    full_maps, ignore, seen_pixels, pixels = [], [], 0, 0
    for mask, small, size in zip(masks, maps, original_sizes, strict=True):
        full, seen = geometry.backward(small, (int(size[0]), int(size[1])))
        full_maps.append(full)
        ignore.append(None if seen is None else ~seen & ~mask)
        pixels += full.size
        seen_pixels += full.size if seen is None else int(seen.sum())
    return full_maps, ignore, seen_pixels / pixels

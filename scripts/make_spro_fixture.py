"""Writes tests/metrics/spro_reference.json by running the evaluation code of MVTec LOCO AD on made maps.

The authors' code stands in M-3LAB/open-iad at 05044fe, below metric/mvtec_loco. Needs a checkout of that,
tqdm, tifffile and Pillow: python scripts/make_spro_fixture.py OPEN_IAD
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "metrics" / "spro_reference.json"
LIMITS = [0.01, 0.05, 0.1, 0.3, 1.0]  # MAX_FPRS of evaluate_experiment.py
# How far apart neighbouring points of the refined curve may be: the authors' default, and twice as fine.
# Between two points a rising curve is off by less than their distance, and so is its area over the limit.
DISTANCES = [0.01, 0.005]
GOOD, LOGICAL, STRUCTURAL = "good", "logical_anomalies", "structural_anomalies"
CASES: list[dict[str, Any]] = [
    {"seed": 1, "images": 9, "size": [24, 30], "levels": None},
    {"seed": 2, "images": 12, "size": [31, 20], "levels": None},
    {"seed": 3, "images": 9, "size": [24, 24], "levels": 40},
    {"seed": 4, "images": 6, "size": [16, 24], "levels": 4},
]


def made(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each image its `map` (H, W), `kind` and `channels`: (mask, saturation threshold), which overlap.

    A threshold is as in defects_config.json: an int is in pixels, a float is relative to the area. Only draws
    of integers and uniforms and exactly rounded operations: alike under every NumPy and machine.
    """
    rng = np.random.default_rng(case["seed"])
    height, width = case["size"]
    images = []
    for image in range(case["images"]):
        kind = (GOOD, LOGICAL, STRUCTURAL)[image % 3]
        channels: list[tuple[np.ndarray, int | float]] = []
        for number in range(0 if kind == GOOD else int(rng.integers(1, 4))):
            mask = np.zeros((height, width), bool)
            top, left = rng.integers(height - 4), rng.integers(width - 4)
            mask[top : top + rng.integers(2, 11), left : left + rng.integers(2, 11)] = True
            if number == 1:  # one channel in several pieces
                mask[rng.integers(height, size=4), rng.integers(width, size=4)] = True
            threshold: int | float
            if kind == STRUCTURAL:
                threshold = 1.0
            elif number % 2:
                threshold = float(0.25 + 0.5 * rng.random())
            else:
                threshold = int(rng.integers(2, 120))  # now and then more than the area, which is then meant
            channels.append((mask, threshold))
        values = sum(rng.random((height, width)) for _ in range(4)) / 4
        for mask, _ in channels:
            values = values + 0.2 * rng.random() * mask
        if case["levels"]:
            values = np.rint(values * case["levels"]) / case["levels"]
        images.append({"map": values, "kind": kind, "channels": channels})
    return images


def fingerprint(images: list[dict[str, Any]]) -> int:
    """Tells whether the maps are those that the stored values were computed from."""
    parts = [part for image in images for part in (image["map"], *(mask for mask, _ in image["channels"]))]
    return zlib.crc32(b"".join(part.tobytes() for part in parts))


def reference(images: list[dict[str, Any]], distance: float | None) -> dict[str, dict[str, float]]:
    """Area by kind of defect and limit; `distance`: of refined points, None for a point at every score."""
    from metric.mvtec_loco.src.aggregation import MetricsAggregator
    from metric.mvtec_loco.src.image import AnomalyMap, DefectConfig, GroundTruthChannel, GroundTruthMap
    from metric.mvtec_loco.src.util import get_auc_for_max_fpr

    maps = [AnomalyMap(image["map"]) for image in images]
    truth = []
    for image in images:
        channels = [
            GroundTruthChannel(mask, DefectConfig("defect", 255, threshold, isinstance(threshold, float)))
            for mask, threshold in image["channels"]
        ]
        truth.append(GroundTruthMap(channels) if channels else None)
    aggregator = MetricsAggregator(truth, maps)
    if distance is None:
        every = np.unique([image["map"] for image in images])
        # A pixel is called if it is above a threshold: the points of all scores follow from those below them.
        aggregator._refinement_callback([*(every[::-1]), every[0] - 1.0])
        metrics = aggregator.threshold_metrics
    else:
        metrics = aggregator.run(curve_max_distance=distance)
    found: dict[str, dict[str, float]] = {}
    for name, kinds in {
        "all": (GOOD, LOGICAL, STRUCTURAL),
        LOGICAL: (LOGICAL, GOOD),
        STRUCTURAL: (STRUCTURAL, GOOD),
    }.items():
        chosen = metrics.reduce_to_images(
            [own for own, image in zip(maps, images, strict=True) if image["kind"] in kinds]
        )
        rates, overlaps = chosen.get_fp_rates(), chosen.get_mean_spros()
        found[name] = {
            str(limit): float(get_auc_for_max_fpr(rates, overlaps, limit, scale_to_one=True))
            for limit in LIMITS
        }
    return found


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    cases = []
    for case in CASES:
        images = made(case)
        refined = {
            str(distance): reference(images, distance)
            for distance in DISTANCES
            if not case["levels"]  # the authors' first thresholds must all differ
        }
        values = {"exact": reference(images, None), "refined": refined}
        cases.append({**case, "crc32": fingerprint(images), **values})
    made_by = (
        "by running the evaluation code of MVTec LOCO AD in M-3LAB/open-iad at 05044fe "
        f"(scripts/make_spro_fixture.py) with NumPy {np.__version__}"
    )
    OUT.write_text(json.dumps({"made": made_by, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

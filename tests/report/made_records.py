"""Records for the report's tests: written as the runner writes them, in its folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = {
    "image": ("image_auroc", "image_aupr", "image_f1max"),
    "paper": ("pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_aupro"),
    "full": ("pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_aupro"),
}


def record(
    dataset: str = "made_up",
    category: str = "a",
    method: str = "patchcore",
    value: float | None = 0.9,
    **changes: Any,
) -> dict[str, Any]:
    """A finished record whose metrics all are `value`; `changes` replace top-level keys."""
    made = {
        "schema": 1,
        "status": "done",
        "reason": None,
        "error": None,
        "dataset": dataset,
        "category": category,
        "method": method,
        "variant": "",
        "protocol": "full",
        "seed": 0,
        "title": {"patchcore": "PatchCore", "padim": "PaDiM"}.get(method, method),
        "taxonomy": "baseline" if method in ("random", "mean_image") else "memory_bank",
        "fidelity": "reference",
        "source": "survey",
        "paper": {"arxiv": "2106.08265", "selection": "last"},
        "fingerprint": {"cell": "0" * 12},
        "metrics": {section: dict.fromkeys(names, value) for section, names in METRICS.items()},
        "undefined": {},
        "timing": {
            "fit_seconds": 2.0,
            "predict_seconds": 1.0,
            "evaluate_seconds": 0.5,
            "images_per_second": 40.0,
            "latency_ms_p50": 12.0,
            "latency_ms_p95": 15.0,
        },
        "memory": {"host_peak_bytes": 700_000_000, "device_peak_bytes": None},
        "model": {"parameters": 11_000_000, "bytes": 44_000_000, "flops": 3_000_000_000},
        "pixels_seen": 0.75,
        "weights": [{"name": "resnet18.tv_in1k", "source": "folder", "sha256": "ab" * 32, "as_paper": True}],
        "marks": [],
        "hardware": {"cpu": "a processor", "device": "cpu", "threads": 2},
        "date": "2026-11-22T21:00:00+00:00",
    }
    if changes.get("status") in ("failed", "skipped"):
        for key in ("metrics", "undefined", "timing", "memory", "model", "pixels_seen"):
            del made[key]
    return {**made, **changes}


def write(results: Path, *records: dict[str, Any]) -> list[Path]:
    """Store records where `adbench run` would."""
    paths = []
    for made in records:
        row = f"{made['method']}@{made['variant']}" if made["variant"] else made["method"]
        folder = results / "cells" / made["dataset"] / made["category"] / row.replace("/", "_")
        folder = folder / f"{made['protocol']}-seed{made['seed']}" / made["fingerprint"]["cell"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
        paths.append(folder / "record.json")
    return paths


def sure(
    made: dict[str, Any], below: float, above: float, error: float, level: float = 0.95
) -> dict[str, Any]:
    """The record with a bootstrap interval from `below` under to `above` over each metric."""
    made["bootstrap"] = {"replicates": 1000, "level": level, "seed": 0}
    made["intervals"] = {
        section: {
            name: {"low": value - below, "high": value + above, "se": error}
            for name, value in metrics.items()
            if value is not None
        }
        for section, metrics in made["metrics"].items()
    }
    return made


def bounded(made: dict[str, Any], bound: float) -> dict[str, Any]:
    """The record with its pixel AUROC in both geometries known to `bound` only."""
    made["bounds"] = {section: {"pixel_auroc": bound} for section in ("paper", "full")}
    return made

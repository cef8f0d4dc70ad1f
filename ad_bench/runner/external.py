"""Anomaly maps of another program -> records, so that anyone can put a row into the tables."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from ad_bench import config, records
from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.images import decode
from ad_bench.errors import UsageError
from ad_bench.external import read_maps, read_scores
from ad_bench.geometry import Geometry, resize_map
from ad_bench.records import SCHEMA, CellId
from ad_bench.runner.evaluation import score_cell
from ad_bench.runner.fingerprint import digest
from ad_bench.samples import NORMAL, Sample


def evaluate_external(
    maps: Path, overrides: Sequence[str], dirs: Sequence[Path], name: str, scores: Path | None
) -> None:
    """Score the maps of every category that the data set has on this disk, or of those named.

    Maps are compared with the original masks alone (`full`): what another program's paper did is not known.
    Raises DataError where a map is missing, UsageError where `name` is a method of the benchmark.
    """
    if name in config.options("method", dirs):
        raise UsageError(f"--name {name}: that is a method of adbench; give the row a name of its own")
    if not maps.exists():
        raise UsageError(
            f"--maps {maps} does not exist; it is a folder of .npy, .npz or .tiff files, or one .npz"
        )
    console = Console()
    (choice,) = config.choices([*overrides, "method=mean_image"], dirs)
    dataset = DataSet.from_config(choice.config.dataset)
    categories = choice.categories or tuple(dataset.available())
    tests = [s for category in categories for s in dataset.samples(category) if s.split == "test"]
    # All categories at once: a file that would serve two of them is then refused.
    every = read_maps(maps, tests)
    values = read_scores(scores, tests) if scores else np.array([m.max() for m in every])
    for category in categories:
        own = [index for index, sample in enumerate(tests) if sample.category == category]
        cell = CellId(dataset.id, category, name, "", "full", 0)
        record = _record(cell, [tests[i] for i in own], [every[i] for i in own], values[own])
        with records.writing(
            Path(choice.config.paths.results), cell, record["fingerprint"]["cell"], True
        ) as folder:
            records.write_json(folder / "record.json", record)
        found = record["metrics"]["full"] | record["metrics"]["image"]
        shown = ", ".join(f"{key} {value:.4f}" for key, value in sorted(found.items()) if value == value)
        console.print(f"{cell}: {shown}", highlight=False, soft_wrap=True)


def _record(
    cell: CellId, tests: Sequence[Sample], maps: Sequence[np.ndarray], values: np.ndarray
) -> records.Record:
    sizes = [decode(sample.image).shape[:2] for sample in tests]  # as the masks are read: turned upright
    geometry = Geometry.from_config({})
    scored = score_cell(tests, values, _at_full_size(maps, sizes), sizes, geometry, None)
    labels = [s.label for s in tests]
    content = digest(
        [[float(m.sum(dtype=np.float64)) for m in maps], values.tolist(), [s.name for s in tests]]
    )
    return {
        "schema": SCHEMA,
        "status": "done",
        "reason": None,
        "error": None,
        "dataset": cell.dataset,
        "category": cell.category,
        "method": cell.method,
        "variant": "",
        "protocol": cell.protocol,
        "seed": 0,
        "title": cell.method,
        "taxonomy": "external",
        "source": "external",
        "fidelity": None,
        "paper": None,
        "fingerprint": {"cell": content, "fit": None, "evaluation": content},
        "counts": {
            "train": None,
            "test_normal": labels.count(NORMAL),
            "test_anomalous": len(labels) - labels.count(NORMAL),
        },
        "metrics": scored.metrics,
        "undefined": scored.undefined,
        "thresholds": scored.thresholds,
        "pixels_seen": scored.pixels_seen,
        "warnings": scored.warnings,
        "marks": ["maps of another program, original geometry"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _at_full_size(maps: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    return [m if m.shape == size else resize_map(m, size) for m, size in zip(maps, sizes, strict=True)]

"""Anomaly maps of another program -> records, so that anyone can put a row into the tables."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ad_bench import config, groundtruth, records
from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.files import IMAGE_SUFFIXES
from ad_bench.datasets.images import decode
from ad_bench.errors import DataError, ResultsError, UsageError
from ad_bench.external import find_maps, read_maps, read_scores
from ad_bench.geometry import Geometry, resize_map
from ad_bench.groundtruth import NORMAL_FOLDERS, Truth
from ad_bench.metrics import PixelTruth
from ad_bench.metrics.settings import MetricSettings
from ad_bench.records import SCHEMA, CellId
from ad_bench.runner.evaluation import Scored, View, measure, score_cell
from ad_bench.runner.fingerprint import digest
from ad_bench.runner.pictures import write_curves, write_pictures
from ad_bench.runner.scores import write_scores
from ad_bench.samples import NORMAL, Sample


def evaluate_external(
    maps: Path, overrides: Sequence[str], dirs: Sequence[Path], name: str, scores: Path | None
) -> None:
    """Score the maps of every category that the data set has on this disk, or of those named.

    Maps are compared with the original masks alone (`full`): what another program's paper did is not known.
    Raises DataError where a map is missing, UsageError where `name` is a method of the benchmark.
    """
    _check_name(name, dirs)
    _check_maps(maps)
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
        result = _of_dataset(
            cell, [tests[i] for i in own], [every[i] for i in own], values[own], choice.config.metric
        )
        record = _record(cell, result)
        _write(Path(choice.config.paths.results), cell, record, result)
        found = record["metrics"]["full"] | record["metrics"]["image"]
        shown = ", ".join(f"{key} {value:.4f}" for key, value in sorted(found.items()) if value == value)
        console.print(f"{cell}: {shown}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Row:
    """Where the values go: a row of the tables called `name`, under the id of a data set."""

    name: str
    dataset: str

    def __post_init__(self) -> None:
        # The report makes a folder of it.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.dataset):
            raise UsageError(
                f"--as {self.dataset}: a data set's id is made of letters, digits and . _ - and starts with "
                "a letter or a digit"
            )


def evaluate_with_truth(
    maps: Path,
    truth: Path,
    overrides: Sequence[str] = (),
    dirs: Sequence[Path] = (),
    scores: Path | None = None,
    normal: Collection[str] = NORMAL_FOLDERS,
    json: Path | None = None,
    row: Row | None = None,
) -> dict[str, Any]:
    """Score maps against a folder of masks (`groundtruth.match`); prints a table for each category.

    Returns what `json` gets: `categories` with the metrics of each as in a record, and their `mean`. With
    `row` a record of each category is written too. Raises DataError where maps and masks do not fit; nothing
    is written then.
    """
    if row is not None:
        _check_name(row.name, dirs)
    _check_maps(maps)
    if any(re.match(r"dataset\b", word.lstrip("+~")) for word in overrides):
        raise UsageError("--ground-truth stands in place of a data set; --as ID names it in the tables")
    (choice,) = config.choices([*overrides, "method=mean_image"], dirs)
    settings = MetricSettings.from_config(choice.config.metric)
    readers = find_maps(maps)
    matched = groundtruth.match(truth, maps, readers, normal, choice.categories)
    everyone = [sample for category in matched for sample in category.samples]
    given = read_scores(scores, everyone, IMAGE_SUFFIXES) if scores else None
    console, results, done = Console(), [], 0
    for category in matched:  # one at a time: masks and maps of all need not fit into memory
        own = None if given is None else given[done : done + len(category.maps)]
        done += len(category.maps)
        read = [readers[name] for name in category.maps]
        results.append(_of_truth(category.category, groundtruth.read_truth(category), read, own, settings))
        _show(console, results[-1])
    found = {
        "schema": SCHEMA,
        "maps": str(maps),
        "ground_truth": str(truth),
        "date": _now(),
        "categories": {result.category: result.facts() for result in results},
    }
    if len(results) > 1:
        metrics = _mean([result.scored.metrics for result in results])
        by_defect = _mean([result.scored.by_defect for result in results])
        found["mean"] = {**metrics, **({"by_defect": by_defect} if by_defect else {})}
        title = f"mean of {len(results)} categories"
        _show_values(console, title, Scored(metrics, by_defect=by_defect))
    if json is not None:
        try:
            records.replace_file(json, lambda path: records.write_json(path, found))
        except OSError as error:
            raise ResultsError(f"cannot write --json {json}: {error.strerror or error}") from error
    for result in results if row is not None else ():
        assert row is not None
        cell = CellId(row.dataset, result.category, row.name, "", "full", 0)
        _write(Path(choice.config.paths.results), cell, _record(cell, result), result)
    return found


def _check_name(name: str, dirs: Sequence[Path]) -> None:
    if name in config.options("method", dirs):
        raise UsageError(f"--name {name}: that is a method of adbench; give the row a name of its own")


def _check_maps(maps: Path) -> None:
    if not maps.exists():
        raise UsageError(
            f"--maps {maps} does not exist; it is a folder of .npy, .npz or .tiff files, or one .npz"
        )


# --- one category


@dataclass(frozen=True)
class Result:
    """What one category came to."""

    category: str
    labels: list[int]
    content: str  # changes with the maps, the scores and the truth
    scored: Scored
    keep: Callable[[Path], object] = lambda folder: None  # writes what goes beside the record

    def facts(self) -> dict[str, Any]:
        """The keys of a record that say what was measured."""
        normal = self.labels.count(NORMAL)
        counts = {"train": None, "test_normal": normal, "test_anomalous": len(self.labels) - normal}
        return {"counts": counts, **self.scored.facts()}


def _of_dataset(
    cell: CellId,
    tests: Sequence[Sample],
    maps: Sequence[np.ndarray],
    values: np.ndarray,
    metric: Mapping[str, Any],
) -> Result:
    sizes = [decode(sample.image).shape[:2] for sample in tests]  # as the masks are read: turned upright
    full = [_at_size(m, size, s.name) for m, size, s in zip(maps, sizes, tests, strict=True)]
    whole = Geometry.from_config({})
    scored = score_cell(tests, values, full, sizes, whole, None, metric)

    def keep(folder: Path) -> None:
        write_scores(folder, tests, values)
        write_pictures(folder, tests, values, full, whole)

    content = digest(
        [[float(m.sum(dtype=np.float64)) for m in maps], values.tolist(), [s.name for s in tests]]
    )
    return Result(cell.category, [s.label for s in tests], content, scored, keep)


def _of_truth(
    category: str,
    truth: Truth,
    readers: Sequence[Callable[[], np.ndarray]],
    values: np.ndarray | None,
    settings: MetricSettings,
) -> Result:
    """Maps are read twice: for their maxima and sizes, and when the metrics ask for them."""
    shapes, sums, highest = [], [], []
    for read in readers:
        m = read()
        shapes.append((int(m.shape[0]), int(m.shape[1])))
        sums.append(float(m.sum(dtype=np.float64)))
        highest.append(m.max())
    scores = np.array(highest) if values is None else values
    names = [sample.name for sample in truth.samples]
    # A normal image without a mask has the size that all masks have or, where they differ, that of its map.
    sizes = {mask.shape for mask in truth.masks if mask is not None}
    masks = [
        np.zeros(next(iter(sizes)) if len(sizes) == 1 else shape, bool) if mask is None else mask
        for shape, mask in zip(shapes, truth.masks, strict=True)
    ]
    loco = truth.defects is not None
    pixels = PixelTruth.of(masks, None, truth.defects)
    view = View(pixels, lambda i: _at_size(readers[i](), masks[i].shape, names[i]))
    # As MVTec's code: structural and logical anomalies each with all normal images, then their mean.
    settings = replace(settings, by_defect=True) if loco else settings
    scored = measure(truth.samples, scores, {"full": view}, settings)
    if loco and len(scored.by_defect) > 1:
        scored.by_defect["mean"] = _mean(list(scored.by_defect.values()))
    scored.pixels_seen = 1.0
    scored.warnings = [*truth.warnings, *_other_sizes(truth, shapes), *scored.warnings]
    areas = [[area for _, area in some or ()] for some in truth.defects or ()]
    content = digest([sums, scores.tolist(), names, [_hash(mask) for mask in masks], areas])
    return Result(category, [s.label for s in truth.samples], content, scored)


def _hash(mask: np.ndarray) -> str:
    return hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()


def _mean(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every value that all have, NaN where one of them is; nested like the first."""
    mean: dict[str, Any] = {}
    for key, first in parts[0].items():
        if not all(key in part for part in parts):
            continue
        values = [part[key] for part in parts]
        mean[key] = _mean(values) if isinstance(first, Mapping) else math.fsum(values) / len(values)
    return mean


def _other_sizes(truth: Truth, shapes: Sequence[tuple[int, int]]) -> list[str]:
    """What is said of maps that have not the size of their mask, or of the other masks."""
    said = []
    resized = [
        f"{sample.name} {_size(shape)} to {_size(mask.shape)}"
        for sample, shape, mask in zip(truth.samples, shapes, truth.masks, strict=True)
        if mask is not None and shape != mask.shape
    ]
    if resized:
        said.append(
            f"{len(resized)} of {len(shapes)} maps are not of their mask's size and were resized bilinearly, "
            f"first {resized[0]}"
        )
    sizes = {mask.shape for mask in truth.masks if mask is not None}
    odd = [
        f"{sample.name} {_size(shape)}"
        for sample, shape, mask in zip(truth.samples, shapes, truth.masks, strict=True)
        if mask is None and sizes and shape not in sizes
    ]
    if odd:
        wanted = ", ".join(_size(size) for size in sorted(sizes)[:3]) + (", ..." if len(sizes) > 3 else "")
        done = (
            "they were resized to it"
            if len(sizes) == 1
            else "without a mask nothing says their size, so they are scored as they are and count by their "
            "pixels: write them at the size of their image"
        )
        said.append(
            f"{len(odd)} normal images have maps of none of the masks' sizes ({wanted}), first {odd[0]}; "
            + done
        )
    return said


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _at_size(m: np.ndarray, size: Sequence[int], name: str) -> np.ndarray:
    if m.shape == tuple(size):
        return m
    if np.isneginf(m).any():
        raise DataError(
            f"the map of {name} is {_size(m.shape)}, wanted {_size(size)}, and holds -inf (pixels never "
            "seen), which cannot be interpolated; write it at full size"
        )
    return resize_map(m, size)


# --- what is shown and kept


def _show(console: Console, result: Result) -> None:
    normal = result.labels.count(NORMAL)
    title = f"{result.category}: {normal} normal and {len(result.labels) - normal} anomalous images"
    _show_values(console, title, result.scored)
    for key, reason in result.scored.undefined.items():
        console.print(f"{key} is undefined: {reason}", style="dim", highlight=False, markup=False)
    for text in result.scored.warnings:
        line = f"warning: {result.category}: {text}"
        console.print(line, style="yellow", highlight=False, soft_wrap=True, markup=False)


def _show_values(console: Console, title: str, scored: Scored) -> None:
    """A line for each metric: its value, its interval, and the value for each group of defects."""
    console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    table = Table("metric", box=SIMPLE_HEAD)
    table.add_column("all" if scored.by_defect else "value", justify="right")
    if scored.intervals:
        table.add_column(f"{100 * (scored.bootstrap or {})['level']:g} % interval", justify="right")
    for group in scored.by_defect:
        table.add_column(Text(group.removesuffix("_anomalies")), justify="right")
    for part, values in scored.metrics.items():
        for name, value in values.items():
            bound = scored.bounds.get(part, {}).get(name)
            cells = [name, _figure(value) + (f" ±{bound:.1g}" if bound is not None else "")]
            if scored.intervals:
                interval = scored.intervals.get(part, {}).get(name)
                cells.append(f"{interval['low']:.4f} {interval['high']:.4f}" if interval else "")
            groups = scored.by_defect.values()
            table.add_row(*cells, *(_figure(group.get(part, {}).get(name, math.nan)) for group in groups))
        table.add_section()
    console.print(table)


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _write(results: Path, cell: CellId, record: records.Record, result: Result) -> None:
    with records.writing(results, cell, record["fingerprint"]["cell"], True) as folder:
        write_curves(folder, result.scored.curves)
        result.keep(folder)
        records.write_json(folder / "record.json", record)


def _record(cell: CellId, result: Result) -> records.Record:
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
        "fingerprint": {"cell": result.content, "fit": None, "evaluation": result.content},
        **result.facts(),
        "marks": ["maps of another program, original geometry"],
        "date": _now(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""The leaderboard: one row per data set, method, variant and protocol, with every metric and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.rows import (
    MISSING,
    Entry,
    Read,
    Record,
    Value,
    best_on_test,
    mean_over,
    metric_of,
    names_below,
    number,
    sub_means,
    summarise,
    under,
)
from ad_bench.report.tables import remarks_of, taxonomy_of
from ad_bench.report.text import figure

SECTIONS = ("image", "paper", "full")
_ORDER = ("auroc", "aupr", "f1max", "iou", "aupro", "spro")

# Metrics that are also averaged over textures and over objects alone, where the data set tells them apart.
GROUPED = (
    *("image.image_auroc", "image.image_aupr", "paper.pixel_auroc", "paper.pixel_aupr"),
    *("full.pixel_auroc", "full.pixel_aupr", "full.pixel_aupro"),
)

# Operating points of a record, and what is shown of each.
POINTS = ("f1max", "given")
POINT_FIGURES = ("threshold", "precision", "recall", "fpr", "iou", "f1")

# Costs: column, section and key of a record, and how many cells become one figure.
COSTS = (
    ("fit_seconds", "timing", "fit_seconds", "mean"),
    ("predict_seconds", "timing", "predict_seconds", "mean"),
    ("images_per_second", "timing", "images_per_second", "mean"),
    ("latency_ms_p50", "timing", "latency_ms_p50", "mean"),
    ("latency_ms_p95", "timing", "latency_ms_p95", "mean"),
    ("host_peak_bytes", "memory", "host_peak_bytes", "max"),
    ("device_peak_bytes", "memory", "device_peak_bytes", "max"),
    ("model_bytes", "model", "bytes", "max"),
    ("parameters", "model", "parameters", "max"),
    ("flops", "model", "flops", "max"),
)


@dataclass(frozen=True)
class Place:
    """One row of the leaderboard. A metric stands where every finished category defines it.

    `done` of `total` categories have a record; over fewer than all, its means are no average of the data set.
    """

    entry: Entry
    taxonomy: str
    done: int
    total: int
    seeds: int
    metrics: Mapping[str, Value]
    compat: Mapping[str, Value]  # imiad.pixel_aupro, ...: as other projects compute it, never among `metrics`
    best: Mapping[str, Value]  # image.image_auroc, ...: at the best test epoch, never among `metrics`
    points: Mapping[str, Value]  # image.f1max.precision, full.given.fpr, ...
    costs: Mapping[str, float | int | None]
    failed: int
    skipped: int
    notes: tuple[str, ...]
    groups: Mapping[str, Mapping[str, Value]] = field(
        default_factory=dict
    )  # metric of GROUPED -> texture, ...

    @property
    def complete(self) -> bool:
        """True if every category of the data set is done."""
        return self.done == self.total


Figure = Callable[[Place], float | None]


def metrics_of(rows: Iterable[Entry]) -> list[str]:
    """`image.image_auroc`, `paper.pixel_auroc`, ...: all that finished records have, in a fixed order."""
    return sorted(set().union(*(entry.metrics for entry in rows)), key=metric_rank)


def metric_rank(name: str) -> tuple[int, int, str]:
    """Sorts `image.image_auroc`, `full.pixel_aupro`, ...: by section, then as the survey names metrics."""
    section, _, metric = name.partition(".")
    family = metric.partition("@")[0].rpartition("_")[2]
    return (
        SECTIONS.index(section) if section in SECTIONS else len(SECTIONS),
        _ORDER.index(family) if family in _ORDER else len(_ORDER),
        name,
    )


def compat_names(records: Iterable[Record]) -> list[str]:
    """`ader.pixel_aupro`, `imiad.pixel_aupro`, ...: by project, then as metrics are sorted."""
    found = names_below(records, "compat")
    return sorted(found, key=lambda name: (name.partition(".")[0], metric_rank(name)))


def best_names(records: Iterable[Record]) -> list[str]:
    """`image.image_auroc`, ...: the metrics that were taken at the best test epoch too."""
    return sorted(names_below(records, "best_on_test", "metrics"), key=metric_rank)


def point_names(records: Sequence[Record]) -> list[str]:
    """`image.f1max.precision`, ...: the operating points that occur, on images and on the original masks."""
    found = []
    for section in ("image", "full"):
        for kind in POINTS:
            held = set().union(*(under(record, *_point(section, kind)) for record in records))
            # The threshold of F1-max is another one in each category.
            names = [
                name for name in POINT_FIGURES if name in held and (name, kind) != ("threshold", "f1max")
            ]
            found += [f"{section}.{kind}.{name}" for name in names]
    return found


def _point(section: str, kind: str) -> tuple[str, str, str]:
    return ("operating_points", section, kind)


def places(
    rows: Sequence[Entry], categories: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> list[Place]:
    """The rows of one data set: the whole ones first, by image AUROC, then pixel AUROC on original masks."""
    found = [_place(entry, categories, groups or {}) for entry in rows]

    def rank(place: Place) -> tuple[Any, ...]:
        order = ("image.image_auroc", "full.pixel_auroc")
        means = [place.metrics.get(name, MISSING).mean for name in order]
        return (-place.done, *(2.0 if mean is None else -mean for mean in means), place.entry.key)

    return sorted(found, key=rank)


def _place(entry: Entry, categories: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Place:
    records = entry.done()
    held = {r["category"] for r in records}
    covered = [name for name in categories if name in held]
    metrics, notes = {}, remarks_of(entry)
    whole = [s for s, cells in entry.cells.items() if _done(cells) == len(categories)]
    seeds = len(whole) or len({int(r["seed"]) for r in records})
    for name in metrics_of([entry]):
        section, _, metric = name.partition(".")
        summary = summarise(entry, covered, section, metric)
        if summary.covered == len(covered):
            metrics[name] = summary.average
        elif any(metric_of(r, section, metric) is not None for r in records):
            notes.append(f"{name} is not defined in every category")
    compat, points = {}, {}
    for name in compat_names(records):
        project, _, metric = name.partition(".")
        compat[name] = mean_over(entry, covered, _read("compat", project, metric))
    best = {
        name: mean_over(entry, covered, best_on_test(*name.split(".", 1))) for name in best_names(records)
    }
    for name in point_names(records):
        section, kind, figure_name = name.split(".")
        read = _read(*_point(section, kind), figure_name)
        if figure_name == "threshold" and len({read(record) for record in records} - {None}) != 1:
            continue  # a mean of thresholds is none
        points[name] = mean_over(entry, covered, read)
    states = [r["status"] for r in entry.records]
    return Place(
        entry=entry,
        taxonomy=taxonomy_of(entry.method, entry),
        done=len(covered),
        total=len(categories),
        seeds=seeds,
        metrics=metrics,
        compat=compat,
        best=best,
        points=points,
        costs={column: _cost(records, section, key, how) for column, section, key, how in COSTS},
        failed=states.count("failed"),
        skipped=states.count("skipped"),
        notes=tuple(notes),
        groups={
            name: sub_means(entry, categories, groups, *name.split("."))
            for name in (GROUPED if groups else ())
            if name in metrics
        },
    )


def _read(*keys: str) -> Read:
    *folder, name = keys
    return lambda record: number(under(record, *folder).get(name))


def _done(cells: Mapping[str, Record]) -> int:
    return sum(record["status"] == "done" for record in cells.values())


def _cost(records: Sequence[Record], section: str, key: str, how: str) -> float | int | None:
    values = [v for r in records if (v := (r.get(section) or {}).get(key)) is not None]
    if not values:
        return None
    return max(values) if how == "max" else sum(values) / len(values)


def leaderboard_csv(boards: Mapping[str, Sequence[Place]]) -> str:
    """CSV text of all data sets: metrics in full precision with their deviation over seeds, costs, marks.

    Columns of intervals, bounds, other projects' ways to compute, best test epochs and operating points stand
    there only where a row has such figures.
    """
    everyone = [place for _, board in sorted(boards.items()) for place in board]
    records = [record for place in everyone for record in place.entry.done()]
    columns = [
        column for name in metrics_of(p.entry for p in everyone) for column in _metric_columns(name, everyone)
    ]
    if any(value.interval for place in everyone for value in place.metrics.values()):
        columns.append(("interval.level", _level))
    columns += [(name, _mean_of("compat", name)) for name in compat_names(records)]
    columns += [(f"best_on_test.{name}", _mean_of("best", name)) for name in best_names(records)]
    columns += [(name, _mean_of("points", name)) for name in point_names(records)]
    head = ["dataset", "method", "title", "variant", "protocol", "taxonomy", "fidelity", "source"]
    head += ["categories", "of", "complete", "seeds", "failed", "skipped"]
    head += [name for name, _ in columns]
    head += [column for column, *_ in COSTS] + ["pixels_seen", "weights", "marks", "devices"]
    return to_csv(head, [_csv_row(place, [get for _, get in columns]) for place in everyone])


def _metric_columns(name: str, everyone: Sequence[Place]) -> list[tuple[str, Figure]]:
    """A metric's column and those beside it."""

    def of(get: Callable[[Value], float | None]) -> Figure:
        return lambda place: get(place.metrics.get(name, MISSING))

    values = [place.metrics.get(name, MISSING) for place in everyone]
    columns = [(name, of(lambda v: v.mean)), (f"{name}.deviation", of(lambda v: v.deviation))]
    if any(value.interval for value in values):
        columns.append((f"{name}.low", of(lambda v: v.interval.low if v.interval else None)))
        columns.append((f"{name}.high", of(lambda v: v.interval.high if v.interval else None)))
    if any(value.bound for value in values):
        columns.append((f"{name}.bound", of(lambda v: v.bound)))
    for group in dict.fromkeys(group for place in everyone for group in place.groups.get(name, ())):
        columns.append((f"{name}.{group}", _group_mean(name, group)))
    return columns


def _group_mean(name: str, group: str) -> Figure:
    return lambda place: place.groups.get(name, {}).get(group, MISSING).mean


def _mean_of(group: str, name: str) -> Figure:
    return lambda place: getattr(place, group).get(name, MISSING).mean


def _level(place: Place) -> float | None:
    """The level of the row's intervals; blank where they differ, as they may from metric to metric."""
    levels = {value.interval.level for value in place.metrics.values() if value.interval}
    return levels.pop() if len(levels) == 1 else None


def _csv_row(place: Place, figures: Sequence[Figure]) -> list[str]:
    entry, newest, records = place.entry, place.entry.newest, place.entry.done()
    seen = _cost([{"all": r} for r in records], "all", "pixels_seen", "mean")
    return [
        entry.dataset,
        entry.method,
        entry.title,
        entry.variant,
        entry.protocol,
        place.taxonomy,
        str(newest.get("fidelity") or ""),
        str(newest.get("source") or ""),
        exact(place.done),
        exact(place.total),
        "true" if place.complete else "false",
        exact(place.seeds),
        exact(place.failed),
        exact(place.skipped),
        *(exact(get(place)) for get in figures),
        *(exact(place.costs[column]) for column, *_ in COSTS),
        exact(seen),
        "; ".join(_weights(records)),
        "; ".join(place.notes),
        "; ".join(sorted({_device(r) for r in records} - {""})),
    ]


def _weights(records: Iterable[Record]) -> list[str]:
    found = set()
    for record in records:
        for weights in record.get("weights") or ():
            digest = str(weights.get("sha256") or "")[:12]
            found.add(f"{weights.get('name')} ({weights.get('source')}{', ' if digest else ''}{digest})")
    return sorted(found)


def _device(record: Record) -> str:
    hardware = record.get("hardware") or {}
    return str((hardware.get("cpu") if hardware.get("device") == "cpu" else hardware.get("device")) or "")


def name_of(place: Place) -> str:
    """`PatchCore (backbone=resnet18, few_shot-4)`."""
    entry = place.entry
    setting = [text for text in (entry.variant, entry.protocol if entry.protocol != "full" else "") if text]
    return f"{entry.title} ({', '.join(setting)})" if setting else entry.title


def metric_text(place: Place, name: str, with_interval: bool = False, inexact: str = "~") -> str:
    """A printed mean, in brackets where the row misses categories; `inexact` follows a bounded one.

    With its interval `0.986 [±.007]`: mean ± .007 holds both ends of the interval.
    """
    value = place.metrics.get(name)
    if value is None or value.mean is None:
        return "-"
    text = figure(value.mean) + (f" ± {figure(value.deviation)}" if value.deviation is not None else "")
    if with_interval and value.interval:
        reach = max(value.interval.high - value.mean, value.mean - value.interval.low)
        text += f" [±{figure(reach).removeprefix('0')}]"
    text += inexact if value.bound else ""
    return in_brackets(place, text)


def in_brackets(place: Place, text: str) -> str:
    """`(0.975)` for a mean over some categories alone."""
    return text if place.complete or text == "-" else f"({text})"


def cost_text(value: float | int | None, unit: float = 1.0) -> str:
    """Three significant digits, `<0.01` below that, `-` where it is unknown."""
    if value is None:
        return "-"
    scaled = value / unit
    if 0 < scaled < 0.01:
        return "<0.01"
    return f"{scaled:.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"

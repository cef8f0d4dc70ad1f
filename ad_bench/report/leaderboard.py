"""The leaderboard: one row per data set, method, variant and protocol, with every metric and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.rows import MISSING, Entry, Record, Value, metric_of, summarise
from ad_bench.report.tables import remarks_of, taxonomy_of, taxonomy_title
from ad_bench.report.text import Footnotes, figure

SECTIONS = ("image", "paper", "full")
_ORDER = ("auroc", "aupr", "f1max", "iou", "aupro", "spro")

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
    costs: Mapping[str, float | int | None]
    failed: int
    skipped: int
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if every category of the data set is done."""
        return self.done == self.total


def metric_names(records: Iterable[Record]) -> list[str]:
    """`image.image_auroc`, `paper.pixel_auroc`, ... : all that occur, in a fixed order."""
    found = {
        f"{section}.{name}"
        for record in records
        for section, metrics in (record.get("metrics") or {}).items()
        for name in metrics or {}
    }

    def rank(name: str) -> tuple[int, int, str]:
        section, _, metric = name.partition(".")
        family = metric.partition("@")[0].rpartition("_")[2]
        return (
            SECTIONS.index(section) if section in SECTIONS else len(SECTIONS),
            _ORDER.index(family) if family in _ORDER else len(_ORDER),
            name,
        )

    return sorted(found, key=rank)


def places(rows: Sequence[Entry], categories: Sequence[str]) -> list[Place]:
    """The rows of one data set: the whole ones first, by image AUROC, then pixel AUROC on original masks."""
    found = [_place(entry, categories) for entry in rows]

    def rank(place: Place) -> tuple[Any, ...]:
        order = ("image.image_auroc", "full.pixel_auroc")
        means = [place.metrics.get(name, MISSING).mean for name in order]
        return (-place.done, *(2.0 if mean is None else -mean for mean in means), place.entry.key)

    return sorted(found, key=rank)


def _place(entry: Entry, categories: Sequence[str]) -> Place:
    records = entry.done()
    covered = [name for name in categories if any(r["category"] == name for r in records)]
    metrics, notes = {}, remarks_of(entry)
    whole = [s for s, cells in entry.cells.items() if _done(cells) == len(categories)]
    seeds = len(whole) or len({int(r["seed"]) for r in records})
    for name in metric_names(records):
        section, _, metric = name.partition(".")
        summary = summarise(entry, covered, section, metric)
        if summary.covered == len(covered):
            metrics[name] = summary.average
        elif any(metric_of(r, section, metric) is not None for r in records):
            notes.append(f"{name} is not defined in every category")
    states = [r["status"] for r in entry.records]
    return Place(
        entry=entry,
        taxonomy=taxonomy_of(entry.method, entry),
        done=len(covered),
        total=len(categories),
        seeds=seeds,
        metrics=metrics,
        costs={column: _cost(records, section, key, how) for column, section, key, how in COSTS},
        failed=states.count("failed"),
        skipped=states.count("skipped"),
        notes=tuple(notes),
    )


def _done(cells: Mapping[str, Record]) -> int:
    return sum(record["status"] == "done" for record in cells.values())


def _cost(records: Sequence[Record], section: str, key: str, how: str) -> float | int | None:
    values = [v for r in records if (v := (r.get(section) or {}).get(key)) is not None]
    if not values:
        return None
    return max(values) if how == "max" else sum(values) / len(values)


def leaderboard_csv(boards: Mapping[str, Sequence[Place]]) -> str:
    """CSV text of all data sets: metrics in full precision with their deviation over seeds, costs, marks."""
    names = metric_names(r for board in boards.values() for place in board for r in place.entry.done())
    head = ["dataset", "method", "title", "variant", "protocol", "taxonomy", "fidelity", "source"]
    head += ["categories", "of", "complete", "seeds", "failed", "skipped"]
    head += [column for name in names for column in (name, f"{name}.deviation")]
    head += [column for column, *_ in COSTS] + ["pixels_seen", "weights", "marks", "devices"]
    rows = [_csv_row(place, names) for _, board in sorted(boards.items()) for place in board]
    return to_csv(head, rows)


def _csv_row(place: Place, names: Sequence[str]) -> list[str]:
    entry, newest, records = place.entry, place.entry.newest, place.entry.done()
    values = [place.metrics.get(name, MISSING) for name in names]
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
        *(text for value in values for text in (exact(value.mean), exact(value.deviation))),
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


# Columns of leaderboard.md: heading and metric. Original masks: the survey names shrunken ones as a fault.
SHOWN = (
    ("image AUROC", "image.image_auroc"),
    ("image AUPR", "image.image_aupr"),
    ("image F1-max", "image.image_f1max"),
    ("pixel AUROC", "full.pixel_auroc"),
    ("pixel AUPR", "full.pixel_aupr"),
    ("pixel F1-max", "full.pixel_f1max"),
    ("pixel AUPRO", "full.pixel_aupro"),
)


def leaderboard_markdown(
    boards: Mapping[str, Sequence[Place]], titles: Mapping[str, str], remarks: Sequence[str] = ()
) -> str:
    """A page with one table for each data set, its pixel metrics on the original images and masks."""
    page = ["# Leaderboard", ""]
    page.append(
        "Means over the categories within a seed, then over seeds (± sample standard deviation). Pixel"
        " metrics are those of the original images and untouched masks (`full`); `leaderboard.csv` has all,"
        " also in the geometry of the papers. Rows that miss categories stand last, their means in brackets."
        " Seconds and images per second are means over cells, on the hardware that `leaderboard.csv` names;"
        " memory is the peak."
    )
    for dataset, board in sorted(boards.items()):
        notes = Footnotes()
        head = ["method", "family", "categories", "seeds", *(name for name, _ in SHOWN)]
        head += ["fit s", "images/s", "memory MB", "model MB", "parameters M"]
        page += [
            "",
            f"## {escape(titles[dataset])}",
            "",
            *grid(head, [_md_row(p, notes) for p in board], left=2),
        ]
        page += bullets([f"<sup>{letter}</sup> {escape(text)}" for text, letter in notes.letters.items()])
    page += bullets([escape(text) for text in remarks])
    return "\n".join(page) + "\n"


def name_of(place: Place) -> str:
    """`PatchCore (backbone=resnet18, few_shot-4)`."""
    entry = place.entry
    setting = [text for text in (entry.variant, entry.protocol if entry.protocol != "full" else "") if text]
    return f"{entry.title} ({', '.join(setting)})" if setting else entry.title


def metric_text(place: Place, name: str) -> str:
    """A printed mean, in brackets where the row misses categories."""
    value = place.metrics.get(name)
    if value is None or value.mean is None:
        return "-"
    text = figure(value.mean) + (f" ± {figure(value.deviation)}" if value.deviation is not None else "")
    return text if place.complete else f"({text})"


def cost_text(value: float | int | None, unit: float = 1.0) -> str:
    """Three significant digits, `<0.01` below that, `-` where it is unknown."""
    if value is None:
        return "-"
    scaled = value / unit
    if 0 < scaled < 0.01:
        return "<0.01"
    return f"{scaled:.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"


def _md_row(place: Place, notes: Footnotes) -> list[str]:
    remarks = list(place.notes)
    for count, word in ((place.failed, "failed"), (place.skipped, "skipped")):
        if count:
            remarks.append(f"{count} cell{'s' if count > 1 else ''} {word}")
    letters = notes.mark(remarks)
    return [
        escape(name_of(place)) + (f"<sup>{letters}</sup>" if letters else ""),
        escape(taxonomy_title(place.taxonomy)),
        f"{place.done} of {place.total}",
        str(place.seeds),
        *(metric_text(place, metric) for _, metric in SHOWN),
        cost_text(place.costs["fit_seconds"]),
        cost_text(place.costs["images_per_second"]),
        cost_text(place.costs["device_peak_bytes"] or place.costs["host_peak_bytes"], 1e6),
        cost_text(place.costs["model_bytes"], 1e6),
        cost_text(place.costs["parameters"], 1e6),
    ]

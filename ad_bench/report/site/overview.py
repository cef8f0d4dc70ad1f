"""Data of the page's tables: data/index.js, and for each data set its rows, categories and problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ad_bench import __version__, heat, reference
from ad_bench.reference import Published
from ad_bench.report.leaderboard import COSTS, SECTIONS, Place, metrics_of
from ad_bench.report.page import metric_title
from ad_bench.report.rows import Entry, Record, Value, under, without_folders
from ad_bench.report.site.extra import Extra
from ad_bench.report.site.script import row_key, slug
from ad_bench.report.tables import STANDINGS, taxonomy_rank, taxonomy_title

if TYPE_CHECKING:
    from ad_bench.report.board import Board

SECTION_TITLES = {
    "image": "Images",
    "full": "Pixels, on the original masks",
    "paper": "Pixels, in the geometry of each paper",
}
_STOPS = 17  # colours of the ramp that are told to the page


def key_of(entry: Entry) -> str:
    """The name of a row in the site."""
    return row_key(entry.dataset, entry.method, entry.variant, entry.protocol)


def index(
    board: Board,
    categories: Mapping[str, Sequence[str]],
    galleries: Mapping[str, Sequence[str]],
    extras: Sequence[Extra] = (),
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """The menu: data sets, methods, names in print. `galleries`: data set -> its categories with pictures."""
    methods: dict[str, dict[str, Any]] = {}
    for dataset, places in sorted(board.places.items()):
        for place in places:
            entry = place.entry
            known = methods.setdefault(
                entry.method,
                {"id": entry.method, "title": entry.title, "taxonomy": place.taxonomy, "datasets": []},
            )
            if slug(dataset) not in known["datasets"]:
                known["datasets"].append(slug(dataset))
    names = {name for places in board.places.values() for place in places for name in place.metrics}
    taxonomies = sorted(
        {known["taxonomy"] for known in methods.values()} | set(reference.TAXONOMIES), key=taxonomy_rank
    )
    ramp = heat.colour([i / (_STOPS - 1) for i in range(_STOPS)])
    return {
        "version": __version__,
        "datasets": [
            _dataset(board, name, categories[name], galleries.get(name, ())) for name in board.places
        ],
        "methods": {slug(name): known for name, known in sorted(methods.items())},
        "taxonomies": [[ident, taxonomy_title(ident)] for ident in taxonomies],
        "sections": SECTION_TITLES,
        "metrics": {name: metric_title(name) for name in sorted(names)},
        "costs": [name for name, *_ in COSTS],
        "standings": STANDINGS,
        "ramp": ["#" + bytes(map(int, stop)).hex() for stop in ramp],
        "remarks": [*board.remarks, *remarks],
        "extras": [[slug(extra.ident), extra.title] for extra in extras],
    }


def _dataset(board: Board, name: str, categories: Sequence[str], gallery: Sequence[str]) -> dict[str, Any]:
    places = board.places[name]
    return {
        "slug": slug(name),
        "id": name,
        "title": board.titles[name],
        "rows": len(places),
        "categories": len(categories),
        "failed": sum(place.failed for place in places),
        "skipped": sum(place.skipped for place in places),
        "gallery": [slug(category) for category in gallery],
    }


def dataset_page(board: Board, dataset: str, categories: Sequence[str]) -> dict[str, Any]:
    """The leaderboard of one data set: every row with all metrics, published values, costs."""
    places = board.places[dataset]
    metrics = metrics_of(place.entry for place in places)
    found = {family: reference.published(dataset, family) for family in _families(metrics)}
    return {
        "id": dataset,
        "title": board.titles[dataset],
        "categories": [[slug(name), name] for name in categories],
        "metrics": [name for section in SECTIONS for name in metrics if name.startswith(f"{section}.")],
        "remarks": list(board.tables[dataset][0].remarks),
        "rows": [_row(place, found, len(categories) == 1) for place in places],
        "published": _not_run(places, found, categories),
    }


def _families(metrics: Sequence[str]) -> list[str]:
    """`image_auroc`, `pixel_auroc`, ...: metrics whatever their geometry."""
    return list(dict.fromkeys(name.partition(".")[2] for name in metrics))


def _row(place: Place, found: Mapping[str, Sequence[Published]], single: bool) -> dict[str, Any]:
    entry, newest = place.entry, place.entry.newest
    records = entry.done()
    published = {}
    for family, rows in found.items():
        match = _beside(entry, rows)
        average = _average(match, single) if match else None
        if match and average is not None:
            published[family] = [average, match.standing, match.note or match.variant]
    return {
        "key": key_of(entry),
        "method": slug(entry.method),
        "id": entry.method,
        "title": entry.title,
        "variant": entry.variant,
        "protocol": entry.protocol,
        "taxonomy": place.taxonomy,
        "fidelity": str(newest.get("fidelity") or ""),
        "source": str(newest.get("source") or ""),
        "done": place.done,
        "total": place.total,
        "seeds": place.seeds,
        "failed": place.failed,
        "skipped": place.skipped,
        "notes": list(place.notes),
        "settings": settings_of(newest),
        "metrics": {name: _value(value) for name, value in place.metrics.items() if value.mean is not None},
        "costs": [place.costs[column] for column, *_ in COSTS],
        "devices": sorted({_device(record) for record in records} - {""}),
        "published": published,
    }


def settings_of(record: Record) -> list[str]:
    """What the run changed of its method's YAML, where the record says so."""
    found = record.get("settings")
    return [str(text) for text in found] if isinstance(found, list) else []


def _device(record: Record) -> str:
    hardware = under(record, "hardware")
    device = str(hardware.get("device") or "")
    return str(hardware.get("cpu") or "CPU") if device == "cpu" else device


def _value(value: Value) -> list[float | None]:
    """mean, deviation over seeds, low and high of the interval, bound; the last ones absent where unknown."""
    ends = (value.interval.low, value.interval.high) if value.interval else (None, None)
    figures = [value.mean, value.deviation, *ends, value.bound]
    while figures[-1] is None:
        figures.pop()
    return figures


def _beside(entry: Entry, rows: Sequence[Published]) -> Published | None:
    """The published row of the same method and setting, the most special setting first."""
    chosen = reference.preferred(row for row in rows if row.method == entry.method)
    fitting = [row for row in chosen.values() if row.comparable(entry.protocol)]
    return max(fitting, key=lambda row: (row.in_survey, len(row.protocol)), default=None)


def _average(row: Published, single: bool) -> float | None:
    if row.average is None and single:
        return next(iter(row.values.values()), None)
    return row.average


def _not_run(
    places: Sequence[Place], found: Mapping[str, Sequence[Published]], categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Published rows of methods and settings that have no run here."""
    missing: dict[tuple[str, str], dict[str, Any]] = {}
    for family, rows in found.items():
        for (method, protocol), row in reference.preferred(rows).items():
            here = any(p.entry.method == method and row.comparable(p.entry.protocol) for p in places)
            average = _average(row, len(categories) == 1)
            if here or average is None:
                continue
            held = missing.setdefault(
                (method, protocol),
                {
                    "id": method,
                    "title": row.title,
                    "taxonomy": row.taxonomy,
                    "protocol": protocol,
                    "published": {},
                },
            )
            held["published"][family] = [average, row.standing, row.note or row.variant]
    return [missing[key] for key in sorted(missing)]


def categories_page(places: Sequence[Place], categories: Sequence[str]) -> dict[str, Any]:
    """row -> `metrics`: metric -> a figure, null (missing) or `failed|skipped|undefined` for each category.

    Means over the seeds, as the tables have them: over whole seeds where there are any. `published` likewise,
    by metric whatever its geometry.
    """
    page: dict[str, Any] = {}
    for place in places:
        entry = place.entry
        names = metrics_of([entry])
        published = {}
        for family in _families(names):
            match = _beside(entry, reference.published(entry.dataset, family))
            values = dict(match.values) if match else {}
            if match and len(categories) == 1 and match.average is not None:
                values.setdefault(categories[0], match.average)
            if any(name in values for name in categories):
                published[family] = [values.get(name) for name in categories]
        page[key_of(entry)] = {
            "metrics": {name: _by_category(entry, categories, name) for name in names},
            "states": [_state(entry, name) for name in categories],
            "published": published,
        }
    return page


def _by_category(entry: Entry, categories: Sequence[str], name: str) -> list[float | str | None]:
    section, _, metric = name.partition(".")
    held = list(entry.figures(section, metric).values())
    used = [values for values in held if len(values) == len(categories)] or held
    found: list[float | str | None] = []
    for category in categories:
        means = [values[category].mean for values in used if category in values]
        known = [mean for mean in means if mean is not None]
        found.append(math.fsum(known) / len(known) if known else _state(entry, category, "undefined"))
    return found


def _state(entry: Entry, category: str, done: str = "done") -> str | None:
    """What became of a category: `failed` before `done` before `skipped`, None where nothing ran."""
    states = {cells[category]["status"] for cells in entry.cells.values() if category in cells}
    for state in ("failed", "done", "skipped"):
        if state in states:
            return done if state == "done" else state
    return None


def problems_page(places: Sequence[Place]) -> list[dict[str, Any]]:
    """Failed and skipped cells, those of one row and one cause together, failures first."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for place in places:
        if not place.failed and not place.skipped:
            continue
        for record in place.entry.records:
            if record["status"] == "done":
                continue
            text = cause(record)
            group = groups.setdefault(
                (key_of(place.entry), record["status"], text),
                {"key": key_of(place.entry), "status": record["status"], "text": text, "cells": []},
            )
            group["cells"].append([slug(record["category"]), record["category"], int(record["seed"])])
    return sorted(groups.values(), key=lambda group: (group["status"], group["key"], group["text"]))


def cause(record: Record) -> str:
    """Why a cell failed or was skipped, without the folders of a machine."""
    if record["status"] == "skipped":
        return without_folders(str(record.get("reason") or "no reason recorded"))
    error = under(record, "error")
    message = without_folders(str(error.get("message") or "").strip())
    return f"{error.get('type') or 'Error'}: {message}".rstrip(": ")

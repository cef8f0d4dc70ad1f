"""data/rows/<row>.js: all cells of a row in full, what they share held once."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from ad_bench.report.leaderboard import Place, metrics_of
from ad_bench.report.rows import MISSING, Entry, Record, under, without_folders
from ad_bench.report.site.overview import cause, key_of, settings_of
from ad_bench.report.site.runs import Run, Runs, text_of
from ad_bench.report.site.script import slug

# Parts of a record that are shown as they are; what most cells of a row share is held once.
_OWN = (
    *(
        "status",
        "date",
        "counts",
        "bounds",
        "undefined",
        "thresholds",
        "timing",
        "memory",
        "model",
        "pixels_seen",
    ),
    *("operating_points", "compat", "by_defect", "forgetting", "best_on_test", "history", "averaged"),
)
_SHARED = (
    *(
        "versions",
        "commit",
        "hardware",
        "geometry",
        "paper_eval",
        "weights",
        "bootstrap",
        "fidelity",
        "source",
    ),
    *("paper", "origin", "rescored"),
)
_CURVES = ("roc", "pr", "pro")
_NUMBERS = re.compile(r"(?:[-+]?[0-9][0-9.]*(?:[eE][-+]?[0-9]+)?(?: |$))*")
_NAN = float("nan")


def row_page(place: Place, runs: Runs, pictures: Mapping[tuple[str, int], Any]) -> tuple[dict[str, Any], str]:
    """The page's data and the composed settings of the row's newest record.

    `pictures`: (category, seed) -> what `pictures.collect` found of a cell.
    """
    entry = place.entry
    configs: dict[str, int] = {}
    setups: dict[str, int] = {}
    held: list[dict[str, Any]] = []
    place_of_setup = -1
    cells: dict[str, dict[str, Any]] = {}
    newest, settings = entry.newest, ""
    layout = _layout(entry)
    setup: dict[str, Any] = {}
    for record in entry.records:
        run = runs.of(record)
        cell = {key: record[key] for key in _OWN if record.get(key)}
        own = {key: record[key] for key in _SHARED if record.get(key)}
        if own != setup:  # mostly it is that of the cell before
            setup = own
            place_of_setup = _place(setups, json.dumps(setup, sort_keys=True))
            if place_of_setup == len(held):
                held.append(setup)
        cell["setup"] = place_of_setup
        config = text_of(run, "config.yaml") if "config.yaml" in run.files else ""
        cell["config"] = _place(configs, config)
        if record is newest:
            settings = config
        cell["marks"] = [str(mark) for mark in record.get("marks") or ()]
        cell["warnings"] = [without_folders(str(text)) for text in record.get("warnings") or ()]
        if record.get("notes"):
            cell["notes"] = without_folders(json.dumps(record["notes"], indent=1, ensure_ascii=False))
        if changed := settings_of(record):
            cell["settings"] = changed
        if record["status"] != "done":
            cell["cause"] = cause(record)
            cell["traceback"] = without_folders(str(under(record, "error").get("traceback") or ""))
        else:
            cell["figures"] = _figures(entry, record, layout)
            cell |= _measured(run)
        shown = pictures.get((record["category"], int(record["seed"])))
        if shown:
            cell["pictures"] = shown
        of_category = cells.setdefault(slug(record["category"]), {"name": record["category"], "seeds": {}})
        of_category["seeds"][str(record["seed"])] = cell
    page = {
        "key": key_of(entry),
        "dataset": entry.dataset,
        "method": slug(entry.method),
        "title": entry.title,
        "variant": entry.variant,
        "protocol": entry.protocol,
        "configs": list(configs),
        "setups": held,
        "layout": layout,
        "cells": cells,
    }
    return page, settings


def _place(known: dict[str, int], text: str) -> int:
    return known.setdefault(text, len(known))


def _measured(run: Run) -> dict[str, Any]:
    """Scores of the test images and curves of the pixels; a remark in place of what cannot be read."""
    found: dict[str, Any] = {}
    for name, read in (("samples.csv", _scores), ("curves.json", _curves)):
        if name in run.files:
            try:
                found |= read(text_of(run, name))
            except (OSError, ValueError, LookupError, TypeError, OverflowError, csv.Error) as error:
                found.setdefault("unreadable", []).append(f"{name}: {without_folders(str(error))}")
    return found


def _scores(text: str) -> dict[str, Any]:
    """`scores`: of normal and of anomalous images, as written, a space between; `kinds` of the latter."""
    fields = _fields(text)
    head = fields[: fields.index("score") + 1]
    label, kind, score = (fields[head.index(name) :: len(head)][1:] for name in ("label", "defect", "score"))
    if not len(label) == len(kind) == len(score):
        raise ValueError(f"{len(score)} scores of {len(label)} images")
    anomalous = [one == "1" for one in label]
    scores = [" ".join(compress(score, [not one for one in anomalous])), " ".join(compress(score, anomalous))]
    for column in scores:
        if not _NUMBERS.fullmatch(column):
            raise ValueError("a score is no number")
    names = list(compress(kind, anomalous))
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return {"scores": scores, "kinds": [list(places), [places[name] for name in names]]}


def _fields(text: str) -> list[str]:
    """All fields of a CSV file one after the other; `score` is the last column."""
    if '"' in text:
        return [field for row in csv.reader(io.StringIO(text, newline="")) for field in row]
    return text.replace("\r", "").rstrip("\n").replace("\n", ",").split(",")  # ten times as fast


def _layout(entry: Entry) -> list[tuple[str, str]]:
    """The metrics that occur in a row, as (geometry, name)."""
    names = metrics_of([entry])
    return [(section, name) for section, _, name in (metric.partition(".") for metric in names)]


def _figures(entry: Entry, record: Record, layout: Sequence[tuple[str, str]]) -> str:
    """Value, low and high of each metric of the layout, NaN where there is none: float64 in base64.

    Most of a page are these figures; as text they are five times as large and take ten times as long.
    """
    figures = array("d")
    seed, category = int(record["seed"]), record["category"]
    for section, name in layout:
        value = entry.figures(section, name).get(seed, {}).get(category, MISSING)
        figures.append(_NAN if value.mean is None else value.mean)
        figures.extend(value.interval[:2] if value.interval else (_NAN, _NAN))
    if sys.byteorder == "big":
        figures.byteswap()
    return b64encode(figures.tobytes()).decode("ascii")


def _curves(text: str) -> dict[str, Any]:
    """`curves`: roc, pr and pro of the pixels of the original masks as [x, y], five digits."""
    stored = json.loads(text)["full"]
    curves = {}
    for name in _CURVES:
        if stored.get(name):
            axes = [[round(float(v), 5) for v in stored[name][axis]] for axis in ("x", "y")]
            if len(axes[0]) != len(axes[1]):
                raise ValueError(f"{name}: {len(axes[0])} points in x, {len(axes[1])} in y")
            curves[name] = axes
    return {"curves": curves}

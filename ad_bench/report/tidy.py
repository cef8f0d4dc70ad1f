"""records.csv: every record on a line of its own, for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ad_bench.report.leaderboard import COSTS, Place, metrics_of
from ad_bench.report.rows import Record, number, under, without_folders

# Columns that stand first, whatever the records hold: where a record has each. results/README.md lists them.
IDENTITY = (
    *(("dataset",), ("category",), ("method",), ("variant",), ("protocol",), ("seed",), ("origin",)),
    *(
        ("status",),
        ("reason",),
        ("title",),
        ("taxonomy",),
        ("source",),
        ("fidelity",),
        ("date",),
        ("commit",),
    ),
    ("fingerprint", "cell"),
    *(("hardware", "cpu"), ("hardware", "device"), ("hardware", "threads")),
    *(("counts", "train"), ("counts", "test_normal"), ("counts", "test_anomalous")),
    ("pixels_seen",),
)
LISTS = ("settings", "marks", "warnings")
PARTS = {
    *(keys[0] for keys in IDENTITY if len(keys) > 1),
    *(section for _, section, _, _ in COSTS),
    *("error", "metrics"),
}


def records_csv(boards: Mapping[str, Sequence[Place]]) -> str:
    """CSV text, by data set and row: what each record is of, its metrics in full precision, its costs.

    Metrics are those that any record holds, in the order of the leaderboard's; blank where a record has none.
    """
    records = [
        record
        for _, board in sorted(boards.items())
        for place in sorted(board, key=lambda place: place.entry.key)
        for record in place.entry.records
    ]
    metrics = metrics_of(place.entry for board in boards.values() for place in board)
    of_section: dict[str, list[str]] = {}
    for section, _, name in (metric.partition(".") for metric in metrics):
        of_section.setdefault(section, []).append(name)
    columns = [f"{section}.{name}" for section, names in of_section.items() for name in names]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")  # a float is written so that reading gives it back
    names = [".".join(keys) for keys in IDENTITY]
    writer.writerow([*names, "error", *LISTS, *columns, *(column for column, *_ in COSTS)])
    writer.writerows(_row(record, of_section) for record in records)
    return buffer.getvalue()


def _row(record: Record, of_section: Mapping[str, Sequence[str]]) -> list[Any]:
    parts = {name: under(record, name) for name in PARTS}
    row = [_text(record.get(keys[0]) if len(keys) == 1 else parts[keys[0]].get(keys[1])) for keys in IDENTITY]
    error = parts["error"]
    row.append(_text(f"{error.get('type')}: {error.get('message')}" if error else None))
    row += ["; ".join(str(_text(one)) for one in record.get(name) or ()) for name in LISTS]
    metrics = parts["metrics"]
    for section, names in of_section.items():
        held = under(metrics, section)
        row += [number(held.get(name)) for name in names]
    costs = [parts[section].get(key) for _, section, key, _ in COSTS]
    return row + [value if type(value) is int else number(value) for value in costs]


def _text(value: Any) -> Any:
    """A number as it is; text without folders of a machine and on one line."""
    if value is None or type(value) in (int, float):
        return value
    text = str(value)
    return " ".join(without_folders(text).split()) if "/" in text or "\n" in text else text

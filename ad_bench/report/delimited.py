"""A table as CSV: every figure in full precision, one line per row of the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ad_bench.errors import ResultsError
from ad_bench.records import replace_text
from ad_bench.report.rows import Value, percent
from ad_bench.report.tables import Line, Table

HEAD = ("taxonomy", "method", "title", "variant", "protocol", "row", "standing", "seeds", "complete")


def table_csv(table: Table) -> str:
    """CSV text. `row` is ours, published or difference; below ours, where there are such figures, deviation
    (over seeds), low and high (the ends of the bootstrap intervals over test images) and bound (how far the
    exact figure may be).

    A missing figure is blank, a cell without one that was tried says `failed` or `skipped`; `note` says why.
    """
    rows: list[list[str]] = []
    for line in table.lines:
        rows.append(_row(line, table.categories))
        if line.kind == "ours":
            rows += _beside(line, table.categories)
    return to_csv([*HEAD, *table.categories, "average", "note"], rows)


def to_csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text with newlines of one kind on every system."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()


def write_csv(path: Path, text: str) -> None:
    """The CSV as a file, in one step; raises ResultsError where it cannot be written."""
    try:
        replace_text(path, text)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}; name another file after --csv") from error


def exact(value: float | int | None) -> str:
    """The shortest text that reads back as the same number; blank for None."""
    return "" if value is None else repr(value)


def _row(line: Line, categories: Sequence[str]) -> list[str]:
    return [
        *_head(line, line.kind),
        *(_text(line.cells[c]) for c in categories),
        _text(line.average),
        line.note,
    ]


def _beside(line: Line, categories: Sequence[str]) -> list[list[str]]:
    """The rows that say how sure ours is."""
    values = [*(line.cells[name] for name in categories), line.average]
    levels = sorted({value.interval.level for value in values if value.interval})
    kinds = (
        ("deviation", [value.deviation for value in values]),
        ("low", [value.interval.low if value.interval else None for value in values]),
        ("high", [value.interval.high if value.interval else None for value in values]),
        ("bound", [value.bound for value in values]),
    )
    note = f"bootstrap over test images, {', '.join(map(percent, levels))}"
    return [
        [*_head(line, kind), *map(exact, figures), note if kind in ("low", "high") else ""]
        for kind, figures in kinds
        if any(figure is not None for figure in figures)
    ]


def _head(line: Line, kind: str) -> list[str]:
    return [
        line.taxonomy,
        line.method,
        line.title,
        line.variant,
        line.protocol,
        kind,
        line.standing,
        exact(line.seeds),
        "true" if line.complete else "false",
    ]


def _text(value: Value) -> str:
    if value.mean is None and value.state in ("failed", "skipped"):
        return value.state
    return exact(value.mean)

"""A table as CSV: every figure in full precision, one line per row of the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ad_bench.report.rows import Value
from ad_bench.report.tables import Line, Table

HEAD = ("taxonomy", "method", "title", "variant", "protocol", "row", "standing", "seeds", "complete")


def table_csv(table: Table) -> str:
    """CSV text. `row` is ours, deviation (over seeds, where ours has several), published or difference.

    A missing figure is blank, a cell without one that was tried says `failed` or `skipped`; `note` says why.
    """
    rows: list[list[str]] = []
    for line in table.lines:
        rows.append(_row(line, table.categories))
        if line.kind == "ours" and any(v.deviation is not None for v in [line.average, *line.cells.values()]):
            rows.append(_deviation(line, table.categories))
    return to_csv([*HEAD, *table.categories, "average", "note"], rows)


def to_csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text with newlines of one kind on every system."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()


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


def _deviation(line: Line, categories: Sequence[str]) -> list[str]:
    cells = [exact(line.cells[name].deviation) for name in categories]
    return [*_head(line, "deviation"), *cells, exact(line.average.deviation), ""]


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

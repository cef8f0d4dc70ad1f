"""A table as GitHub Markdown: columns aligned, so that the source reads well too."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ad_bench.report.rows import MISSING, Value
from ad_bench.report.tables import (
    BEST,
    SECOND,
    Line,
    Table,
    intervals,
    label,
    largest_bound,
    legend,
    name_and_setting,
    partial,
    taxonomy_title,
)
from ad_bench.report.text import Footnotes, average_is_partial, bound_note, parts, seen


def table_markdown(table: Table) -> str:
    """The whole page: heading, table, how to read it, footnotes."""
    notes = Footnotes()
    single = len(table.categories) == 1
    columns = [*table.categories, *([] if single else ["average"]), *table.groups]
    bound = largest_bound(table.lines)
    inexact = bound_note(bound) if bound else ""
    body: list[list[str]] = []
    group = None
    for line in table.lines:
        if line.taxonomy != group:
            group = line.taxonomy
            body.append([f"**{escape(taxonomy_title(group))}**", *[""] * (len(columns) + 1)])
        body.append(_row(line, table, single, notes, inexact))
    head = ["method", "row", *map(escape, columns)]
    page = [f"# {escape(table.dataset_title)}: {escape(table.spec.title)}", ""]
    page += grid(head, body, left=2) if body else ["No records."]
    page += ["", *[escape(text) for text in legend(table)]]
    for text in intervals(table.lines, single):
        page += ["", escape(text)]
    short = partial(table.lines, len(table.categories))
    if short:
        page += ["", "\\* Not over all categories: " + escape("; ".join(short)) + "."]
    page += bullets([*(f"<sup>{letter}</sup> {escape(text)}" for text, letter in notes.letters.items())])
    page += bullets([escape(text) for text in table.remarks])
    return "\n".join(page) + "\n"


def bullets(items: Sequence[str]) -> list[str]:
    """A list with a blank line before it, or nothing."""
    return ["", *(f"- {item}" for item in items)] if items else []


def grid(
    head: Sequence[str], body: Sequence[Sequence[str]], left: int = 1, text: Collection[int] = ()
) -> list[str]:
    """Lines of an aligned table: the first `left` columns and those in `text` are text, the rest figures."""
    texts = {*range(left), *text}
    widths = [max(3, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]

    def joined(row: Sequence[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [word.ljust(width) if i in texts else word.rjust(width) for i, (word, width) in pairs]
        return "| " + " | ".join(cells) + " |"

    rule = [("-" * w if i in texts else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return [joined(head), joined(rule), *map(joined, body)]


def _row(line: Line, table: Table, single: bool, notes: Footnotes, inexact: str) -> list[str]:
    title, setting, long = name_and_setting(line)
    name = escape(title) + (f" ({escape(setting)})" if setting else "")
    letters = notes.mark([*long, *line.remarks])
    mark = f"<sup>{letters}</sup>" if letters else ""
    first, second = (name + mark, label(line)) if name else (name, label(line) + mark)

    def cell(value: Value, column: str) -> str:
        text = _cell(line, value, line.rank.get(column))
        return f"{text}<sup>{notes.mark([inexact])}</sup>" if value.bound else text

    cells = [cell(line.cells[column], column) for column in table.categories]
    if not single:
        average = cell(line.average, "")
        cells.append(f"({average})\\*" if average_is_partial(line) else average)
    cells += [cell(line.groups.get(group, MISSING), f"group {group}") for group in table.groups]
    return [first, second, *cells]


def _cell(line: Line, value: Value, rank: int | None) -> str:
    mean, deviation = parts(value, line.kind)
    text = f"{mean} ± {deviation}" if deviation else mean
    if rank == BEST:
        return f"**{text}**"
    return f"<ins>{text}</ins>" if rank == SECOND else text


def escape(text: str) -> str:
    """Text that GitHub shows as it is, also inside a table."""
    text = seen(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)  # inside a word GitHub leaves it

"""What a command asks for, as one table: the plan, what it costs, and what came out, a line for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

from ad_bench.records import CellId
from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.reproduction import AVERAGE, Verdict
from ad_bench.report.rows import Record, metric_of, number, under
from ad_bench.report.text import figure

if TYPE_CHECKING:
    from rich.console import Console

METRICS = (("image", "image_auroc"), ("paper", "pixel_auroc"))  # in the geometry that papers publish


class Cell(Protocol):
    """A cell of a plan."""

    @property
    def id(self) -> CellId:
        """Where it stands in a table."""

    @property
    def status(self) -> str | None:
        """That of its record: done, failed, skipped; None without one."""

    @property
    def seconds(self) -> float | None:
        """What it should take by earlier records."""


@dataclass(frozen=True)
class Asked:
    """A row of the plan on one data set. Times are seconds of fitting and predicting; means are fractions.

    `left` is None where no earlier record tells. A mean is over the `done` of the row's `cells`, and no
    average of the row before all are done. `published` and `verdicts` have an entry for each metric that the
    reproduction table sets beside the row.
    """

    dataset: str
    row: str
    protocol: str
    cells: int
    done: int
    failed: int
    skipped: int
    spent: float
    left: float | None
    means: Mapping[str, float]
    published: Mapping[str, float]
    verdicts: Mapping[str, str]


def asked(
    cells: Iterable[Cell], found: Mapping[CellId, Record], judged: Iterable[Verdict] = ()
) -> list[Asked]:
    """The table, in the order of the plan. found: the records of the cells that are done."""
    rows: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.id.dataset, cell.id.row, cell.id.protocol), []).append(cell)
    by_row: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in judged:
        name = f"{verdict.method}@{verdict.variant}" if verdict.variant else verdict.method
        by_row.setdefault((verdict.dataset, name, verdict.protocol), []).append(verdict)
    return [_row(key, group, found, by_row.get(key, ())) for key, group in rows.items()]


def _row(
    key: tuple[str, str, str],
    cells: Sequence[Cell],
    found: Mapping[CellId, Record],
    judged: Sequence[Verdict],
) -> Asked:
    records = [found[cell.id] for cell in cells if cell.status == "done" and cell.id in found]
    still = [cell.seconds for cell in cells if cell.status is None]
    means = {}
    for section, metric in METRICS:
        values = [v for record in records if (v := metric_of(record, section, metric)) is not None]
        if values:
            means[metric] = fmean(values)
    categories = {cell.id.category for cell in cells}
    # One category of several has a figure of its own; of a data set with one, the average is that figure.
    wanted = (next(iter(categories)) if len(categories) == 1 else AVERAGE, AVERAGE)
    fitting: dict[str, Verdict] = {}
    for name in wanted:
        for verdict in judged:
            if verdict.category == name and (verdict.ours is not None or name != AVERAGE):
                fitting.setdefault(verdict.metric, verdict)
    return Asked(
        *key,
        cells=len(cells),
        done=len(records),
        failed=sum(cell.status == "failed" for cell in cells),
        skipped=sum(cell.status == "skipped" for cell in cells),
        spent=sum(_seconds(record) for record in records),
        left=None if None in still else sum(one for one in still if one is not None),
        means=means,
        published={metric: verdict.published for metric, verdict in fitting.items()},
        verdicts={metric: verdict.verdict for metric, verdict in fitting.items()},
    )


def _seconds(record: Record) -> float:
    timing = under(record, "timing")
    return sum(number(timing.get(part)) or 0.0 for part in ("fit_seconds", "predict_seconds"))


def asked_csv(rows: Sequence[Asked]) -> str:
    """CSV text, figures in full precision; blank where there is none."""
    names = [metric for _, metric in METRICS]
    head = [
        "dataset",
        "row",
        "protocol",
        "cells",
        "done",
        "failed",
        "skipped",
        "spent_seconds",
        "left_seconds",
    ]
    for name in names:
        head += [name, f"{name}.published", f"{name}.verdict"]
    lines = []
    for one in rows:
        line = [one.dataset, one.row, one.protocol, str(one.cells), str(one.done), str(one.failed)]
        line += [str(one.skipped), exact(round(one.spent, 3))]
        line.append(exact(None if one.left is None else round(one.left, 3)))
        for name in names:
            line += [exact(one.means.get(name)), exact(one.published.get(name)), one.verdicts.get(name, "")]
        lines.append(line)
    return to_csv(head, lines)


def print_asked(rows: Sequence[Asked], console: Console) -> None:
    """Print the table, a block for each data set; figures in brackets are over a part of the row's cells."""
    from rich import box
    from rich.table import Table

    from ad_bench.report.terminal import escape

    caption = (
        "AUROC, pixels in the geometry of the paper; publ.: published; (0.987) is over a part of the cells"
    )
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=caption)
    grid.add_column("row", overflow="fold", min_width=18)
    for head in ("done", "spent", "to come", "image", "publ.", "pixel", "publ."):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("verdict", overflow="fold", min_width=8)
    dataset = ""
    for one in rows:
        if one.dataset != dataset:
            grid.add_section()
            grid.add_row(f"[bold]{escape(one.dataset)}[/bold]")
            dataset = one.dataset
        name = one.row if one.protocol == "full" else f"{one.row} ({one.protocol})"
        grid.add_row(*map(escape, (name, *_texts(one))))
    grid.add_section()
    left, unknown = sum(one.left or 0.0 for one in rows), sum(one.left is None for one in rows)
    total = [f"{sum(one.done for one in rows)}/{sum(one.cells for one in rows)}"]
    total += [_time(sum(one.spent for one in rows)), _time(left) + "+" * bool(unknown)]
    grid.add_row("all", *total)
    console.print(grid)
    if unknown:
        console.print(
            f"?: no record tells yet how long it takes ({unknown} of {len(rows)} rows)", highlight=False
        )


def _texts(one: Asked) -> list[str]:
    """The row's columns from `done` to `verdict`."""
    ended = ((one.failed, "failed"), (one.skipped, "skipped"))
    count = ", ".join([f"{one.done}/{one.cells}", *(f"{some} {word}" for some, word in ended if some)])
    texts = [count, _time(one.spent), "?" if one.left is None else _time(one.left)]
    for _, metric in METRICS:
        ours, theirs = one.means.get(metric), one.published.get(metric)
        text = "-" if ours is None else figure(ours)
        texts.append(text if one.done == one.cells or ours is None else f"({text})")
        texts.append("-" if theirs is None else figure(theirs))
    return [*texts, "; ".join(dict.fromkeys(one.verdicts.values()))]


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

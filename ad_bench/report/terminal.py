"""The leaderboard and the tables on a terminal, fitted to its width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape as rich_escape
from rich.table import Table as Grid

from ad_bench.errors import UsageError, closest
from ad_bench.report.comparable import listed
from ad_bench.report.costs import ACCURACIES, Cost
from ad_bench.report.leaderboard import Place, cost_text, metric_text, name_of
from ad_bench.report.reproduction import AVERAGE, NOT_COMPARABLE, Verdict, summary
from ad_bench.report.rows import Value
from ad_bench.report.tables import BEST, SECOND, Line, Table, largest_bound, name_and_setting
from ad_bench.report.text import average_is_partial, figure, named, parts, seen

NAME_WIDTH = 30
FIXED_WIDTH = 42  # average, published, difference, standing
CELL_WIDTH = 7

# Columns of the leaderboard, the ones that a narrow terminal can do without marked by the width they need.
PLACES = (
    ("image AUROC", "image.image_auroc", 0),
    ("pixel AUROC", "full.pixel_auroc", 0),
    ("pixel AUPR", "full.pixel_aupr", 110),
    ("pixel AUPRO", "full.pixel_aupro", 90),
)


def print_board(
    tables: Mapping[str, Sequence[Table]],
    places: Mapping[str, Sequence[Place]],
    remarks: Iterable[str],
    console: Console,
    datasets: Sequence[str] | None = None,
) -> None:
    """Print all data sets, or the named ones. Raises UsageError for one without records."""
    for name in datasets or ():
        if name not in tables:
            hint = closest(name, tables, f"There are: {', '.join(tables)}")
            raise UsageError(f"no records of data set '{name}'.{hint}")
    for dataset in datasets or tables:
        console.print(_leaderboard(tables[dataset][0].dataset_title, places[dataset], console.width))
        for table in tables[dataset]:
            grid = _grid(table, console.width)
            if grid is not None:
                console.print(grid)
    if datasets or tables:
        names = datasets or list(tables)
        inexact = any(largest_bound(table.lines) for name in names for table in tables[name])
        inexact |= any(v.bound for name in names for place in places[name] for v in place.metrics.values())
        marks = "; 0.987~ is bounded, not exact" if inexact else ""
        console.print(
            "best in bold, second underlined; (0.987)* is not over all categories; † suspect published value,"
            " no target; ‡ published elsewhere than in the survey; ≠ not comparable, reproduction.md says why"
            f"{marks}; footnotes and all rows: results/tables",
            style="dim",
        )
    for text in remarks:
        console.print(escape(text), style="yellow", highlight=False)


def print_reproduction(title: str, found: Sequence[Verdict], console: Console) -> None:
    """Print the comparable averages and how many verdicts are of which kind; nothing without any."""
    if not found:
        return
    grid = _new(f"{title}: reproduction")
    for head in ("method", "metric", "ours", "published", "difference", "verdict"):
        right = head in ("ours", "published", "difference")
        grid.add_column(head, justify="right" if right else "left", overflow="fold")
    for v in found:
        if v.category == AVERAGE and v.verdict != NOT_COMPARABLE and v.ours is not None:
            gap = figure(v.ours - v.published, "difference")
            name, _ = named(v.title, v.variant, v.protocol)
            grid.add_row(escape(name), v.metric, figure(v.ours), figure(v.published), gap, v.verdict)
    if grid.row_count:
        console.print(grid)
    for text in summary(found):
        console.print(f"{escape(title)}, reproduction: {text}", highlight=False)


def print_front(title: str, found: Sequence[Cost], console: Console) -> None:
    """Print the rows that none beats in accuracy, latency and size, for each accuracy."""
    for name, metric in ACCURACIES:
        best = [name_of(cost.place) for cost in found if cost.fronts[metric].on]
        if best:
            text = f"{title}, front of {name}, latency and size: {listed(best, each=80)} (costs.md)"
            console.print(escape(text), highlight=False)


def print_claims(lines: Iterable[str], console: Console) -> None:
    """Print what the figures say of the survey's claims."""
    console.print("The survey's claims (results/claims.md has the evidence)", style="bold", highlight=False)
    for line in lines:
        console.print(f"- {escape(line)}", highlight=False)


def escape(text: str) -> str:
    """Text that rich prints as it is, without what would steer the terminal."""
    return rich_escape(seen(text))


def _new(title: str, caption: str | None = None) -> Grid:
    return Grid(
        title=escape(title),
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title_style="bold",
    )


def _leaderboard(title: str, board: Sequence[Place], width: int) -> Grid:
    grid = _new(f"{title}: leaderboard (pixel metrics on the original masks)")
    grid.add_column("method", min_width=22, max_width=NAME_WIDTH, overflow="fold")
    shown = [(head, metric) for head, metric, least in PLACES if width >= least]
    for head in ["cat.", *(head for head, _ in shown), "fit s", "img/s", "MB"]:
        grid.add_column(head, justify="right")
    for place in board:
        grid.add_row(
            escape(name_of(place).replace(",", ", ").replace(",  ", ", ")),
            f"{place.done}/{place.total}",
            *(metric_text(place, metric).replace(" ± 0", "±") for _, metric in shown),
            cost_text(place.costs["fit_seconds"]),
            cost_text(place.costs["images_per_second"]),
            cost_text(place.costs["model_bytes"], 1e6),
        )
    return grid


def _grid(table: Table, width: int) -> Grid | None:
    """One line for each of our rows, published and difference beside it; None where no row has a figure."""
    ours = [line for line in table.lines if line.kind == "ours"]
    if all(line.average.mean is None and line.average.state in ("missing", "undefined") for line in ours):
        return None
    columns = list(table.categories) if len(table.categories) > 1 else []
    space = width - NAME_WIDTH - FIXED_WIDTH
    fits = sum(max(len(name), CELL_WIDTH) + 1 for name in columns) <= space
    grid = _new(f"{table.dataset_title}: {table.spec.title}")
    grid.add_column("method", max_width=NAME_WIDTH, overflow="fold")
    if columns and fits:
        for name in columns:
            grid.add_column(escape(name), justify="right")
    elif columns:
        grid.add_column("worst category", justify="right")
    for head in ("average", "published", "difference"):
        grid.add_column(head, justify="right")
    for line in ours:
        title, setting, _ = name_and_setting(line)
        name = escape(f"{title} ({', '.join(setting.replace(' ', '').split(','))})" if setting else title)
        cells = [name]
        if columns and fits:
            cells += [_cell(line, line.cells[c], line.rank.get(c)) for c in columns]
        elif columns:
            cells.append(_worst(line))
        grid.add_row(*cells, _average(line), *_published(line))
    return grid


def _average(line: Line) -> str:
    text = _cell(line, line.average, line.rank.get(""))
    return f"({text})*" if average_is_partial(line) else text


def _published(line: Line) -> tuple[str, str]:
    published = line.published
    if published is None or published.average.mean is None:
        return "-", "-"
    sign = {"suspect": "†", "other": "‡"}.get(published.standing.partition(":")[0], "")
    gap = "-"
    if line.complete and line.average.mean is not None:
        gap = figure(line.average.mean - published.average.mean, "difference")
        gap += ("~" if line.average.bound else "") + ("≠" if line.against else "")
    return figure(published.average.mean) + sign, gap


def _worst(line: Line) -> str:
    known = [(value.mean, name) for name, value in line.cells.items() if value.mean is not None]
    states = sorted({value.state for value in line.cells.values()} & {"failed", "skipped"})
    sign = "~" if known and line.cells[min(known)[1]].bound else ""
    text = f"{figure(min(known)[0])}{sign} {min(known)[1]}" if known else "-"
    return escape(", ".join([text, *states]) if known or not states else ", ".join(states))


def _cell(line: Line, value: Value, rank: int | None) -> str:
    mean, deviation = parts(value, line.kind)
    text = (f"{mean}±{deviation.removeprefix('0')}" if deviation else mean) + ("~" if value.bound else "")
    style = {BEST: "bold", SECOND: "underline"}.get(rank or 0)
    return f"[{style}]{text}[/{style}]" if style else text

"""What the rows of a data set cost beside what they reach, and which of them no other row beats."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.latex import Row, Sheet, document, superscript
from ad_bench.report.latex import escape as tex
from ad_bench.report.leaderboard import COSTS, Place, cost_text, metric_text, name_of
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.rows import MISSING
from ad_bench.report.text import Footnotes, bound_note, named

# Accuracies that a front is made for: the second tells rows apart where image AUROC saturates.
ACCURACIES = (("image AUROC", "image.image_auroc"), ("pixel AUPR", "full.pixel_aupr"))
SCORES = (ACCURACIES[0], ("pixel AUROC", "full.pixel_auroc"), ACCURACIES[1])

# Columns: heading, cost of a Place, and the unit that one of it is shown in.
SHOWN = (
    ("fit s", "fit_seconds", 1.0),
    ("images/s", "images_per_second", 1.0),
    ("ms, p50", "latency_ms_p50", 1.0),
    ("ms, p95", "latency_ms_p95", 1.0),
    ("host MB", "host_peak_bytes", 1e6),
    ("device MB", "device_peak_bytes", 1e6),
    ("model MB", "model_bytes", 1e6),
    ("parameters M", "parameters", 1e6),
    ("GFLOPs", "flops", 1e9),
)

LEGEND = (
    "Seconds, images/s and ms are means over cells, memory and sizes the largest. ms: of one image, warmed."
    " host, device: peak memory of fit, scoring and evaluation. model: all that scoring needs, with a"
    " memory bank. Scores over some categories alone stand in brackets; pixels are those of the original"
    " masks.",
    "Front (*): no other row is at least as accurate, as fast (median latency of one image) and as small"
    " (bytes of the model) and better in one of the three. The model, as a peak of the host is mostly that of"
    " libraries and evaluation. Compared are complete rows of one protocol on the same hardware and threads,"
    " unrounded; equal rows stand both on it.",
)


@dataclass(frozen=True, slots=True)
class Point:
    """What a row is compared by. A bounded accuracy lies within `low` and `high`; else they are equal."""

    low: float
    high: float
    latency: float
    memory: float

    def beats(self, other: Point) -> bool:
        """True if this is nowhere worse and somewhere better, whatever the exact accuracies are."""
        return (
            self.low >= other.high
            and self.latency <= other.latency
            and self.memory <= other.memory
            and (self.low > other.high or self.latency < other.latency or self.memory < other.memory)
        )


@dataclass(frozen=True)
class Standing:
    """Where a row stands on one front: `on` it, else `behind` another row, else left out, `why` says it."""

    on: bool = False
    behind: Place | None = None
    why: str = ""


@dataclass(frozen=True)
class Cost:
    """One row of the table; `fronts` by the metric of ACCURACIES."""

    place: Place
    hardware: str
    threads: str
    fronts: Mapping[str, Standing] = field(default_factory=dict)


def front(points: Sequence[Point]) -> list[int | None]:
    """For each point None where no other beats it, else the first point of the front that does.

    Exact: sorted by latency and memory, whatever beats a point stands before it.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i].latency, points[i].memory, -points[i].low))
    best: list[int] = []  # of the front so far, in the order of `points`
    for i in order:
        if not any(points[j].beats(points[i]) for j in best):
            best.insert(bisect_right(best, i), i)
    kept = set(best)
    return [
        None if i in kept else next(j for j in best if points[j].beats(point))
        for i, point in enumerate(points)
    ]


def costs(places: Sequence[Place]) -> list[Cost]:
    """The rows of the leaderboard, in its order, with their fronts."""
    machines = [_machines(place) for place in places]
    fronts: list[dict[str, Standing]] = [{} for _ in places]
    for _, metric in ACCURACIES:
        groups: dict[tuple[str, tuple[str, str]], list[tuple[int, Point]]] = {}
        for i, (place, machine) in enumerate(zip(places, machines, strict=True)):
            point = _point(place, metric, machine)
            if isinstance(point, str):
                fronts[i][metric] = Standing(why=point)
            else:
                groups.setdefault((place.entry.protocol, machine[0]), []).append((i, point))
        for found in groups.values():
            if len(found) == 1:
                alone = "no other complete row of this protocol on the same hardware"
                fronts[found[0][0]][metric] = Standing(why=alone)
                continue
            for (i, _), beaten in zip(found, front([point for _, point in found]), strict=True):
                fronts[i][metric] = (
                    Standing(on=True) if beaten is None else Standing(behind=places[found[beaten][0]])
                )
    return [
        Cost(
            place,
            "; ".join(dict.fromkeys(name for name, _ in machine)),
            "; ".join(dict.fromkeys(threads for _, threads in machine if threads)),
            of_place,
        )
        for place, machine, of_place in zip(places, machines, fronts, strict=True)
    ]


def _machines(place: Place) -> list[tuple[str, str]]:
    """Hardware and number of threads of its cells, without repetition; blank where a record does not say."""
    found: dict[tuple[str, str], None] = {}
    for record in place.entry.done():
        known = record.get("hardware") or {}
        cpu, device = str(known.get("cpu") or ""), str(known.get("device") or "")
        name = " + ".join(text for text in (device if device != "cpu" else "", cpu) if text)
        workers = known.get("workers_on_device") or 1
        if workers != 1:  # its seconds are not those of a cell that has the device to itself
            name += f", shared by {workers} workers"
        found[name, str(known.get("threads") or "")] = None
    return sorted(found)


def _point(place: Place, metric: str, machines: Sequence[tuple[str, str]]) -> Point | str:
    """What the row is compared by, else why it is not."""
    if not place.complete:
        return f"{place.done} of {place.total} categories"
    if len(machines) != 1:
        return "cells of several machines or numbers of threads"
    if not machines[0][0]:
        return "hardware not recorded"
    accuracy = place.metrics.get(metric, MISSING)
    latency = place.costs["latency_ms_p50"]
    memory = place.costs["model_bytes"]
    lacks = {metric.partition(".")[2]: accuracy.mean, "latency": latency, "model bytes": memory}
    missing = [name for name, value in lacks.items() if value is None]
    if missing or accuracy.mean is None or latency is None or memory is None:
        return f"no {' and no '.join(missing)}"
    slack = accuracy.bound or 0.0
    return Point(accuracy.mean - slack, accuracy.mean + slack, latency, memory)


def files(folder: Path, title: str, places: Sequence[Place]) -> dict[Path, str]:
    """`costs.{csv,tex,md}` of a data set."""
    found = costs(places)
    return {
        folder / "costs.csv": costs_csv(found),
        folder / "costs.tex": costs_latex(title, found),
        folder / "costs.md": costs_markdown(title, found),
    }


def costs_csv(found: Sequence[Cost]) -> str:
    """CSV text in full precision. `front.<metric>` is blank where `left_out.<metric>` says why."""
    head = ["dataset", "method", "title", "variant", "protocol", "taxonomy", "complete", "seeds"]
    head += [column for column, *_ in COSTS] + ["hardware", "threads"] + [metric for _, metric in SCORES]
    for _, metric in ACCURACIES:
        head += [f"front.{metric}", f"dominated_by.{metric}", f"left_out.{metric}"]
    rows = []
    for cost in found:
        place, entry = cost.place, cost.place.entry
        row = [entry.dataset, entry.method, entry.title, entry.variant, entry.protocol, place.taxonomy]
        row += ["true" if place.complete else "false", exact(place.seeds)]
        row += [exact(place.costs[column]) for column, *_ in COSTS] + [cost.hardware, cost.threads]
        row += [exact(place.metrics.get(metric, MISSING).mean) for _, metric in SCORES]
        for _, metric in ACCURACIES:
            standing = cost.fronts[metric]
            mark = "" if standing.why else "true" if standing.on else "false"
            row += [mark, name_of(standing.behind) if standing.behind else "", standing.why]
        rows.append(row)
    return to_csv(head, rows)


HEAD = (
    "method",
    *(name for name, _ in SCORES),
    *(name for name, *_ in SHOWN),
    *(text for name, _ in ACCURACIES for text in (f"front, {name}", "dominated by")),
)
_TEXT = [i for i, name in enumerate(HEAD) if name == "method" or name.startswith(("front", "dominated"))]


def costs_markdown(title: str, found: Sequence[Cost]) -> str:
    """A page with the table and its footnotes."""
    notes = Footnotes()
    columns = _columns(found)
    body = []
    for cost in found:
        cells = [escape(text) for text in _cells(cost)]
        for i, remarks in _remarks(cost, found).items():
            cells[i] += f"<sup>{notes.mark(remarks)}</sup>"
        body.append([cells[i] for i in columns])
    text = [at for at, i in enumerate(columns) if i in _TEXT]
    page = [f"# {escape(title)}: costs", "", escape(LEGEND[0]), "", escape(LEGEND[1]), ""]
    page += grid([HEAD[i] for i in columns], body, text=text)
    page += bullets([f"<sup>{x}</sup> {escape(text)}" for text, x in notes.letters.items()])
    return "\n".join(page) + "\n"


def costs_latex(title: str, found: Sequence[Cost]) -> str:
    """The same as a LaTeX file."""
    columns = [i for i in _columns(found) if HEAD[i] != "dominated by"]

    def row(cost: Cost, notes: Footnotes) -> list[str]:
        cells = [tex(text) for text in _cells(cost)]
        for i, remarks in in_notes(cost).items():
            cells[i] += superscript(notes, remarks)
        return [cells[i] for i in columns]

    def in_notes(cost: Cost) -> dict[int, list[str]]:
        """There is no room for the names of other rows."""
        remarks = _remarks(cost, found)
        for name, metric in ACCURACIES:
            behind = cost.fronts[metric].behind
            if behind:
                remarks[HEAD.index(f"front, {name}")] = [f"dominated by {_name(behind)[0]}"]
        return remarks

    sheet = Sheet(
        title=f"{title}: costs",
        name=f"{found[0].place.entry.dataset}-costs",
        align="".join("l" if i in _TEXT else "r" for i in columns),
        head=[tex(HEAD[i]) for i in columns],
        rows=[
            Row(partial(row, cost), [text for texts in in_notes(cost).values() for text in texts])
            for cost in found
        ],
        below=lambda part: [tex(text) for text in LEGEND] if part.start == 0 else [],
    )
    return document([sheet])


def _columns(found: Sequence[Cost]) -> list[int]:
    """The columns of HEAD that say anything of these rows: without a GPU there is no device memory."""
    rows = [_cells(cost) for cost in found]
    return [i for i in range(len(HEAD)) if any(row[i] != "-" for row in rows)]


def _remarks(cost: Cost, found: Sequence[Cost]) -> dict[int, list[str]]:
    """Footnotes by column: the machine, bounds, and why a row is not compared."""
    threads = f", {cost.threads} thread{'' if cost.threads == '1' else 's'}" if cost.threads else ""
    machine = f"{cost.hardware or 'hardware not recorded'}{threads}"
    notes = {0: [machine, *_name(cost.place)[1]]}
    for name, metric in SCORES:
        if cost.place.metrics.get(metric, MISSING).bound:
            bounds = [bound for c in found if (bound := c.place.metrics.get(metric, MISSING).bound)]
            notes[HEAD.index(name)] = [bound_note(max(bounds))]
    for name, metric in ACCURACIES:
        if cost.fronts[metric].why:
            notes[HEAD.index(f"front, {name}")] = [f"not compared: {cost.fronts[metric].why}"]
    return notes


def _name(place: Place) -> tuple[str, list[str]]:
    return named(place.entry.title, place.entry.variant, place.entry.protocol)


def _cells(cost: Cost) -> list[str]:
    """One printed line, in the order of HEAD."""
    place = cost.place
    cells = [_name(place)[0]]
    cells += [metric_text(place, metric, inexact="") for _, metric in SCORES]
    cells += [cost_text(place.costs[column], unit) for _, column, unit in SHOWN]
    for _, metric in ACCURACIES:
        standing = cost.fronts[metric]
        cells.append("*" if standing.on else "")
        cells.append(_name(standing.behind)[0] if standing.behind else "")
    return cells

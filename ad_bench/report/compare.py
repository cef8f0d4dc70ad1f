"""Two rows cell by cell: both values, their difference, and whether the test images could have made it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ad_bench.errors import UsageError, closest
from ad_bench.records import CellId
from ad_bench.report import choose
from ad_bench.report.choose import Block, Row
from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.leaderboard import metrics_of
from ad_bench.report.ranking import p_text
from ad_bench.report.rows import Record, cell_key, percent, under
from ad_bench.report.significance import (
    ALPHA,
    SignedRank,
    bootstrap_p,
    delong,
    holm,
    signed_rank,
    smallest_p,
)
from ad_bench.report.text import figure

if TYPE_CHECKING:
    from rich.console import Console

    from ad_bench.report.board import Board

REPLICATES = 2000  # of a paired bootstrap: p is at least 0.001
LEVEL = 1 - ALPHA
SAME = 1e-6  # the figure of samples.csv is the record's own

Interval = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """One category of one data set, averaged over `seeds` (of A, of B). `difference` is A minus B.

    p is None where nothing was tested: `note` says why. corrected: p by Holm over all cells that have one.
    """

    block: Block
    first: float
    second: float
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    images: int = 0
    interval: Interval | None = None
    p: float | None = None
    corrected: float | None = None
    test: str = ""
    note: str = ""

    @property
    def difference(self) -> float:
        """A minus B."""
        return self.first - self.second


@dataclass(frozen=True)
class Comparison:
    """Every cell that both rows have. `overall` is over the cells; `interval` that of the mean difference."""

    first: Row
    second: Row
    section: str
    metric: str
    cells: tuple[Cell, ...]
    mean: float
    interval: Interval | None
    overall: SignedRank
    remarks: tuple[str, ...]


def compare(
    board: Board,
    results: Path,
    first: str,
    second: str,
    datasets: Sequence[str] = (),
    metric: str = "image_auroc",
) -> Comparison:
    """The rows named `first` and `second` by one metric (`image_aupr`, `pixel_aupro`, `paper.pixel_auroc`).

    Within a cell both rows are paired over the test images of samples.csv: DeLong's test for the image AUROC,
    a paired bootstrap for other image metrics. Pixel metrics cannot be tested so: records hold no pixels.
    Raises UsageError for an unknown row, data set or metric, a row against itself, and rows without a cell in
    common.
    """
    rows = choose.rows_of(board)
    a, b = choose.find(first, rows), choose.find(second, rows)
    if a.name == b.name:
        raise UsageError(f"'{first}' and '{second}' are the same row; name two")
    for name in datasets:
        if name not in board.places:
            hint = closest(name, board.places, f"There are: {', '.join(board.places)}")
            raise UsageError(f"no records of data set '{name}'.{hint}")
    section, name = choose.section_of(metric)
    held = [row.blocks(section, name) for row in (a, b)]
    if not any(held):
        known = metrics_of(entry for row in (a, b) for entry in row.entries.values())
        names = [text.partition(".")[2] if text.split(".")[0] != "paper" else text for text in known]
        hint = closest(metric, names, f"They have: {', '.join(names)}")
        raise UsageError(f"neither {a.name} nor {b.name} has a metric '{metric}'.{hint}")
    common = [
        block for block in choose.ordered(board, held[0] & held[1]) if not datasets or block[0] in datasets
    ]
    if not common:
        raise UsageError(
            f"{a.name} and {b.name} have no cell with {metric} in common"
            + (f" on {', '.join(datasets)}" if datasets else "")
            + f"; {a.name} has {_where(held[0])}, {b.name} {_where(held[1])}"
        )
    cells = [_cell(a, b, block, section, name, results) for block in common]
    tested = [cell.p for cell in cells if cell.p is not None]
    corrected = iter(holm(tested))
    cells = [cell if cell.p is None else replace(cell, corrected=next(corrected)) for cell in cells]
    differences = [cell.difference for cell in cells]
    return Comparison(
        first=a,
        second=b,
        section=section,
        metric=name,
        cells=tuple(cells),
        mean=math.fsum(differences) / len(cells),
        interval=_mean_interval(differences),
        overall=signed_rank(differences),
        remarks=tuple(_remarks(a, b, held, common, cells, section, datasets)),
    )


def _where(blocks: frozenset[Block]) -> str:
    counts: dict[str, int] = {}
    for dataset, _ in sorted(blocks):
        counts[dataset] = counts.get(dataset, 0) + 1
    return ", ".join(f"{count} of {name}" for name, count in counts.items()) or "none"


def _cell(a: Row, b: Row, block: Block, section: str, metric: str, results: Path) -> Cell:
    own = [_seeds(row, block, section, metric) for row in (a, b)]
    common = sorted(set(own[0]) & set(own[1]))
    used = (common, common) if common else (own[0], own[1])
    means = [_mean(row, seeds, block, section, metric) for row, seeds in zip((a, b), used, strict=True)]
    cell = Cell(block, means[0], means[1], (tuple(used[0]), tuple(used[1])))
    if own[0] != own[1]:
        text = "common seeds alone" if common else "no seed in common"
        cell = replace(cell, note=f"{text} (A has {_listed(own[0])}, B {_listed(own[1])})")
    if section != "image":
        return cell
    try:
        sides = [
            [_samples(results, row, seed, block) for seed in seeds]
            for row, seeds in zip((a, b), used, strict=True)
        ]
        images, labels = _paired(sides)
        scores = [[[seed[path][1] for path in images] for seed in side] for side in sides]
        return replace(_tested(cell, scores, labels, metric), images=len(images))
    except _NoTest as why:
        return replace(cell, note="; ".join(text for text in (cell.note, f"not tested: {why}") if text))


def _seeds(row: Row, block: Block, section: str, metric: str) -> list[int]:
    return [s for s in sorted(row.entries[block[0]].cells) if row.at(s, block, section, metric) is not None]


def _mean(row: Row, seeds: Sequence[int], block: Block, section: str, metric: str) -> float:
    return math.fsum(row.at(seed, block, section, metric) or 0.0 for seed in seeds) / len(seeds)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


class _NoTest(Exception):
    """Why a cell cannot be tested over its images."""


Samples = dict[str, tuple[int, float]]  # path -> label, score


def _samples(results: Path, row: Row, seed: int, block: Block) -> Samples:
    """The images of one cell; raises _NoTest where they cannot be read or are not what was scored."""
    dataset, category = block
    record = row.entries[dataset].cells[seed][category]
    if record.get("averaged"):
        raise _NoTest(
            f"the value is a mean over kinds of defects ({', '.join(map(str, record['averaged']))})"
        )
    path = folder_of(results, record) / "samples.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        found = {line["path"]: (int(line["label"]), float(line["score"])) for line in lines}
    except FileNotFoundError:
        raise _NoTest(f"{row.name} has no samples.csv (seed {seed})") from None
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise _NoTest(f"samples.csv of {row.name} cannot be read ({type(error).__name__})") from None
    if len(found) < len(lines):
        raise _NoTest(f"{row.name} lists an image twice")
    if not all(label in (0, 1) and math.isfinite(score) for label, score in found.values()):
        raise _NoTest(
            f"samples.csv of {row.name} has a label that is not 0 or 1, or a score that is no number"
        )
    return found


def folder_of(results: Path, record: Record) -> Path:
    """Where a record lies; a fingerprint is one name, never a path."""
    dataset, method, variant, protocol, category, seed = cell_key(record)
    cell = CellId(dataset, category, method, variant, protocol, seed)
    name = str(under(record, "fingerprint").get("cell") or "")
    return cell.folder(results) / (Path(name).name or "_")


def _paired(sides: Sequence[Sequence[Samples]]) -> tuple[list[str], list[int]]:
    """Paths of the test images, sorted, and their labels; raises _NoTest where these are not all the same."""
    every = [samples for side in sides for samples in side]
    paths = sorted(every[0])
    for samples in every[1:]:
        if samples.keys() != every[0].keys():
            odd = len(samples.keys() ^ every[0].keys())
            raise _NoTest(
                f"different test images ({odd} of {len(samples.keys() | every[0].keys())} not in both)"
            )
        if any(samples[path][0] != every[0][path][0] for path in paths):
            raise _NoTest("the same images have different labels")
    labels = [every[0][path][0] for path in paths]
    if min(labels.count(0), labels.count(1)) < 2:
        raise _NoTest(
            f"{labels.count(0)} normal and {labels.count(1)} anomalous images; a test takes 2 of each"
        )
    return paths, labels


def _tested(cell: Cell, scores: Sequence[Any], labels: Sequence[int], metric: str) -> Cell:
    """The cell with its test. scores: of A and B, (seeds, N)."""
    if metric == "image_auroc":
        areas = delong(scores[0], scores[1], labels)
        _check(cell, areas.first, areas.second)
        if areas.p is None:
            raise _NoTest("no image's score leaves room for chance")
        return replace(cell, p=areas.p, interval=areas.interval(LEVEL), test="DeLong")
    import numpy as np

    from ad_bench.metrics.bootstrap import draws, replicate_images

    whole = np.ones((1, len(labels)), np.int64)
    weights = np.concatenate([whole, draws(labels, REPLICATES, 0)])
    try:
        sides = [
            np.mean([replicate_images(own, labels, [metric], weights)[metric] for own in side], axis=0)
            for side in scores
        ]
    except (KeyError, UsageError):
        raise _NoTest(f"no test is written for {metric}") from None
    _check(cell, float(sides[0][0]), float(sides[1][0]))
    scatter = sides[0][1:] - sides[1][1:]
    low, high = np.quantile(scatter, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return replace(cell, p=bootstrap_p(scatter), interval=(float(low), float(high)), test="paired bootstrap")


def _check(cell: Cell, first: float, second: float) -> None:
    if max(abs(first - cell.first), abs(second - cell.second)) > SAME:
        raise _NoTest(
            f"samples.csv gives {first:.4f} and {second:.4f}, not the records' values: of another run?"
        )


def _mean_interval(differences: Sequence[float]) -> Interval | None:
    """Student's interval of the mean difference over cells; None of a single one."""
    n = len(differences)
    if n < 2:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(differences) / n
    error = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    reach = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    return mean - reach, mean + reach


def _remarks(
    a: Row,
    b: Row,
    held: Sequence[frozenset[Block]],
    common: Sequence[Block],
    cells: Sequence[Cell],
    section: str,
    datasets: Sequence[str],
) -> list[str]:
    lines = []
    if a.protocol != b.protocol:
        lines.append(f"Different protocols: A {a.protocol}, B {b.protocol}.")
    for side, row, own in (("A", a, held[0]), ("B", b, held[1])):
        alone = [block for block in sorted(own - set(common)) if not datasets or block[0] in datasets]
        if alone:
            names = ", ".join("/".join(block) for block in alone[:5]) + (" ..." if len(alone) > 5 else "")
            lines.append(f"Left out, of {side} ({row.name}) alone: {len(alone)} cells ({names}).")
    if section != "image":
        lines.append(
            "Pixel metrics are not tested within a cell: records hold no pixels. What can be tested is how"
            " the differences scatter over the cells."
        )
    if any(max(map(len, cell.seeds)) > 1 for cell in cells if cell.p is not None):
        lines.append(
            "p within a cell: of the mean over seeds, by the choice of test images; not by the seeds."
        )
    if smallest_p(len(cells)) >= ALPHA:
        lines.append(
            f"Over the cells: the smallest p that {len(cells)} can give is {smallest_p(len(cells)):.3g};"
            f" below {ALPHA} takes 6 or more."
        )
    return lines


def comparison_csv(found: Comparison) -> str:
    """A line for each cell, then one for the mean; unrounded."""
    head = ["dataset", "category", "metric", "a", "b", "a_value", "b_value", "difference", "low", "high"]
    head += ["p", "p_holm", "test", "images", "a_seeds", "b_seeds", "note"]
    names = [f"{found.section}.{found.metric}", found.first.name, found.second.name]
    lines = [
        [
            *(*cell.block, *names),
            *map(exact, (cell.first, cell.second, cell.difference, *(cell.interval or (None, None)))),
            *(exact(cell.p), exact(cell.corrected), cell.test, exact(cell.images or None)),
            *(" ".join(map(str, seeds)) for seeds in cell.seeds),
            cell.note,
        ]
        for cell in found.cells
    ]
    ends = map(exact, found.interval or (None, None))
    note = "; ".join([f"over {len(found.cells)} cells", *found.remarks])
    mean = ["mean", "", *names, "", "", exact(found.mean), *ends, exact(found.overall.p), "", "Wilcoxon"]
    return to_csv(head, [*lines, [*mean, "", "", "", note]])


def comparison_json(found: Comparison) -> str:
    """One object: rows, metric, `cells`, `overall`, `remarks`."""
    cells = [
        {
            "dataset": cell.block[0],
            "category": cell.block[1],
            "a": cell.first,
            "b": cell.second,
            "difference": cell.difference,
            "interval": list(cell.interval) if cell.interval else None,
            "p": cell.p,
            "p_holm": cell.corrected,
            "test": cell.test or None,
            "images": cell.images or None,
            "seeds": {"a": list(cell.seeds[0]), "b": list(cell.seeds[1])},
            "note": cell.note or None,
        }
        for cell in found.cells
    ]
    whole = {
        "a": found.first.name,
        "b": found.second.name,
        "metric": f"{found.section}.{found.metric}",
        "level": LEVEL,
        "cells": cells,
        "overall": {
            "difference": found.mean,
            "interval": list(found.interval) if found.interval else None,
            "wilcoxon": {"n": found.overall.n, "zeros": found.overall.zeros, "p": found.overall.p},
        },
        "remarks": list(found.remarks),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)


def print_comparison(found: Comparison, console: Console) -> None:
    """The table on a terminal; significant cells (after Holm) in bold."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    console.print(f"A: {escape(found.first.title)}\nB: {escape(found.second.title)}", highlight=False)
    where = {"image": "", "full": ", original masks", "paper": ", as the methods' papers did"}
    grid = Grid(
        title=f"{escape(found.metric)}{where.get(found.section, '')}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    grid.add_column("cell", overflow="fold")
    for head in ("A", "B", "A - B", percent(LEVEL), "p", "p Holm"):
        grid.add_column(head, justify="right", no_wrap=True)
    for cell in found.cells:
        told = cell.corrected is not None and cell.corrected < ALPHA
        grid.add_row(
            escape("/".join(cell.block)),
            figure(cell.first),
            figure(cell.second),
            figure(cell.difference, "difference"),
            _ends(cell.interval),
            "-" if cell.p is None else p_text(cell.p),
            "-" if cell.corrected is None else p_text(cell.corrected),
            style="bold" if told else None,
        )
    console.print(grid)
    n, overall = len(found.cells), found.overall
    won = sum(round(cell.difference, 10) > 0 for cell in found.cells)
    lines = [
        f"Mean difference over {n} cell{'s' * (n > 1)} {figure(found.mean, 'difference')}"
        + (f" ({_ends(found.interval)}, {percent(LEVEL)} by Student's t)" if found.interval else "")
        + f"; A higher in {won}, equal in {overall.zeros}, lower in {n - won - overall.zeros}.",
        f"Wilcoxon over the cells: p {p_text(overall.p, True)}.",
    ]
    tests = sorted({cell.test for cell in found.cells if cell.test})
    if tests:
        lines.append(f"Within a cell: {', '.join(tests)}, paired over the test images; Holm over the cells.")
    lines += found.remarks
    notes: dict[str, list[str]] = {}
    for cell in found.cells:
        if cell.note:
            notes.setdefault(cell.note, []).append("/".join(cell.block))
    lines += [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    for line in lines:
        console.print(escape(line), highlight=False)


def _ends(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return " to ".join(figure(end, "difference") for end in interval)

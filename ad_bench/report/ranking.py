"""Which method ranks where over categories and data sets, and which differences are more than chance.

A block is one category of one data set. Only complete comparisons are made: every compared row has a value
in every block, nothing is filled in, and what was left out is said. Ranks are averaged over the blocks.
Friedman's test asks whether any methods differ, Wilcoxon's signed-rank test with Holm's correction which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from ad_bench.errors import UsageError
from ad_bench.report import choose, diagram
from ad_bench.report.choose import FULL, Block, Row
from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.rows import Interval, Value, over_seeds, percent, some_of
from ad_bench.report.significance import (
    ALPHA,
    SignedRank,
    friedman,
    groups,
    holm,
    ranks,
    signed_rank,
    smallest_p,
)
from ad_bench.report.text import bound_note, figure

if TYPE_CHECKING:
    from ad_bench.report.board import Board
    from ad_bench.report.site import Extra

MOST = 10  # methods of a diagram: more are not legible, and every pair more makes Holm's correction harder
METRICS = {  # each is higher where a method is better
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC on the original masks",
    "pixel_aupro": "pixel AUPRO on the original masks",
}
_SHOWN = 12  # names of a list before `and 3 more`; CSV files have all


@dataclass(frozen=True)
class Ranked:
    """One compared row: its mean rank, and its mean over the blocks with what is known of its spread."""

    row: Row
    mean_rank: float
    mean: Value
    values: Mapping[Block, Value]

    @property
    def name(self) -> str:
        """The row's name."""
        return self.row.name


@dataclass(frozen=True)
class Ranking:
    """A complete comparison by one metric, best mean rank first.

    tests and corrected: by pairs of places (i < j) in `rows`. tested: Friedman's chi squared and p, None with
    fewer than three rows. left_out: name of a row -> why. blocks_left_out: block -> how many rows have it.
    """

    metric: str
    blocks: tuple[Block, ...]
    rows: tuple[Ranked, ...]
    tested: tuple[float, float] | None
    tests: Mapping[tuple[int, int], SignedRank]
    corrected: Mapping[tuple[int, int], float]
    left_out: Mapping[str, str]
    blocks_left_out: Mapping[Block, int]
    protocol: str
    chosen: bool  # by name, not by the rule

    @property
    def different(self) -> set[tuple[int, int]]:
        """The pairs told apart at ALPHA: none where Friedman's test finds no difference at all."""
        if self.tested is not None and self.tested[1] >= ALPHA:
            return set()
        return {pair for pair, p in self.corrected.items() if p < ALPHA}

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The largest groups of rows of which no pair is told apart."""
        return groups(len(self.rows), self.different)


def rankings(board: Board, rank: str = "") -> list[Ranking]:
    """One for each of METRICS. `rank` names the rows; without it they are chosen by `default_rows`.

    Raises UsageError for names that are no rows, fewer than two, more than MOST, or of several protocols.
    """
    rows = choose.rows_of(board)
    named = choose.split(rank, rows) if rank else []
    named = list({row.name: row for row in named}.values())
    if rank and not 2 <= len(named) <= MOST:
        raise UsageError(f"rank={rank} names {len(named)} rows; a ranking compares 2 to {MOST}")
    protocols = {row.protocol for row in named}
    if len(protocols) > 1:
        raise UsageError(
            f"rank={rank} mixes the protocols {', '.join(sorted(protocols))}, which are not comparable;"
            " name rows of one protocol, or see adbench compare for two rows"
        )
    return [_ranking(board, rows, named, metric) for metric in METRICS]


def _ranking(board: Board, rows: Mapping[str, Row], named: Sequence[Row], metric: str) -> Ranking:
    section, name = choose.section_of(metric)
    protocol = named[0].protocol if named else FULL
    held = {row.name: row.blocks(section, name) for row in rows.values() if row.protocol == protocol}
    left_out = {
        row.name: f"another protocol than {protocol}, not comparable"
        for row in rows.values()
        if row.protocol != protocol
    }
    if named:
        blocks = frozenset.intersection(*(held[row.name] for row in named))
        picked = list(named)
    else:
        picked, blocks = default_rows([rows[name] for name in held], held)
    compared = {row.name for row in picked}
    for other, own in held.items():
        if other in compared:
            continue
        missing = choose.ordered(board, blocks - own)
        if not own:
            left_out[other] = "has no value of the metric"
        elif len(missing) == len(blocks):
            left_out[other] = "has none of the blocks"
        elif missing:
            left_out[other] = f"lacks {len(missing)} of {len(blocks)} blocks ({_listed(missing)})"
        elif named:
            left_out[other] = "not among the chosen rows"
        else:
            left_out[other] = "another row of its method is compared"
    order = choose.ordered(board, blocks)
    values = {row.name: row.values(order, section, name) for row in picked} if blocks else {}
    placed = _mean_ranks(values, order)
    if len(placed) > MOST:
        for late in list(placed)[MOST:]:
            left_out[late] = (
                f"mean rank {placed[late]:.2f} among {len(placed)} complete methods: not of the best {MOST}"
            )
        placed = _mean_ranks({late: values[late] for late in list(placed)[:MOST]}, order)
    found = [
        Ranked(rows[one], mean, _mean(rows[one], values[one], section, name), values[one])
        for one, mean in placed.items()
    ]
    every: dict[Block, int] = {}
    for own in held.values():
        for block in own - blocks:
            every[block] = every.get(block, 0) + 1
    pairs = list(combinations(range(len(found)), 2)) if blocks else []
    tests = {(i, j): signed_rank(_differences(found[i], found[j])) for i, j in pairs}
    return Ranking(
        metric=metric,
        blocks=tuple(order),
        rows=tuple(found),
        tested=friedman(_table(found)) if len(found) > 2 else None,
        tests=tests,
        corrected=dict(zip(pairs, holm([tests[pair].p for pair in pairs]), strict=True)),
        left_out=dict(sorted(left_out.items())),
        blocks_left_out={block: every[block] for block in choose.ordered(board, frozenset(every))},
        protocol=protocol,
        chosen=bool(named),
    )


def default_rows(
    rows: Sequence[Row], held: Mapping[str, frozenset[Block]]
) -> tuple[list[Row], frozenset[Block]]:
    """The rows and blocks of the largest complete comparison: most methods times blocks, else most blocks.

    Each method stands with one row that has all blocks: the one without a variant, else the shortest name,
    then by the alphabet. No score has a say in it.
    """
    covers = sorted({held[row.name] for row in rows if held[row.name]}, key=lambda c: (-len(c), sorted(c)))
    covers = covers[:64]  # of more, the small ones: the pairs below grow with the square
    tries = {*covers, *(a & b for a, b in combinations(covers, 2))} - {frozenset()}
    best: tuple[tuple[int, int], list[Block]] | None = None
    for blocks in sorted(tries, key=sorted):
        methods = len({row.method for row in rows if blocks <= held[row.name]})
        size = (methods * len(blocks), len(blocks)) if methods > 1 else (0, len(blocks))
        if best is None or size > best[0]:
            best = size, sorted(blocks)
    if best is None:
        return [], frozenset()
    blocks = frozenset(best[1])
    picked: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (len(row.variant), row.variant)):
        if blocks <= held[row.name]:
            picked.setdefault(row.method, row)
    return [picked[method] for method in sorted(picked)], blocks


def _mean_ranks(values: Mapping[str, Mapping[Block, Value]], blocks: Sequence[Block]) -> dict[str, float]:
    """Name of a row -> its mean rank over the blocks, best first, equal ones by name."""
    columns = [ranks([own[block].mean or 0.0 for own in values.values()]) for block in blocks]
    means = {name: math.fsum(column[i] for column in columns) / len(blocks) for i, name in enumerate(values)}
    return dict(sorted(means.items(), key=lambda item: (round(item[1], 9), item[0])))


def _mean(row: Row, values: Mapping[Block, Value], section: str, metric: str) -> Value:
    """Over all blocks, with the interval of the test images (blocks have their own) and the seeds' spread."""
    cells = list(values.values())
    mean = math.fsum(cell.mean or 0.0 for cell in cells) / len(cells)
    blocks = list(values)
    whole = row.seeds(blocks, section, metric)
    over = [math.fsum(row.at(s, b, section, metric) or 0.0 for b in blocks) / len(blocks) for s in whole]
    bound = math.fsum(cell.bound or 0.0 for cell in cells) / len(cells) or None
    spread = over_seeds(over).deviation
    seeds = max(len(whole), min(cell.seeds for cell in cells))
    return Value(mean, spread, seeds, "value", _interval(mean, [cell.interval for cell in cells]), bound)


def _interval(mean: float, found: Sequence[Interval | None]) -> Interval | None:
    known = [interval for interval in found if interval is not None]
    if len(known) < len(found) or len({interval.level for interval in known}) != 1:
        return None
    if len(known) == 1:
        return known[0]
    error = math.sqrt(math.fsum(interval.error**2 for interval in known)) / len(known)
    reach = NormalDist().inv_cdf((1 + known[0].level) / 2) * error
    return Interval(max(0.0, mean - reach), min(1.0, mean + reach), error, known[0].level)


def _table(rows: Sequence[Ranked]) -> list[list[float]]:
    return [[row.values[block].mean or 0.0 for row in rows] for block in rows[0].values]


def _differences(a: Ranked, b: Ranked) -> list[float]:
    return [(a.values[block].mean or 0.0) - (b.values[block].mean or 0.0) for block in a.values]


def files(found: Sequence[Ranking], titles: Mapping[str, str], home: Path) -> dict[Path, str]:
    """`ranking/<metric>.{csv,md,svg,tex}` below `home`, and what they hold. titles: those of data sets."""
    held: dict[Path, str] = {}
    for ranking in found:
        stem = home / "ranking" / ranking.metric
        drawn = _drawing(ranking)
        held[stem.with_suffix(".csv")] = ranking_csv(ranking)
        held[stem.with_suffix(".md")] = ranking_markdown(ranking, titles)
        held[stem.with_suffix(".svg")] = diagram.svg(drawn, f"ranking-{ranking.metric}")
        caption = " ".join([f"{drawn.title}.", *_sentences(ranking, titles)])
        held[stem.with_suffix(".tex")] = diagram.figure(drawn, caption, f"fig:adbench-{ranking.metric}")
    return held


def extras(found: Sequence[Ranking], titles: Mapping[str, str]) -> list[Extra]:
    """A page of the site for each ranking that has a diagram."""
    from ad_bench.report.site import Extra

    pages = []
    for ranking in found:
        if len(ranking.rows) < 2:
            continue
        drawn = _drawing(ranking)
        left = [
            f"Left out, {reason}: {some_of(names, _SHOWN)}." for reason, names in _by_reason(ranking).items()
        ]
        pages.append(
            Extra(
                ident=f"ranking-{ranking.metric}",
                title=drawn.title,
                paragraphs=[*_sentences(ranking, titles), *left],
                head=["row", "mean rank", "mean", "interval", "seeds"],
                rows=[[row.name, f"{row.mean_rank:.2f}", *_figures(row.mean)] for row in ranking.rows],
                svg=diagram.svg(drawn, f"ranking-{ranking.metric}"),
                picture=drawn.description,
            )
        )
    return pages


def _drawing(ranking: Ranking) -> diagram.Drawing:
    return diagram.draw(
        f"Mean ranks by {METRICS[ranking.metric]}",
        f"mean rank over {_count(len(ranking.blocks), 'block')}, 1 is best; bars join what is not told apart",
        [place.row.title for place in ranking.rows],
        [place.mean_rank for place in ranking.rows],
        ranking.groups,
    )


def ranking_csv(ranking: Ranking) -> str:
    """A line for each compared row, best first, then for each left out; p.<row> is corrected by Holm."""
    names = [place.name for place in ranking.rows]
    head = ["place", "row", "method", "variant", "protocol", "standing", "mean_rank", "blocks", "mean"]
    head += [
        "deviation",
        "seeds",
        "low",
        "high",
        "level",
        "bound",
        "reason",
        *(f"p.{name}" for name in names),
    ]
    lines = []
    for i, place in enumerate(ranking.rows):
        row, mean, ends = place.row, place.mean, place.mean.interval
        ps = [
            "" if i == j else exact(ranking.corrected[min(i, j), max(i, j)]) for j in range(len(ranking.rows))
        ]
        lines.append(
            [
                exact(i + 1),
                *(row.name, row.method, row.variant, row.protocol, "compared"),
                *map(exact, (place.mean_rank, len(ranking.blocks), mean.mean, mean.deviation, mean.seeds)),
                *map(exact, (ends.low, ends.high, ends.level) if ends else (None, None, None)),
                *(exact(mean.bound), "", *ps),
            ]
        )
    blank = [""] * len(names)
    for name, reason in ranking.left_out.items():
        lines.append(["", name, "", "", "", "left out", *[""] * 8, "", reason, *blank])
    return to_csv(head, lines)


def ranking_markdown(ranking: Ranking, titles: Mapping[str, str]) -> str:
    """The whole page: order, tests, diagram, and what was left out."""
    page = [f"# Mean ranks by {escape(METRICS[ranking.metric])}", ""]
    page += [escape(text) for text in _sentences(ranking, titles)]
    if len(ranking.rows) > 1:
        body = [
            [escape(place.name), f"{place.mean_rank:.2f}", *_figures(place.mean)] for place in ranking.rows
        ]
        page += ["", *grid(["row", "mean rank", "mean", "interval", "seeds"], body)]
        levels = sorted({place.mean.interval.level for place in ranking.rows if place.mean.interval})
        text = "The mean is over the blocks, ± the sample standard deviation over seeds."
        if levels:
            text += f" The interval ({', '.join(map(percent, levels))}) is a bootstrap over test images."
        bounds = [place.mean.bound for place in ranking.rows if place.mean.bound]
        if bounds:
            text += f" Some figures are {bound_note(max(bounds))}; ranks take them as they are."
        page += ["", escape(text)]
        page += ["", f"![{escape(METRICS[ranking.metric])}: mean ranks]({ranking.metric}.svg)"]
        page += ["", "## p of each pair, corrected by Holm", "", *_matrix(ranking)]
        told = [", ".join(ranking.rows[i].name for i in group) for group in ranking.groups]
        page += ["", "Not told apart:" if told else "All pairs are told apart."]
        page += bullets([escape(text) for text in told])
    page += _left_out(ranking)
    return "\n".join(page) + "\n"


def _figures(value: Value) -> list[str]:
    mean = figure(value.mean or 0.0)
    mean += f" ± {figure(value.deviation)}" if value.deviation is not None else ""
    ends = value.interval
    return [mean, f"{figure(ends.low)} to {figure(ends.high)}" if ends else "-", str(value.seeds)]


def _matrix(ranking: Ranking) -> list[str]:
    head = ["", *(str(i + 1) for i in range(len(ranking.rows)))]
    body = []
    for i, place in enumerate(ranking.rows):
        cells = [
            "" if i == j else p_text(ranking.corrected[min(i, j), max(i, j)])
            for j in range(len(ranking.rows))
        ]
        body.append([f"{i + 1}. {escape(place.name)}", *cells])
    return grid(head, body)


def p_text(p: float, sentence: bool = False) -> str:
    """`0.031`, `<0.001`; in a sentence after `p` `= 0.031`, `< 0.001`."""
    if p < 0.001:
        return "< 0.001" if sentence else "<0.001"
    return f"= {p:.3f}" if sentence else f"{p:.3f}"


def _sentences(ranking: Ranking, titles: Mapping[str, str]) -> list[str]:
    """What was compared and what the tests can say, for a page and for a caption."""
    if len(ranking.rows) < 2:
        return [
            f"Nothing to rank: no two methods have this metric in the same blocks under {ranking.protocol}."
        ]
    homes: dict[str, int] = {}
    for dataset, _ in ranking.blocks:
        homes[dataset] = homes.get(dataset, 0) + 1
    count, blocks = len(ranking.rows), len(ranking.blocks)
    where = ", ".join(f"{titles.get(name, name)} {n}" for name, n in homes.items())
    how = "chosen by name" if ranking.chosen else "the largest complete comparison among the records"
    lines = [
        f"{count} methods over {_count(blocks, 'block')} (categories of {where}), protocol"
        f" {ranking.protocol}; {how}."
    ]
    if any(place.row.variant for place in ranking.rows):
        lines.append("A row with a variant has not the settings of its method's YAML.")
    if ranking.tested:
        chi, p = ranking.tested
        lines.append(
            f"Friedman: chi squared {chi:.2f} with {count - 1} degrees of freedom, p {p_text(p, True)}."
        )
        if p >= ALPHA:
            lines.append("The methods do not differ in rank by it, so that no pair is told apart.")
    pairs, least = len(ranking.tests), smallest_p(blocks)
    lines.append(
        "Pairs: Wilcoxon's signed-rank test, two-sided, zero differences dropped; p corrected by Holm for"
        f" {_count(pairs, 'pair')}, told apart below {ALPHA}."
    )
    if least * pairs >= ALPHA:
        needed = next(n for n in itertools.count(blocks) if smallest_p(n) * pairs < ALPHA)
        lines.append(
            f"Too few blocks: the smallest p that {blocks} can give is {least:.3g},"
            f" {min(1.0, least * pairs):.3g} after correction; a pair can be told apart from {needed} on."
        )
    return lines


def _by_reason(ranking: Ranking) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in ranking.left_out.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _left_out(ranking: Ranking) -> list[str]:
    reasons = _by_reason(ranking)
    page: list[str] = []
    if reasons:
        page += ["", "## Rows left out"]
        page += bullets(
            [f"{escape(reason)}: {escape(some_of(names, _SHOWN))}" for reason, names in reasons.items()]
        )
    if ranking.blocks_left_out:
        page += ["", "## Blocks left out"]
        page += ["", "Not every compared row has them; the figure is how many rows do."]
        shown = [f"{dataset}/{category} {n}" for (dataset, category), n in ranking.blocks_left_out.items()]
        page += ["", escape(some_of(shown, 60))]
    return page


def _listed(blocks: Sequence[Block]) -> str:
    return some_of([f"{dataset}/{category}" for dataset, category in blocks])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Does our run reproduce the published figure? A verdict for each pair, and how often which was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ad_bench import reference
from ad_bench.reference import Published
from ad_bench.report.comparable import Reason, why_not
from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.latex import Row, Sheet, document, superscript
from ad_bench.report.latex import escape as tex
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.rows import Entry, Record, Value, best_on_test, mean_over, under
from ad_bench.report.tables import DIGITS, SPECS, STANDINGS, Line, Spec, Table, match_of, taxonomy_title
from ad_bench.report.text import Footnotes, figure, named

if TYPE_CHECKING:
    from ad_bench.report.board import Board

LIMITS = ((0.5, "reproduced within 0.5 points"), (1.0, "within 1"), (2.0, "within 2"))
OFF, NOT_COMPARABLE = "off", "not comparable"
WORDS = (*(word for _, word in LIMITS), OFF, NOT_COMPARABLE)
AVERAGE = "average"
_EXACT = 9  # decimals of a point: what floats lose below decides no tie


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ours against one published figure; figures are fractions, one point is 0.01.

    `ours` is None where the row has none of its own (an average over some categories is not one). `deviation`
    is that of `seeds` seeds, `low` and `high` the ends of the bootstrap interval, `bound` how far the exact
    figure may be. `best_on_test` is what the best test epoch gave. `why` says all that speaks against the
    comparison, or what to know of the verdict.
    """

    dataset: str
    metric: str
    taxonomy: str
    method: str
    title: str
    variant: str
    protocol: str
    category: str  # or "average", also of a data set of one category
    ours: float | None
    deviation: float | None
    seeds: int
    low: float | None
    high: float | None
    bound: float | None
    published: float
    difference: float | None
    standing: str  # survey | paper | suspect | other: <source>
    published_protocol: str
    weights: str
    mask_rule: str  # of pixel metrics: how maps and masks were brought to one size
    selection: str
    best_on_test: float | None
    tuned: str  # is the published figure tuned per category
    verdict: str
    why: str


@dataclass(frozen=True)
class _Facts:
    """What is the same in all verdicts of a row."""

    weights: str
    mask_rule: str
    selection: str
    chosen_on_test: bool  # the paper's figure is its best test epoch
    tested: str  # number of test epochs that were scored, blank for none


def verdicts(board: Board) -> list[Verdict]:
    """Every published figure that a row of ours can be set beside, in the order of the tables."""
    found: list[Verdict] = []
    for dataset, tables in board.tables.items():
        entries = {
            (entry.method, entry.variant, entry.protocol): entry
            for entry in (place.entry for place in board.places[dataset])
        }
        facts: dict[int, _Facts] = {}
        for table in tables:
            of_method: dict[str, dict[str, Published]] = {}
            for (method, protocol), row in reference.preferred(
                reference.published(dataset, table.spec.metric)
            ).items():
                of_method.setdefault(method, {})[protocol] = row
            for line in table.lines:
                rows = of_method.get(line.method)
                if line.kind != "ours" or not rows:
                    continue
                entry = entries[line.method, line.variant, line.protocol]
                known = facts.setdefault(id(entry), _facts(entry))
                match = match_of(entry.protocol, rows)
                found += (
                    _of_pair(table, line, entry, known, match)
                    if match
                    else _of_other_protocol(table, line, entry, known, rows)
                )
    return found


def _of_pair(table: Table, line: Line, entry: Entry, facts: _Facts, row: Published) -> list[Verdict]:
    """The categories that both have, then the average; of one category the average alone."""
    theirs = line.published
    if theirs is None:
        return []
    found = []
    single = len(table.categories) == 1
    for name in () if single else table.categories:
        ours, published = line.cells[name], theirs.cells[name].mean
        if ours.mean is not None and published is not None:
            found.append(_verdict(table, line, entry, facts, row, name, ours, published))
    average = theirs.cells[table.categories[0]].mean if single else theirs.average.mean
    if average is not None:
        found.append(_verdict(table, line, entry, facts, row, AVERAGE, line.average, average))
    return found


def _of_other_protocol(
    table: Table, line: Line, entry: Entry, facts: _Facts, rows: Mapping[str, Published]
) -> list[Verdict]:
    """One line for the average: the figure is published, but for another setting."""
    row = next((row for row in rows.values() if row.in_survey), next(iter(rows.values())))
    if row.average is None:
        return []
    return [_verdict(table, line, entry, facts, row, AVERAGE, line.average, row.average)]


def _verdict(
    table: Table,
    line: Line,
    entry: Entry,
    facts: _Facts,
    row: Published,
    category: str,
    ours: Value,
    published: float,
) -> Verdict:
    total = len(table.categories)
    against: tuple[Reason, ...] = line.against if line.published else why_not(entry, row, total)
    if category == AVERAGE and not line.complete:
        ours = Value()
        text = f"average over {line.covered} of {total} categories"
        against = (*against, Reason("not all categories", text))
    best = _best(table, entry, facts, category)
    # Figures of different settings are never subtracted (README of the published ones).
    difference = None if ours.mean is None or not row.comparable(line.protocol) else ours.mean - published
    word, why = (
        (NOT_COMPARABLE, "; ".join(reason.full for reason in against))
        if against or difference is None
        else _judged(difference, ours, published, best, facts, _other_averages(table, row, category))
    )
    interval = ours.interval
    return Verdict(
        dataset=table.dataset,
        metric=table.spec.metric,
        taxonomy=line.taxonomy,
        method=line.method,
        title=line.title,
        variant=line.variant,
        protocol=line.protocol,
        category=category,
        ours=ours.mean,
        deviation=ours.deviation,
        seeds=ours.seeds,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        bound=ours.bound,
        published=published,
        difference=difference,
        standing=row.standing,
        published_protocol=row.protocol,
        weights=facts.weights,
        mask_rule=facts.mask_rule if table.spec.section == "paper" else "",
        selection=facts.selection,
        best_on_test=best,
        tuned=_tuned(line.method, row),
        verdict=word,
        why=why,
    )


def _judged(
    difference: float,
    ours: Value,
    published: float,
    best: float | None,
    facts: _Facts,
    others: Sequence[float],
) -> tuple[str, str]:
    """The verdict of a comparable pair and what to know of it."""
    bound = ours.bound or 0.0
    word = within(difference, bound)
    side = "above" if difference > 0 else "below"
    if word is None:
        reach = f"the bound of ±{100 * bound:.2g} points leaves open whether it is within {LIMITS[-1][0]:g}"
        return NOT_COMPARABLE, reach
    notes = []
    if facts.chosen_on_test:
        notes.append("the paper's figure is its best test epoch, ours the last")
        if best is not None:
            notes[-1] += f" (the best of {facts.tested} tested: {best:.{DIGITS}f})"
        if word == OFF and difference < 0:
            if best is None:
                return NOT_COMPARABLE, notes[0]
            if within(best - published, bound) != OFF or best > published:
                return NOT_COMPARABLE, f"{notes[0]}: the choice of the epoch explains the gap"
    if word == OFF:
        if others and min(others) - 0.02 <= published + difference <= max(others) + 0.02:
            low, high = min(others), max(others)
            return NOT_COMPARABLE, f"published averages of this method differ: {low:.3f} to {high:.3f}"
        notes.insert(0, f"{100 * abs(difference):.1f} points {side}")
    if ours.deviation and within(abs(difference) + ours.deviation, bound) != within(
        max(0.0, abs(difference) - ours.deviation), bound
    ):
        notes.append(
            f"verdict of the mean over {ours.seeds} seeds, which spread by"
            f" ±{100 * ours.deviation:.1f} points: single ones may get another"
        )
    return word, "; ".join(notes)


def within(difference: float, bound: float = 0.0) -> str | None:
    """The closest limit that holds for every exact value within the bound; None where even `off` is open."""
    points, slack = 100 * abs(difference), 100 * bound
    for limit, word in LIMITS:
        if round(points + slack, _EXACT) <= limit:
            return word
    return OFF if round(points - slack, _EXACT) > LIMITS[-1][0] else None


def _other_averages(table: Table, row: Published, category: str) -> list[float]:
    """The averages that several sources give in Tables 9 and 10; none where one speaks for all."""
    if category != AVERAGE or not row.in_survey:
        return []
    found = [
        other.average
        for other in reference.published(table.dataset, table.spec.metric)
        if other.method == row.method and other.protocol == row.protocol and other.in_survey
    ]
    averages = [average for average in found if average is not None]
    return averages if len(averages) > 1 else []


def _best(table: Table, entry: Entry, facts: _Facts, category: str) -> float | None:
    """What the best test epoch gave, of one category or on average over all."""
    if not facts.tested:
        return None
    names = table.categories if category == AVERAGE else (category,)
    return mean_over(entry, names, best_on_test(table.spec.section, table.spec.metric)).mean


def _facts(entry: Entry) -> _Facts:
    records = entry.done()
    paper = [record["paper"] for record in records if isinstance(record.get("paper"), dict)]
    selections = {str(of_paper.get("selection") or "") for of_paper in paper}
    on_test = "best_test_epoch" in selections
    tested = sorted(
        {str(record["best_on_test"].get("tested")) for record in records if under(record, "best_on_test")}
    )
    words = {"best_test_epoch": "last (paper: best on test)", "last": "last"}
    return _Facts(
        weights="; ".join(dict.fromkeys(text for record in records for text in _weights(record))) or "none",
        mask_rule="; ".join(dict.fromkeys(_mask_rule(record) for record in records)),
        selection="; ".join(words.get(name, name or "not stated") for name in sorted(selections))
        or "not stated",
        chosen_on_test=on_test,
        tested=" or ".join(tested),
    )


def _weights(record: Record) -> list[str]:
    """`resnet18.tv_in1k (not the method's own)`."""
    found = []
    for weights in record.get("weights") or ():
        remarks = ["random"] if weights.get("source") == "random" else []
        remarks += ["not the method's own"] if weights.get("as_paper") is False else []
        found.append(str(weights.get("name")) + (f" ({', '.join(remarks)})" if remarks else ""))
    return found


def _mask_rule(record: Record) -> str:
    """`224 px, bilinear, int`; the size of the input where none is named."""
    rule = under(record, "paper_eval")
    if not rule:
        return "not stated"
    size = rule.get("size")
    shown = "x".join(map(str, size)) if isinstance(size, list) else str(size or "input's")
    return f"{shown} px, {rule.get('mask_interpolation')}, {rule.get('mask_rule')}"


def _tuned(method: str, row: Published) -> str:
    """`yes: input size`, `no` or `not stated`; known of the figures of the method's own authors alone."""
    known = reference.tuning().get(method)
    if known is None or row.standing.startswith("other"):
        return "not stated"
    return f"{known['tuned']}: {known['what']}" if known["what"] else known["tuned"]


def summary(found: Iterable[Verdict]) -> list[str]:
    """`12 averages: 3 reproduced within 0.5 points, ...`, and the same of categories where there are any."""
    lines = []
    found = list(found)
    for kind in (True, False):
        counts = Counter(v.verdict for v in found if (v.category == AVERAGE) is kind)
        total = counts.total()
        if total:
            what = ("average" if kind else "category figure") + ("s" if total > 1 else "")
            what = what.replace("category figures", "figures of categories")
            told = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
            lines.append(f"{total} {what}: {told}.")
    return lines


def files(folder: Path, title: str, found: Sequence[Verdict], total: int) -> dict[Path, str]:
    """`reproduction.{csv,tex,md}` of a data set of `total` categories; none without a published figure."""
    if not found:
        return {}
    return {
        folder / "reproduction.csv": reproduction_csv(found),
        folder / "reproduction.tex": reproduction_latex(title, found, total),
        folder / "reproduction.md": reproduction_markdown(title, found, total),
    }


def reproduction_csv(found: Sequence[Verdict]) -> str:
    """CSV text in full precision, one line for each verdict."""
    names = Verdict.__dataclass_fields__
    return to_csv(list(names), ([_text(getattr(v, name)) for name in names] for v in found))


def _text(value: str | float | int | None) -> str:
    return value if isinstance(value, str) else exact(value)


HEAD = (
    *("method", "category", "ours", "published", "difference", "verdict", "standing"),
    *("weights", "mask rule", "selection", "best on test", "tuned per category"),
)
_VERDICT = HEAD.index("verdict")
_FIGURES = [HEAD.index(name) for name in ("ours", "published", "difference", "best on test")]
LEGEND = (
    "Fractions, one point is 0.01. The verdict is that of the mean over seeds; a bounded figure (~) gets one"
    " only if it holds for every value within its bound. The bootstrap interval over test images does not"
    " enter: both figures are of the same images.",
    "Not comparable: the pair can neither confirm nor refute the published figure; the footnote says why.",
)


def shown(found: Sequence[Verdict]) -> list[Verdict]:
    """What pages print: averages, and the categories of rows that have no average of their own."""
    averages = {_pair(v): v.ours is not None for v in found if v.category == AVERAGE}
    in_parts = {_pair(v) for v in found if v.category != AVERAGE and not averages.get(_pair(v))}
    return [v for v in found if (v.category == AVERAGE) != (_pair(v) in in_parts)]


def _pair(v: Verdict) -> tuple[str, str, str, str]:
    return (v.metric, v.method, v.variant, v.protocol)


def reproduction_markdown(title: str, found: Sequence[Verdict], total: int) -> str:
    """A page with a table for each metric, of a data set of `total` categories; reasons are footnotes."""
    page = [f"# {escape(title)}: reproduction", "", *_spaced([escape(text) for text in _above(found, total)])]
    for spec in SPECS:
        notes = Footnotes()
        of_metric = shown([v for v in found if v.metric == spec.metric])
        columns = _columns(of_metric)
        body: list[list[str]] = []
        group = None
        for v in of_metric:
            if v.taxonomy != group:
                group = v.taxonomy
                body.append([f"**{escape(taxonomy_title(group))}**", *[""] * (len(columns) - 1)])
            cells = [escape(text) for text in _cells(v)]
            for i, remarks in _remarks(v).items():
                cells[i] += f"<sup>{notes.mark(remarks)}</sup>"
            body.append([cells[i] for i in columns])
        if body:
            text = [at for at, i in enumerate(columns) if i not in _FIGURES]
            page += ["", f"## {escape(spec.title)}", "", *grid([HEAD[i] for i in columns], body, text=text)]
            page += bullets([f"<sup>{x}</sup> {escape(text)}" for text, x in notes.letters.items()])
    return "\n".join(page) + "\n"


def reproduction_latex(title: str, found: Sequence[Verdict], total: int) -> str:
    """A file with a table for each metric."""
    sheets: list[Sheet] = []
    for spec in SPECS:
        of_metric = shown([v for v in found if v.metric == spec.metric])
        if of_metric:
            sheets.append(_sheet(title, spec, of_metric, _above(found, total) if not sheets else []))
    return document(sheets)


def _sheet(title: str, spec: Spec, found: Sequence[Verdict], above: Sequence[str]) -> Sheet:
    columns = _columns(found)

    def row(v: Verdict, notes: Footnotes) -> list[str]:
        cells = [tex(text) for text in _cells(v)]
        for i, remarks in _remarks(v).items():
            cells[i] += superscript(notes, remarks)
        return [cells[i] for i in columns]

    return Sheet(
        title=f"{title}: reproduction, {spec.title}",
        name=f"{found[0].dataset}-reproduction-{spec.metric}",
        align="".join("r" if i in _FIGURES else "l" for i in columns),
        head=[tex(HEAD[i]) for i in columns],
        rows=[
            Row(
                partial(row, v),
                [text for texts in _remarks(v).values() for text in texts],
                taxonomy_title(v.taxonomy),
                v.method,
                v.category == AVERAGE,
            )
            for v in found
        ],
        below=lambda part: [tex(text) for text in above] if part.start == 0 else [],
    )


def _columns(found: Sequence[Verdict]) -> list[int]:
    """The columns of HEAD that say anything of these verdicts."""
    rows = [_cells(v) for v in found]
    return [i for i in range(len(HEAD)) if i <= _VERDICT or any(row[i] != "-" for row in rows)]


def _above(found: Sequence[Verdict], total: int) -> list[str]:
    """The counts, and how to read the verdicts."""
    texts = [" ".join(summary(found)), *LEGEND]
    if total > 1:
        texts.append(
            "Shown are averages, and the categories of rows without one; reproduction.csv has every category."
        )
    standings = dict.fromkeys(v.standing.partition(":")[0] for v in found)
    meaning = "; ".join(f"{name}: {STANDINGS[name]}" for name in STANDINGS if name in standings)
    return [*texts, f"Standing of the published value, {meaning}."]


def _spaced(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in (text, "")][:-1]


def _remarks(v: Verdict) -> dict[int, list[str]]:
    """The footnotes by column."""
    source, tuned = v.standing.partition(": ")[2], v.tuned.partition(": ")[2]
    notes = {
        HEAD.index("method"): named(v.title, v.variant, v.protocol)[1],
        _VERDICT: [v.why] if v.why else [],
        HEAD.index("standing"): [f"published: {source}"] if source else [],
        HEAD.index("tuned per category"): [f"the published figures were tuned: {tuned}"] if tuned else [],
    }
    return {i: remarks for i, remarks in notes.items() if remarks}


def _cells(v: Verdict) -> list[str]:
    """One printed line, in the order of HEAD."""
    ours = "-" if v.ours is None else figure(v.ours) + ("~" if v.bound else "")
    if v.deviation is not None:
        ours += f" ± {figure(v.deviation)} ({v.seeds} seeds)"
    return [
        named(v.title, v.variant, v.protocol)[0],
        v.category,
        ours,
        figure(v.published),
        "-" if v.difference is None else figure(v.difference, "difference"),
        v.verdict,
        v.standing.partition(":")[0],
        v.weights,
        v.mask_rule or "-",
        v.selection,
        "-" if v.best_on_test is None else figure(v.best_on_test),
        v.tuned.partition(":")[0],
    ]

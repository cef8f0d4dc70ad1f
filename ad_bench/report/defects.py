"""tables/<dataset>/by_defect: what each method reaches on one kind of defect, where records say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.leaderboard import Place, in_brackets, metric_rank, name_of
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.page import metric_title
from ad_bench.report.rows import MISSING, Read, Record, Value, mean_over, number, under
from ad_bench.report.tables import DIGITS
from ad_bench.report.text import NOT_EXACT, Footnotes, figure

# MVTec LOCO is measured on each half of its defects with all normal images, and by the mean of the halves.
LOCO = ("logical_anomalies", "structural_anomalies")
AVERAGE = "average"  # in the CSV's column `category`
_SHOWN = (("image", ("image_auroc",)), ("full", ("pixel_auroc", "pixel_aupro", "pixel_spro")))


@dataclass(frozen=True)
class Line:
    """One metric of one row of the leaderboard by group of defects, in a category or over all (`average`)."""

    place: Place
    category: str
    metric: str
    cells: Mapping[str, Value]
    mean: Value  # of LOCO's two halves


@dataclass(frozen=True)
class ByDefect:
    """The tables of a data set. `shared`: every category has the same groups, so that they have averages."""

    title: str
    groups: Mapping[str, tuple[str, ...]]  # category -> its groups
    shared: bool
    lines: tuple[Line, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All groups, by name."""
        return tuple(sorted({name for names in self.groups.values() for name in names}))

    @property
    def halves(self) -> bool:
        """True where the two halves of MVTec LOCO have a mean."""
        return set(LOCO) <= set(self.columns)


def by_defect(title: str, places: Sequence[Place], categories: Sequence[str]) -> ByDefect | None:
    """What the records of one data set say by defect, in the leaderboard's order; None where nothing."""
    records = [record for place in places for record in place.entry.done()]
    groups = {
        name: tuple(sorted({g for r in records if r["category"] == name for g in _groups(r)}))
        for name in categories
    }
    groups = {name: found for name, found in groups.items() if found}
    if not groups:
        return None
    shared = len(set(groups.values())) == 1
    lines = []
    for place in places:
        own = place.entry.done()
        covered = [name for name in categories if any(r["category"] == name for r in own)]
        scopes = [(AVERAGE, covered)] if shared else []
        for category, names in [*scopes, *((name, [name]) for name in covered if name in groups)]:
            of_scope = groups[names[0]] if category != AVERAGE else next(iter(groups.values()))
            for metric in _metrics(own):
                cells = {g: mean_over(place.entry, names, _read(metric, g)) for g in of_scope}
                if any(cell.mean is not None for cell in cells.values()):
                    half = _read(metric, *LOCO)
                    mean = mean_over(place.entry, names, half) if set(LOCO) <= set(of_scope) else MISSING
                    lines.append(Line(place, category, metric, cells, mean))
    return ByDefect(title, groups, shared, tuple(lines))


def _groups(record: Record) -> set[str]:
    """The groups of defects of a record; `mean`, that LOCO's records may hold beside its halves, is none."""
    found = set(under(record, "by_defect"))
    return found - {"mean"} if found.issuperset(LOCO) else found


def _metrics(records: Sequence[Record]) -> list[str]:
    """`image.image_auroc`, `full.pixel_aupro@0.05`, ... : those to show, whatever their limit."""
    found = {
        f"{section}.{name}"
        for record in records
        for group in _groups(record)
        for section, shown in _SHOWN
        for name in under(record, "by_defect", group, section)
        if name.partition("@")[0] in shown
    }
    return sorted(found, key=metric_rank)


def _read(metric: str, *groups: str) -> Read:
    """The mean of one metric over groups; None where one lacks it."""
    section, _, name = metric.partition(".")

    def read(record: Record) -> float | None:
        values = [number(under(record, "by_defect", group, section).get(name)) for group in groups]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else None

    return read


def by_defect_csv(found: ByDefect) -> str:
    """CSV text in full precision: rows `ours` and, over seeds, `deviation`; a column for each group."""
    head = ["taxonomy", "method", "title", "variant", "protocol", "row", "seeds", "complete"]
    head += ["category", "metric", *found.columns, *(["mean"] if found.halves else [])]
    rows = []
    for line in found.lines:
        entry = line.place.entry
        values = [line.cells.get(name, MISSING) for name in found.columns]
        values += [line.mean] if found.halves else []
        seeds = max(value.seeds for value in values)
        whole = "true" if line.place.complete or line.category != AVERAGE else "false"
        figures = {"ours": [v.mean for v in values], "deviation": [v.deviation for v in values]}
        rows += [
            [line.place.taxonomy, entry.method, entry.title, entry.variant, entry.protocol]
            + [kind, exact(seeds), whole, line.category, line.metric, *map(exact, numbers)]
            for kind, numbers in figures.items()
            if any(number is not None for number in numbers)
        ]
    return to_csv(head, rows)


def by_defect_markdown(found: ByDefect) -> str:
    """A page with one table, or one for each category where these have defects of their own."""
    notes = Footnotes()
    page = [f"# {escape(found.title)}: by defect", ""]
    page.append(
        "A group is its own anomalous images and all normal ones; pixel metrics on the original masks."
        f" Fractions, rounded to {DIGITS} decimals, means over seeds (± sample standard deviation);"
        " - is missing."
    )
    if found.shared and len(found.groups) > 1:
        page[-1] += (
            f" Means over {len(found.groups)} categories, in brackets where a row misses one of the data set;"
            " `by_defect.csv` has each."
        )
    for category in [AVERAGE] if found.shared else found.groups:
        lines = [line for line in found.lines if line.category == category]
        columns = next(iter(found.groups.values())) if found.shared else found.groups[category]
        halves = set(LOCO) <= set(columns)
        head = ["method", "metric", "seeds", *map(escape, columns), *(["mean of the two"] if halves else [])]
        body = []
        for line in lines:
            values = [line.cells[name] for name in columns] + ([line.mean] if halves else [])
            seeds = str(max(value.seeds for value in values))
            body.append([_name(line, notes), _metric(line, notes), seeds, *(_text(line, v) for v in values)])
        page += [] if found.shared else ["", f"## {escape(category)}"]
        page += ["", *grid(head, body, left=2)]
    page += bullets([f"<sup>{letter}</sup> {escape(text)}" for text, letter in notes.letters.items()])
    return "\n".join(page) + "\n"


def _name(line: Line, notes: Footnotes) -> str:
    letters = notes.mark(line.place.notes)
    return escape(name_of(line.place)) + (f"<sup>{letters}</sup>" if letters else "")


def _metric(line: Line, notes: Footnotes) -> str:
    """Its name, marked where the row's records hold it with a bound: that of a group is not known."""
    bounded = (line.place.metrics.get(line.metric) or MISSING).bound
    return metric_title(line.metric) + (f"<sup>{notes.mark([NOT_EXACT])}</sup>" if bounded else "")


def _text(line: Line, value: Value) -> str:
    if value.mean is None:
        return "-"
    text = figure(value.mean) + ("" if value.deviation is None else f" ± {figure(value.deviation)}")
    return in_brackets(line.place, text) if line.category == AVERAGE else text

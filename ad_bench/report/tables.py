"""The survey's tables for any data set: our rows, the published row of each method, and the difference."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ad_bench import reference
from ad_bench.reference import Published
from ad_bench.report.comparable import Reason, listed, settings_note, why_not
from ad_bench.report.rows import (
    MISSING,
    Entry,
    Value,
    best_on_test,
    mean_over,
    origin_of,
    percent,
    shorten,
    sub_means,
    summarise,
    under,
)

DIGITS = 3  # of every printed figure; CSV files hold all
BEST, SECOND = 1, 2
Kind = Literal["ours", "published", "difference"]

FIDELITY = {
    "paper": "built from the paper's text, no reference code",
    "reinterpretation": "reinterpretation: the paper leaves essential parts open",
}
STANDINGS = {
    "survey": "as printed in the survey",
    "paper": "from the paper or a source that quotes it",
    "suspect": "not confirmed or contradictory, no target to aim at",
    "other": "from another benchmark, repository or paper",
}


@dataclass(frozen=True)
class Spec:
    """One of the four tables: where its metric stands in a record."""

    name: str
    section: str
    metric: str
    title: str


SPECS = (
    Spec("table9_image_auroc", "image", "image_auroc", "image AUROC"),
    Spec("table9_image_aupr", "image", "image_aupr", "image AUPR"),
    Spec("table10_pixel_auroc", "paper", "pixel_auroc", "pixel AUROC"),
    Spec("table10_pixel_aupr", "paper", "pixel_aupr", "pixel AUPR"),
)


@dataclass
class Line:
    """One row of a table. `remarks` become footnotes; `note` is for the CSV alone."""

    taxonomy: str
    method: str
    title: str
    variant: str
    protocol: str
    kind: Kind
    standing: str
    seeds: int | None
    complete: bool
    cells: Mapping[str, Value]
    average: Value
    covered: int
    remarks: tuple[str, ...] = ()
    note: str = ""
    rank: dict[str, int] = field(default_factory=dict)  # column ("" is the average) -> BEST or SECOND
    alone: bool = False  # a published row of a method that has no run here
    published: Line | None = None  # what our row is compared with
    against: tuple[Reason, ...] = ()  # why that comparison confirms and refutes nothing
    groups: Mapping[str, Value] = field(default_factory=dict)  # texture, object -> mean over its categories


@dataclass(frozen=True)
class Table:
    """A table ready to print; `lines` in the survey's order, `remarks` about the whole."""

    spec: Spec
    dataset: str
    dataset_title: str
    categories: tuple[str, ...]
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]
    groups: tuple[str, ...] = ()  # the names in `groups` of the lines


def taxonomy_title(ident: str) -> str:
    """The name in print of a row of the taxonomy; ids of a user's own become words."""
    return reference.TAXONOMIES.get(ident) or ident.replace("_", " ").capitalize() or "Other"


def taxonomy_of(method: str, entry: Entry | None = None) -> str:
    """Where a method stands: as in methods.csv, else as its records say."""
    known = reference.methods().get(method)
    if known:
        return known["taxonomy"]
    return str(entry.newest.get("taxonomy") or "") if entry else ""


def taxonomy_rank(ident: str) -> tuple[int, str]:
    """The survey's order; unknown ones before the baselines, which close every table."""
    known = list(reference.TAXONOMIES)
    if ident == "baseline":
        return (len(known) + 1, "")
    return (known.index(ident), "") if ident in known else (len(known), ident)


def build(
    spec: Spec,
    dataset: str,
    title: str,
    rows: Sequence[Entry],
    categories: Sequence[str],
    remarks: Iterable[str] = (),
    groups: Mapping[str, Collection[str]] | None = None,
) -> Table:
    """The table of one metric of one data set. On MVTec AD the survey's methods without a run stay in it.

    `groups` (texture, object) get a mean each beside the average, where a row has all their categories.
    """
    published = reference.published(dataset, spec.metric)
    chosen = reference.preferred(published)
    ours: dict[str, list[Entry]] = {}
    for entry in rows:
        ours.setdefault(entry.method, []).append(entry)
    survey = dict.fromkeys(row.method for row in published if row.in_survey)
    lines: list[Line] = []
    for method in {**survey, **dict.fromkeys(ours)}:
        of_method = {protocol: row for (name, protocol), row in chosen.items() if name == method}
        lines += _block(spec, ours.get(method, []), of_method, published, categories, groups or {})
    order = _method_order(spec)
    lines.sort(
        key=lambda line: (taxonomy_rank(line.taxonomy), order.get(line.method, len(order)), line.method)
    )
    _rank(lines, categories)
    return Table(spec, dataset, title, tuple(categories), tuple(lines), tuple(remarks), tuple(groups or ()))


def _block(
    spec: Spec,
    ours: Sequence[Entry],
    of_method: Mapping[str, Published],
    published: Sequence[Published],
    categories: Sequence[str],
    groups: Mapping[str, Collection[str]],
) -> list[Line]:
    """The rows of one method; a published row stands once, below the first of ours that it belongs to."""
    lines: list[Line] = []
    shown: set[str] = set()
    in_survey = [row for row in of_method.values() if row.in_survey]
    taxonomy = in_survey[0].taxonomy if in_survey else taxonomy_of(ours[0].method, ours[0])
    for entry in ours:
        line = _our_line(entry, spec, taxonomy, categories, groups)
        lines.append(line)
        match = match_of(entry.protocol, of_method)
        if match is None:
            if of_method:
                settings = ", ".join(sorted(of_method))
                line.note = _join(line.note, f"no published row under this protocol (published: {settings})")
            continue
        theirs = line.published = _published_line(match, published, taxonomy, categories, groups)
        line.against = why_not(entry, match, len(categories))
        if match.protocol not in shown:
            shown.add(match.protocol)
            lines.append(theirs)
        lines.append(_difference(line, theirs))
    for row in in_survey:
        if row.protocol not in shown:
            line = _published_line(row, published, taxonomy, categories, groups)
            line.note = _join("not run here", line.note)
            line.alone = True
            lines.append(line)
    return lines


def match_of(protocol: str, of_method: Mapping[str, Published]) -> Published | None:
    """The published row of the same setting, the most special one first."""
    fitting = [row for row in of_method.values() if row.comparable(protocol)]
    return max(fitting, key=lambda row: (row.in_survey, len(row.protocol)), default=None)


def _our_line(
    entry: Entry,
    spec: Spec,
    taxonomy: str,
    categories: Sequence[str],
    groups: Mapping[str, Collection[str]],
) -> Line:
    summary = summarise(entry, categories, spec.section, spec.metric)
    remarks = remarks_of(entry) + _chosen_on_test(entry, spec, categories) + list(summary.reasons)
    note = list(remarks)
    if not summary.complete and summary.covered:
        note.insert(0, f"average over {summary.covered} of {len(categories)} categories")
    return Line(
        taxonomy=taxonomy,
        method=entry.method,
        title=entry.title,
        variant=entry.variant,
        protocol=entry.protocol,
        kind="ours",
        standing="",
        seeds=summary.seeds,
        complete=summary.complete,
        cells=summary.cells,
        average=summary.average,
        covered=summary.covered,
        remarks=tuple(remarks),
        note="; ".join(note),
        groups=sub_means(entry, categories, groups, spec.section, spec.metric),
    )


def _chosen_on_test(entry: Entry, spec: Spec, categories: Sequence[str]) -> list[str]:
    """What choosing the epoch by the test images would have given, which some papers print."""
    counts = {r["best_on_test"]["tested"] for r in entry.done() if under(r, "best_on_test")}
    if not counts:
        return []
    held = {record["category"] for record in entry.done()}
    covered = [name for name in categories if name in held]
    best = mean_over(entry, covered, best_on_test(spec.section, spec.metric)).mean
    if best is None:
        return []
    epochs = " or ".join(map(str, sorted(counts)))
    return [f"the best of {epochs} test epochs: {best:.{DIGITS}f}; it is not ranked"]


def remarks_of(entry: Entry) -> list[str]:
    """What a reader must know of our row: fidelity, selection, source, and the marks of its records."""
    newest, remarks = entry.newest, []
    if newest.get("fidelity") in FIDELITY:
        remarks.append(FIDELITY[newest["fidelity"]])
    if (newest.get("paper") or {}).get("selection") == "best_test_epoch":
        remarks.append("the paper reports its best test epoch, ours is the last")
    concerned: dict[str, set[str]] = {}
    held = {r["category"] for r in entry.records}
    for record in entry.records:
        origin = f"record of another lab: {origin_of(record)}" if origin_of(record) else None
        for mark in (origin, settings_note(record), *(record.get("marks") or ())):
            if mark is not None:
                concerned.setdefault(str(mark), set()).add(record["category"])
    for mark, names in concerned.items():
        remarks.append(mark if names == held else f"{mark} [{', '.join(sorted(names))}]")
    return list(dict.fromkeys(remarks))


def _published_line(
    row: Published,
    published: Sequence[Published],
    taxonomy: str,
    categories: Sequence[str],
    groups: Mapping[str, Collection[str]],
) -> Line:
    values = {name: row.values[name] for name in categories if name in row.values}
    if len(categories) == 1 and row.average is not None:
        values.setdefault(categories[0], row.average)  # one category: its value is the average
    remarks = []
    if row.standing.startswith("other: "):
        remarks.append(f"published elsewhere: {row.note}")
    elif not row.in_survey:
        remarks.append(f"suspect: {row.note}")
    if row.variant:
        rest = [
            f"{other.average} ({other.variant})"
            for other in published
            if other.method == row.method and other.variant != row.variant and other.in_survey
        ]
        others = f"; other published averages: {', '.join(rest)}" if rest else ""
        remarks.append(f"published: {row.variant}{others}")
    return Line(
        taxonomy=taxonomy,
        method=row.method,
        title=row.title,
        variant="",
        protocol=row.protocol,
        kind="published",
        standing=row.standing,
        seeds=None,
        complete=len(values) == len(categories),
        cells={name: _known(values.get(name)) for name in categories},
        average=_known(row.average),
        covered=len(values),
        remarks=tuple(remarks),
        note=_join(*remarks, row.note if row.in_survey else ""),
        groups={
            group: _known(math.fsum(values[name] for name in names) / len(names))
            for group, names in groups.items()
            if values.keys() >= set(names)
        },
    )


def _known(value: float | None) -> Value:
    return MISSING if value is None else Value(value, state="value")


def _difference(ours: Line, theirs: Line) -> Line:
    """Ours minus published; of the averages only where ours has all categories."""
    average = _minus(ours.average, theirs.average) if ours.complete else MISSING
    short, full = ("; ".join(getattr(r, kind) for r in ours.against) for kind in ("short", "full"))
    return replace(
        ours,
        kind="difference",
        standing=theirs.standing,
        complete=ours.complete and theirs.complete,
        cells={name: _minus(cell, theirs.cells[name]) for name, cell in ours.cells.items()},
        average=average,
        remarks=(f"not comparable: {short}",) if short else (),
        note=f"not comparable: {full}" if full else "",
        rank={},
        published=None,
        groups={
            group: _minus(ours.groups.get(group, MISSING), value) for group, value in theirs.groups.items()
        },
    )


def _minus(a: Value, b: Value) -> Value:
    """The difference is as exact as ours, its interval and deviation are not shown."""
    return (
        MISSING if a.mean is None or b.mean is None else Value(a.mean - b.mean, state="value", bound=a.bound)
    )


def _rank(lines: Sequence[Line], categories: Sequence[str]) -> None:
    """Mark best and second of each column among our complete rows of one protocol.

    Compared as printed, so that equal figures are marked alike; one row alone has no rival and no mark. Where
    a figure is bounded, a row is marked only if no exact value within the bounds would take its place away.
    """
    for protocol in {line.protocol for line in lines}:
        rivals = [ln for ln in lines if ln.kind == "ours" and ln.complete and ln.protocol == protocol]
        if len(rivals) < 2:
            continue
        for column in ("", *categories):
            ends = [_printed_ends(line.cells[column] if column else line.average) for line in rivals]
            for line, place in zip(rivals, _places(ends), strict=True):
                if place is not None:
                    line.rank[column] = place


def _printed_ends(value: Value) -> tuple[float, float]:
    """The lowest and the highest figure that the exact value may print as."""
    mean, bound = value.mean or 0.0, value.bound or 0.0
    return round(max(0.0, mean - bound), DIGITS), round(min(1.0, mean + bound), DIGITS)


def _places(ends: Sequence[tuple[float, float]]) -> list[int | None]:
    """BEST or SECOND of each where that holds whatever the exact values within their ends are, else None."""
    highs = sorted(high for _, high in ends)
    first, second = sorted(ends, key=lambda end: end[1], reverse=True)[:2]
    top = first[1]
    alike = sum(end == (top, top) for end in ends)  # exact and best, one figure however many hold it
    places: list[int | None] = []
    for low, high in ends:
        above = len(highs) - bisect_right(highs, low) - (high > low)  # the others that may be better
        other = second if (low, high) == first else first
        if not above:
            places.append(BEST)
        elif above == 1:
            places.append(SECOND if other[0] > high else None)
        else:
            places.append(SECOND if above == alike and top > high else None)
    return places


def _method_order(spec: Spec) -> dict[str, int]:
    """Methods as the survey lists them: in this table, then in its others, then in methods.csv."""
    metrics = ("image_auroc", "pixel_auroc") if spec.section == "image" else ("pixel_auroc", "image_auroc")
    names = [row.method for m in metrics for row in reference.published("mvtec", m) if row.in_survey]
    return {name: i for i, name in enumerate(dict.fromkeys([*names, *reference.methods()]))}


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def label(line: Line) -> str:
    """What a row is, in print: `ours (3 seeds)`, `published (survey)`, `difference`."""
    if line.kind == "ours":
        return f"ours ({line.seeds} seeds)" if (line.seeds or 0) > 1 else "ours"
    if line.kind == "published":
        return f"published ({line.standing.partition(':')[0]})"
    return "difference"


def name_and_setting(line: Line, limit: int = 40) -> tuple[str, str, list[str]]:
    """Title, the variant and protocol worth showing, and a footnote where the variant is too long to show."""
    if line.kind == "difference" or (line.kind == "published" and not line.alone):
        return "", "", []
    parts, remarks = [], []
    if line.variant:
        short = shorten(line.variant, limit)
        parts.append(short)
        if short != line.variant:
            remarks.append(f"variant: {line.variant}")
    if line.kind == "ours" and line.protocol != "full":
        parts.append(line.protocol)
    return line.title, ", ".join(parts), remarks


def partial(lines: Iterable[Line], total: int) -> list[str]:
    """`PatchCore 1 of 15` of our rows whose average misses categories; of many alike the rest is counted."""
    found: dict[int, list[str]] = {}
    for line in lines:
        if line.kind == "ours" and not line.complete and line.covered:
            found.setdefault(line.covered, []).append(_whole_name(line))
    return [f"{listed(names, each=80)} {covered} of {total}" for covered, names in sorted(found.items())]


def _whole_name(line: Line) -> str:
    title, setting, _ = name_and_setting(line)
    return f"{title} ({setting})" if setting else title


def intervals(lines: Iterable[Line], single: bool) -> list[str]:
    """The bootstrap intervals of our averages in whole sentences, one for each level; empty without any.

    They stand below the table, not in it: its columns are the survey's.
    """
    by_level: dict[float, list[str]] = {}
    several = False
    for line in lines:
        value = next(iter(line.cells.values())) if single else line.average
        if line.kind == "ours" and value.interval:
            ends = f"{value.interval.low:.{DIGITS}f} to {value.interval.high:.{DIGITS}f}"
            by_level.setdefault(value.interval.level, []).append(f"{_whole_name(line)} {ends}")
            several |= value.seeds > 1
    what = "" if single else " of the average"
    texts = [
        f"Bootstrap over test images, {percent(level)} interval{what}: {listed(found, each=100, sign='; ')}."
        for level, found in sorted(by_level.items())
    ]
    if several:
        texts[-1] += " Seeds share the test images: more of them do not narrow it."
    return texts


def largest_bound(lines: Iterable[Line]) -> float | None:
    """The largest bound of any figure that the table prints; None where all are exact."""
    bounds = [v.bound for line in lines for v in (*line.cells.values(), line.average) if v.bound]
    return max(bounds, default=None)


def legend(table: Table, groups: bool = True) -> list[str]:
    """How to read the table, with or without its columns for groups, in whole sentences without markup."""
    count = len(table.categories)
    lines = [f"Fractions, rounded to {DIGITS} decimals; - is missing."]
    if count > 1:
        lines[0] += f" The average is over {count} categories within a seed, then over seeds"
        lines[0] += " (mean ± sample standard deviation)."
    if table.spec.section == "paper":
        lines.append("Maps and masks at the size of each method's paper (paper_eval of its YAML).")
    if any(line.rank for line in table.lines):
        text = "Best in bold, second underlined: as printed, among our complete rows of one protocol"
        sure = " and certain within the bounds" if largest_bound(table.lines) else ""
        lines.append(f"{text}{sure}.")
    shown = dict.fromkeys(line.standing.partition(":")[0] for line in table.lines if line.kind == "published")
    if shown:
        meaning = "; ".join(f"{name}: {STANDINGS[name]}" for name in STANDINGS if name in shown)
        lines.append(f"Difference is ours minus published. Published values, {meaning}.")
    if groups and table.groups:
        lines.append(
            f"{' and '.join(table.groups).capitalize()}: means over these categories alone, not ranked."
        )
    if any(line.alone for line in table.lines):
        lines.append("A published row with a name and none of ours above it: not run here.")
    return lines

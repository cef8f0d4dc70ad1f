"""Records -> rows of a table: categories are averaged within a seed first, then seeds. Computes no metric."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

Record = Mapping[str, Any]
Read = Callable[[Record], float | None]  # takes one figure from a record, None where it has none
State = Literal["value", "missing", "undefined", "failed", "skipped"]

_MOST = sys.float_info.max  # NaN is not within, nor are the integers that no float can hold


class Interval(NamedTuple):
    """Where a bootstrap over test images puts a figure with probability `level`; `error`: standard error."""

    low: float
    high: float
    error: float
    level: float


class Value(NamedTuple):
    """One cell of a table: a mean over `seeds` seeds, or why there is none."""

    mean: float | None = None
    deviation: float | None = None  # sample standard deviation (n - 1) over seeds; None with fewer than two
    seeds: int = 0
    state: State = "missing"
    interval: Interval | None = None  # of the test set; the seeds' spread is `deviation`
    bound: float | None = None  # the exact value is within mean ± bound; None: mean is exact


MISSING = Value()


@dataclass(frozen=True)
class Summary:
    """One metric of an entry over the categories of its data set.

    `complete` where at least one seed has all categories; then only such seeds count. Otherwise `average`
    is over the `covered` categories alone and must be shown as such. `reasons` says what is missing and why.
    """

    cells: Mapping[str, Value]
    average: Value
    complete: bool
    covered: int
    seeds: int
    reasons: tuple[str, ...] = ()


Figures = dict[str, dict[int, dict[str, Value]]]  # metric -> seed -> category


@dataclass
class Entry:
    """One method, variant and protocol on a data set: the records of a row, by seed and category.

    `cells` is whole before anything is asked: what is read from it is read once for all tables.
    """

    dataset: str
    method: str
    variant: str
    protocol: str
    cells: dict[int, dict[str, Record]] = field(default_factory=dict)
    _figures: dict[str, Figures] = field(default_factory=dict, repr=False, compare=False)
    _summaries: dict[tuple[Any, ...], Summary] = field(default_factory=dict, repr=False, compare=False)

    def figures(self, section: str, metric: str) -> Mapping[int, Mapping[str, Value]]:
        """What each finished record holds of a metric, by seed and category."""
        if section not in self._figures:
            self._figures[section] = _figures(self.cells, section)
        return self._figures[section].get(metric, {})

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Method, then the plain one before its variants and the full protocol before others."""
        return (self.method, self.protocol if self.protocol != "full" else "", self.variant, self.dataset)

    @cached_property
    def records(self) -> list[Record]:
        """Every record, by seed and category."""
        return [cells[name] for _, cells in sorted(self.cells.items()) for name in sorted(cells)]

    @cached_property
    def metrics(self) -> frozenset[str]:
        """`image.image_auroc`, ...: those that a finished record has."""
        return frozenset(names_below(self.done(), "metrics"))

    @cached_property
    def newest(self) -> Record:
        """The record that speaks for the row: its title, taxonomy and fidelity."""
        return max(self.records, key=lambda r: (str(r.get("date") or ""), -int(r["seed"]), r["category"]))

    @property
    def title(self) -> str:
        """The method's name in print."""
        return str(self.newest.get("title") or self.method)

    def done(self) -> list[Record]:
        """The records that hold metrics."""
        return [record for record in self.records if record["status"] == "done"]


def newest_only(records: Iterable[Record]) -> list[Record]:
    """One record for each cell: the newest by date, the last in path order among equals. In a fixed order.

    Of a cell that several labs sent, one for each lab.
    """
    chosen: dict[tuple[Any, ...], Record] = {}
    for record in records:
        key = (*cell_key(record), origin_of(record))
        if key not in chosen or str(record.get("date") or "") >= str(chosen[key].get("date") or ""):
            chosen[key] = record
    return [chosen[key] for key in sorted(chosen)]


def cell_key(record: Record) -> tuple[str, str, str, str, str, int]:
    """What a record is a record of."""
    return (
        str(record["dataset"]),
        str(record["method"]),
        str(record.get("variant") or ""),
        str(record["protocol"]),
        str(record["category"]),
        int(record["seed"]),
    )


def origin_of(record: Record) -> str:
    """The lab that a record was imported from; blank for one of this results folder."""
    return str(record.get("origin") or "")


def entries(records: Iterable[Record], categories: Collection[str]) -> list[Entry]:
    """The rows that records of one data set make; a category that the data set does not have is left out.

    Records of several labs make one row as long as no cell has two of them; else each lab has its own.
    """
    rows: dict[tuple[str, str, str, str], list[tuple[str, int, Record]]] = {}
    wanted = set(categories)
    for record in records:
        *row, category, seed = cell_key(record)
        if category in wanted:
            rows.setdefault(tuple(row), []).append((category, seed, record))  # type: ignore[arg-type]
    found: dict[tuple[str, str, str], Entry] = {}
    for (dataset, method, variant, protocol), cells in rows.items():
        contested = len({cell[:2] for cell in cells}) < len(cells)
        for category, seed, record in cells:
            origin = origin_of(record) if contested else ""
            name = ",".join(text for text in (variant, f"origin={origin}" * bool(origin)) if text)
            entry = found.setdefault((method, name, protocol), Entry(dataset, method, name, protocol))
            entry.cells.setdefault(seed, {})[category] = record
    return sorted(found.values(), key=lambda entry: [_natural(part) for part in entry.key])


def _natural(text: str) -> list[tuple[int, float, str]]:
    """A key by which few_shot-2 stands before few_shot-16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(1, float(part), "") if i % 2 else (0, 0.0, part) for i, part in enumerate(parts)]


def _figures(records: Mapping[int, Mapping[str, Record]], section: str) -> Figures:
    found: Figures = {}
    for seed, cells in records.items():
        for category, record in cells.items():
            if record["status"] != "done":
                continue
            intervals, bounds = under(record, "intervals", section), under(record, "bounds", section)
            level = number(under(record, "bootstrap").get("level"))
            for metric, stored in under(record, "metrics", section).items():
                value = number(stored)
                if value is not None:
                    interval = _interval(intervals.get(metric), level)
                    bound = number(bounds.get(metric)) or None
                    of_metric = found.setdefault(metric, {}).setdefault(seed, {})
                    of_metric[category] = Value(value, None, 1, "value", interval, bound)
    return found


def metric_of(record: Record, section: str, metric: str) -> float | None:
    """A stored metric, None where it is not defined or not there."""
    return number(under(record, "metrics", section).get(metric))


def _interval(stored: Any, level: float | None) -> Interval | None:
    if not isinstance(stored, dict):
        return None
    low, high, error = number(stored.get("low")), number(stored.get("high")), number(stored.get("se"))
    if low is None or high is None or error is None or level is None or not 0 < level < 1:
        return None
    return Interval(low, high, error, level)


def number(value: Any) -> float | None:
    """A finite number of a record, else None: JSON has null where a figure is not defined."""
    kind = type(value)
    if (kind is float or kind is int) and -_MOST <= value <= _MOST:
        return float(value)
    return None


def under(record: Record, *keys: str) -> Mapping[str, Any]:
    """The mapping below `keys`; empty where a record, as an older one does, lacks it."""
    found: Any = record
    for key in keys:
        found = found.get(key)
        if not isinstance(found, dict):  # what JSON has; asking for a Mapping takes several times as long
            return {}
    return found


def names_below(records: Iterable[Record], *keys: str) -> set[str]:
    """`section.name` of all that stands two levels below `keys`."""
    held: dict[str, set[str]] = {}
    for record in records:
        for section, named in under(record, *keys).items():
            if isinstance(named, dict):
                held.setdefault(section, set()).update(named)
    return {f"{section}.{name}" for section, names in held.items() for name in names}


def best_on_test(section: str, metric: str) -> Read:
    """Reads what the best test epoch gave, from records of methods whose paper reports that."""
    return lambda record: number(under(record, "best_on_test", "metrics", section, metric).get("value"))


def summarise(entry: Entry, categories: Sequence[str], section: str, metric: str) -> Summary:
    """One metric of a row: cells, average, and what is missing."""
    key = (tuple(categories), section, metric)
    if key not in entry._summaries:  # the tables and the leaderboard ask for the same
        entry._summaries[key] = _summarised(entry, categories, section, metric)
    return entry._summaries[key]


def _summarised(entry: Entry, categories: Sequence[str], section: str, metric: str) -> Summary:
    held, wanted = entry.figures(section, metric), set(categories)
    values = {
        seed: {name: value for name, value in held.get(seed, {}).items() if name in wanted}
        for seed in sorted(entry.cells)
    }
    whole = [seed for seed, found in values.items() if len(found) == len(categories)]
    used = {seed: values[seed] for seed in whole} or {seed: found for seed, found in values.items() if found}
    cells = {name: _cell(entry, used, name) for name in categories}
    covered = sum(cell.state == "value" for cell in cells.values())
    reasons = _reasons(entry, categories, section, metric, values)
    for seed, found in values.items():
        if whole and seed not in whole:
            reasons.append(f"seed {seed} is left out: {len(found)} of {len(categories)} categories")
    levels = sorted({cell.interval.level for cell in cells.values() if cell.interval})
    if len(levels) > 1:
        cells = {name: cell._replace(interval=None) for name, cell in cells.items()}
        reasons.append(f"intervals left out, their levels differ: {', '.join(map(percent, levels))}")
    return Summary(
        cells=cells,
        average=_average(used, cells),
        complete=bool(whole),
        covered=covered,
        seeds=len(used),
        reasons=tuple(reasons),
    )


def mean_over(entry: Entry, categories: Sequence[str], read: Read) -> Value:
    """A figure that is no metric of a table, averaged as those are; MISSING where a category lacks it."""
    values, whole = _by_seed(entry, categories, read)
    used = {seed: values[seed] for seed in whole} or {seed: found for seed, found in values.items() if found}
    covered = {name for found in used.values() for name in found}
    return _mean_of_categories(used) if used and covered.issuperset(categories) else MISSING


def sub_means(
    entry: Entry,
    categories: Sequence[str],
    groups: Mapping[str, Collection[str]],
    section: str,
    metric: str,
) -> dict[str, Value]:
    """Group (texture, object) -> the mean over its categories, of the seeds that the average is made of.

    A group of which any such seed lacks a category has none. Without intervals; bounds are means as ever.
    """
    if not groups:
        return {}
    held = sorted(entry.figures(section, metric).items())
    whole = [found for _, found in held if found.keys() >= set(categories)]
    used = whole or [found for _, found in held if not found.keys().isdisjoint(categories)]
    means = {}
    for group, names in groups.items():
        if used and all(found.keys() >= set(names) for found in used):
            values = [[found[name] for name in names] for found in used]
            mean = over_seeds([_mean([value.mean or 0.0 for value in of_seed]) for of_seed in values])
            bound = _mean([value.bound or 0.0 for of_seed in values for value in of_seed])
            means[group] = mean._replace(bound=bound or None)
    return means


def _by_seed(
    entry: Entry, categories: Collection[str], read: Read
) -> tuple[dict[int, dict[str, float]], list[int]]:
    """What finished records hold, by seed and category; and the seeds that have all categories."""
    wanted = set(categories)
    values = {
        seed: {
            name: value
            for name, record in cells.items()
            if name in wanted and record["status"] == "done" and (value := read(record)) is not None
        }
        for seed, cells in sorted(entry.cells.items())
    }
    return values, [seed for seed, found in values.items() if len(found) == len(categories)]


def over_seeds(values: Sequence[float]) -> Value:
    """Mean and sample standard deviation; the sum is exact, so the order of records changes no digit."""
    if not values:
        return MISSING
    mean = _mean(values)
    if len(values) == 1:
        return Value(mean, None, 1, "value")
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Value(mean, math.sqrt(squares / (len(values) - 1)), len(values), "value")


def _cell(entry: Entry, used: Mapping[int, Mapping[str, Value]], category: str) -> Value:
    found = [values[category] for values in used.values() if category in values]
    if len(found) == 1:
        return found[0]
    if found:
        return over_seeds([value.mean for value in found if value.mean is not None])._replace(
            interval=_one_interval([value.interval for value in found]),
            bound=_mean([value.bound or 0.0 for value in found]) or None,
        )
    states = {cells[category]["status"] for cells in entry.cells.values() if category in cells}
    for status, state in (("failed", "failed"), ("done", "undefined"), ("skipped", "skipped")):
        if status in states:
            return Value(state=state)  # type: ignore[arg-type]
    return MISSING


def _one_interval(of_seeds: Sequence[Interval | None]) -> Interval | None:
    """The seeds' mean interval: they share the test images, so it does not narrow with their number."""
    found = [interval for interval in of_seeds if interval is not None]
    if len(found) < len(of_seeds) or len({interval.level for interval in found}) != 1:
        return None
    low, high, error = (_mean([getattr(i, key) for i in found]) for key in ("low", "high", "error"))
    return Interval(low, high, error, found[0].level)


def _average(used: Mapping[int, Mapping[str, Value]], cells: Mapping[str, Value]) -> Value:
    if not used:
        states = {cell.state for cell in cells.values()}
        return Value(state=states.pop()) if len(states) == 1 else MISSING
    found = [cell for cell in cells.values() if cell.mean is not None]
    means = {
        seed: {name: value.mean for name, value in values.items() if value.mean is not None}
        for seed, values in used.items()
    }
    average = _mean_of_categories(means)
    bound = _mean([cell.bound or 0.0 for cell in found]) or None
    return average._replace(interval=_interval_of_mean(average.mean, found), bound=bound)


def _mean_of_categories(used: Mapping[int, Mapping[str, float]]) -> Value:
    """Over categories within a seed, then over seeds; used: at least one value for each seed."""
    if len({frozenset(values) for values in used.values()}) == 1:
        return over_seeds([_mean(list(values.values())) for values in used.values()])
    # Seeds that cover different categories have no averages to compare: no deviation.
    by_category: dict[str, list[float]] = {}
    for values in used.values():
        for name, value in values.items():
            by_category.setdefault(name, []).append(value)
    return Value(_mean([_mean(values) for values in by_category.values()]), None, len(used), "value")


def _interval_of_mean(mean: float | None, cells: Sequence[Value]) -> Interval | None:
    """mean ± z sqrt(sum error^2) / n, within [0, 1]: categories have test images of their own.

    Of one category the interval is its own. None where a category has none.
    """
    found = [cell.interval for cell in cells if cell.interval is not None]
    if mean is None or not found or len(found) < len(cells) or len({i.level for i in found}) != 1:
        return None
    if len(found) == 1:
        return found[0]
    level = found[0].level
    error = math.sqrt(math.fsum(interval.error**2 for interval in found)) / len(found)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(max(0.0, mean - reach), min(1.0, mean + reach), error, level)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def percent(level: float) -> str:
    """`95 %` of 0.95."""
    return f"{100 * level:g} %"


def _reasons(
    entry: Entry,
    categories: Sequence[str],
    section: str,
    metric: str,
    values: Mapping[int, Mapping[str, Value]],
) -> list[str]:
    """Why cells hold none of these values: one line for each cause with the categories it concerns."""
    causes: dict[str, list[str]] = {}
    for seed, cells in sorted(entry.cells.items()):
        for name in categories:
            if name not in cells or name in values[seed]:
                continue
            cause = _cause(cells[name], section, metric)
            if cause:
                causes.setdefault(cause, []).append(f"{name} (seed {seed})" if len(entry.cells) > 1 else name)
    total = len(categories) * len(entry.cells)
    return [
        cause if len(where) == total else f"{cause} [{some_of(where)}]" for cause, where in causes.items()
    ]


def _cause(record: Record, section: str, metric: str) -> str | None:
    if record["status"] == "failed":
        error = record.get("error") or {}
        message = (str(error.get("message") or "").strip().splitlines() or [""])[0]
        text = f"failed: {error.get('type') or 'Error'}: {without_folders(message)}"
        return shorten(text.rstrip(": "), 160)
    if record["status"] == "skipped":
        return f"skipped: {record.get('reason') or 'no reason recorded'}"
    if metric_of(record, section, metric) is not None:
        return None
    known = (record.get("undefined") or {}).get(f"{section}.{metric}")
    if known:
        return f"not defined: {known}"
    if section == "paper" and metric_of(record, "full", metric) is not None:
        return "measured on the original masks alone, not as a paper did: its value stands in the leaderboard"
    if not (record.get("metrics") or {}).get(section):
        return f"not computed: the record has no {section} metrics"
    return f"not computed: the record has no {metric}"


def some_of(names: Sequence[str], limit: int = 5, sign: str = ", ") -> str:
    """`a, b and 3 more` of a list that is longer than `limit`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return sign.join(names[:limit]) + more


def shorten(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def without_folders(text: str) -> str:
    """Absolute paths cut to their last name: tables are committed and must not tell one machine's folders."""
    return re.sub(r"(?<![\w.:/])(?:/[^\s/'\",:;()]+)+/(?=[^\s/])", "…/", text)

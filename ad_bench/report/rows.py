"""Records -> rows of a table: categories are averaged within a seed first, then seeds. Computes no metric."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Record = Mapping[str, Any]
State = Literal["value", "missing", "undefined", "failed", "skipped"]


@dataclass(frozen=True)
class Value:
    """One cell of a table: a mean over `seeds` seeds, or why there is none."""

    mean: float | None = None
    deviation: float | None = None  # sample standard deviation (n - 1) over seeds; None with fewer than two
    seeds: int = 0
    state: State = "missing"


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


@dataclass
class Entry:
    """One method, variant and protocol on a data set: the records of a row, by seed and category."""

    dataset: str
    method: str
    variant: str
    protocol: str
    cells: dict[int, dict[str, Record]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Method, then the plain one before its variants and the full protocol before others."""
        return (self.method, self.protocol if self.protocol != "full" else "", self.variant, self.dataset)

    @property
    def records(self) -> list[Record]:
        """Every record, by seed and category."""
        return [cells[name] for _, cells in sorted(self.cells.items()) for name in sorted(cells)]

    @property
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
    """One record for each cell: the newest by date, the last in path order among equals. In a fixed order."""
    chosen: dict[tuple[Any, ...], Record] = {}
    for record in records:
        key = cell_key(record)
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


def entries(records: Iterable[Record], categories: Collection[str]) -> list[Entry]:
    """The rows that records of one data set make; a category that the data set does not have is left out."""
    found: dict[tuple[str, str, str], Entry] = {}
    for record in records:
        dataset, method, variant, protocol, category, seed = cell_key(record)
        if category not in categories:
            continue
        key = (method, variant, protocol)
        entry = found.setdefault(key, Entry(dataset, method, variant, protocol))
        entry.cells.setdefault(seed, {})[category] = record
    return sorted(found.values(), key=lambda entry: entry.key)


def metric_of(record: Record, section: str, metric: str) -> float | None:
    """A stored metric, None where it is not defined or not there."""
    value = ((record.get("metrics") or {}).get(section) or {}).get(metric)
    return None if value is None or not math.isfinite(value) else float(value)


def summarise(entry: Entry, categories: Sequence[str], section: str, metric: str) -> Summary:
    """One metric of a row: cells, average, and what is missing."""
    values = {
        seed: {
            name: value
            for name, record in cells.items()
            if record["status"] == "done" and (value := metric_of(record, section, metric)) is not None
        }
        for seed, cells in sorted(entry.cells.items())
    }
    whole = [seed for seed, found in values.items() if len(found) == len(categories)]
    used = {seed: found for seed, found in values.items() if (seed in whole if whole else found)}
    cells = {name: _cell(entry, used, name) for name in categories}
    covered = sum(cell.state == "value" for cell in cells.values())
    reasons = _reasons(entry, categories, section, metric)
    for seed, found in values.items():
        if whole and seed not in whole:
            reasons.append(f"seed {seed} is left out: {len(found)} of {len(categories)} categories")
    return Summary(
        cells=cells,
        average=_average(used, cells),
        complete=bool(whole),
        covered=covered,
        seeds=len(used),
        reasons=tuple(reasons),
    )


def over_seeds(values: Sequence[float]) -> Value:
    """Mean and sample standard deviation; the sum is exact, so the order of records changes no digit."""
    if not values:
        return MISSING
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Value(mean, None, 1, "value")
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Value(mean, math.sqrt(squares / (len(values) - 1)), len(values), "value")


def _cell(entry: Entry, used: Mapping[int, Mapping[str, float]], category: str) -> Value:
    found = [values[category] for values in used.values() if category in values]
    if found:
        return over_seeds(found)
    states = {cells[category]["status"] for cells in entry.cells.values() if category in cells}
    for status, state in (("failed", "failed"), ("done", "undefined"), ("skipped", "skipped")):
        if status in states:
            return Value(state=state)  # type: ignore[arg-type]
    return MISSING


def _average(used: Mapping[int, Mapping[str, float]], cells: Mapping[str, Value]) -> Value:
    if not used:
        states = {cell.state for cell in cells.values()}
        return Value(state=states.pop()) if len(states) == 1 else MISSING
    if len({frozenset(values) for values in used.values()}) == 1:
        return over_seeds([math.fsum(values.values()) / len(values) for values in used.values()])
    # Seeds that cover different categories have no averages to compare: no deviation.
    means = [cell.mean for cell in cells.values() if cell.mean is not None]
    return Value(math.fsum(means) / len(means), None, len(used), "value")


def _reasons(entry: Entry, categories: Sequence[str], section: str, metric: str) -> list[str]:
    """Why cells hold no value: one line for each cause with the categories it concerns."""
    causes: dict[str, list[str]] = {}
    for seed, cells in sorted(entry.cells.items()):
        for name in categories:
            cause = _cause(cells[name], section, metric) if name in cells else None
            if cause:
                causes.setdefault(cause, []).append(f"{name} (seed {seed})" if len(entry.cells) > 1 else name)
    total = len(categories) * len(entry.cells)
    return [
        cause if len(where) == total else f"{cause} [{_enumerate(where)}]" for cause, where in causes.items()
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
    if not (record.get("metrics") or {}).get(section):
        return f"not computed: the record has no {section} metrics"
    return f"not computed: the record has no {metric}"


def _enumerate(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def shorten(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def without_folders(text: str) -> str:
    """Absolute paths cut to their last name: tables are committed and must not tell one machine's folders."""
    return re.sub(r"(?<![\w.:/])(?:/[^\s/'\",:;()]+)+/(?=[^\s/])", "…/", text)

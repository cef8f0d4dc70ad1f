"""Rows by name over all data sets, and what they have in each block: for whatever compares rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ad_bench.errors import UsageError, closest
from ad_bench.records import CellId
from ad_bench.report.rows import Entry, Value, some_of, summarise

if TYPE_CHECKING:
    from ad_bench.report.board import Board

Block = tuple[str, str]  # data set, category
FULL = "full"
SHOWN = 8  # names of rows in an error: a sweep makes hundreds


@dataclass
class Row:
    """One method, variant and protocol on every data set that has it."""

    method: str
    variant: str
    protocol: str
    entries: dict[str, Entry] = field(default_factory=dict)  # by data set

    @property
    def name(self) -> str:
        """`patchcore`, `patchcore@coreset_ratio=0.01`, `patchcore:few_shot-4`: what a command takes."""
        return self.plain_name + (f":{self.protocol}" if self.protocol != FULL else "")

    @property
    def plain_name(self) -> str:
        """The name without its protocol, as `CellId.row` prints it."""
        return CellId("", "", self.method, self.variant, self.protocol, 0).row

    @property
    def title(self) -> str:
        """`PatchCore (coreset_ratio=0.01, few_shot-4)`."""
        setting = [text for text in (self.variant, self.protocol if self.protocol != FULL else "") if text]
        name = next(iter(self.entries.values())).title
        return f"{name} ({', '.join(setting)})" if setting else name

    def blocks(self, section: str, metric: str) -> frozenset[Block]:
        """Where a finished record of any seed has the metric."""
        return frozenset(
            (dataset, category)
            for dataset, entry in self.entries.items()
            for held in entry.figures(section, metric).values()
            for category in held
        )

    def values(self, blocks: Sequence[Block], section: str, metric: str) -> dict[Block, Value]:
        """The metric in each of `blocks`, over seeds as in the tables. Raises KeyError for one not held."""
        found: dict[Block, Value] = {}
        for dataset in dict.fromkeys(dataset for dataset, _ in blocks):
            names = [category for home, category in blocks if home == dataset]
            cells = summarise(self.entries[dataset], names, section, metric).cells
            found |= {(dataset, name): cells[name] for name in names}
        missing = [block for block in blocks if found[block].mean is None]
        if missing:
            raise KeyError(missing[0])
        return found

    def seeds(self, blocks: Sequence[Block], section: str, metric: str) -> list[int]:
        """The seeds that have the metric in every one of `blocks`."""
        every = sorted({seed for entry in self.entries.values() for seed in entry.cells})
        return [seed for seed in every if all(self.at(seed, b, section, metric) is not None for b in blocks)]

    def at(self, seed: int, block: Block, section: str, metric: str) -> float | None:
        """One seed's value in a block."""
        dataset, category = block
        entry = self.entries.get(dataset)
        value = entry.figures(section, metric).get(seed, {}).get(category) if entry else None
        return value.mean if value else None


def rows_of(board: Board) -> dict[str, Row]:
    """Every row by its name, sorted by it."""
    found: dict[tuple[str, str, str], Row] = {}
    for dataset in sorted(board.places):
        for place in board.places[dataset]:
            entry = place.entry
            key = (entry.method, entry.variant, entry.protocol)
            found.setdefault(key, Row(*key)).entries[dataset] = entry
    return {row.name: row for _, row in sorted(found.items())}


def ordered(board: Board, blocks: frozenset[Block]) -> list[Block]:
    """Blocks by data set, then in the order of its tables."""
    places = {
        (dataset, category): (dataset, i)
        for dataset, tables in board.tables.items()
        for i, category in enumerate(tables[0].categories)
    }
    return sorted(blocks, key=lambda block: places[block])


def section_of(metric: str) -> tuple[str, str]:
    """Section and name of `image_auroc`, `pixel_auroc` (on the original masks) or `paper.pixel_auroc`."""
    section, dot, name = metric.partition(".")
    if dot and section in ("image", "paper", "full"):
        return section, name
    return ("image" if metric.startswith("image_") else "full"), metric


def find(name: str, rows: Mapping[str, Row]) -> Row:
    """The row of that name; without a protocol the full one, else the only one. Raises UsageError."""
    if name in rows:
        return rows[name]
    others = [row for row in rows.values() if row.plain_name == name]
    if len(others) == 1:
        return others[0]
    if others:
        raise UsageError(f"'{name}' has rows of several protocols: {', '.join(row.name for row in others)}")
    same = [row.name for row in rows.values() if row.method == name]
    if same:
        raise UsageError(f"no row '{name}' without a variant; there are: {_some(same)}")
    hint = f"There are: {_some(list(rows))}"
    method, methods = name.partition(":")[0], sorted({row.method for row in rows.values()})
    # Beside long names of variants a misspelt method is like none of them.
    near = "" if "@" in name or method in methods else closest(method, methods)
    raise UsageError(f"no row '{name}' among the records.{near or closest(name, rows, hint)}")


def _some(names: Sequence[str]) -> str:
    return some_of([quoted(name) for name in names], SHOWN)


def quoted(name: str) -> str:
    """A row's name as a shell takes it."""
    return f"'{name}'" if any(c in name for c in ' {}[]*?&|;<>()$`"\\') else name


def split(text: str, rows: Mapping[str, Row]) -> list[Row]:
    """The rows of `patchcore,padim@backbone=resnet18,coreset_ratio=0.01`: variants have commas of their own.

    Of the ways to read it the longest name counts. Raises UsageError for what is no row.
    """
    words, found, start = text.split(","), list[Row](), 0
    known = {*rows, *(row.plain_name for row in rows.values())}
    while start < len(words):
        ends = range(len(words), start, -1)
        end = next((e for e in ends if ",".join(words[start:e]) in known), start + 1)
        found.append(find(",".join(words[start:end]), rows))
        start = end
    return found

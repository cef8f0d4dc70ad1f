"""Fits in the order that keeps data and backbones warm, what they will cost, and packs of them for jobs.

A pack on disk is JSON: the words that `adbench run` would be given, and which of their cells are meant. A job
plans them again, so what got a record meanwhile is not run twice. Imports no torch.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ad_bench import config, records
from ad_bench.config import backbones, precision
from ad_bench.errors import UsageError
from ad_bench.records import CellId, path_name
from ad_bench.runner.plan import Fit, Plan, Sharing, make_plan

LOOKED_AT = 5  # earlier records of a row that an estimate reads
UNKNOWN = 60.0  # s: what a fit counts whose method has no record yet
Kind = tuple[str, str, tuple[str, ...]]


def kind(fit: Fit) -> Kind:
    """What fits share that are better run by one process: data set, geometry, backbones."""
    return fit.cells[0].id.dataset, str(fit.geometry), tuple(str(w.path or w.name) for w in fit.weights)


def warm(fits: Sequence[Fit]) -> list[Fit]:
    """The fits kind by kind, and within a kind group by group; else in the order they came."""
    kinds: dict[Any, int] = {}
    keys = []
    for fit in fits:
        of_kind = kind(fit)
        group = (of_kind, fit.group.name)
        keys.append((kinds.setdefault(of_kind, len(kinds)), kinds.setdefault(group, len(kinds))))
    return [fits[i] for i in sorted(range(len(fits)), key=keys.__getitem__)]


def together(fits: Sequence[Fit]) -> list[Fit]:
    """The fits, marked with whom they share features; those of a group stand where its first one stood.

    Within a group those that read most layers come first: what they compute is there for all the others.
    """
    configs = {id(fit.config): fit.config for fit in fits}  # many fits have the same
    asked = {name: _features(config) for name, config in configs.items()}
    groups: dict[Any, list[tuple[Fit, frozenset[int | str]]]] = {}
    for index, fit in enumerate(fits):
        settings, layers = asked[id(fit.config)]
        alone = not layers or fit.group.skipped
        key = index if alone else (kind(fit), fit.group.name, settings)
        groups.setdefault(key, []).append((fit, layers))
    order: list[Fit] = []
    for key, members in groups.items():
        counts = Counter(layer for _, layers in members for layer in layers)
        shared = frozenset(layer for layer, count in counts.items() if count > 1)
        sharing = Sharing(key, shared) if shared else None
        for fit, _ in members:
            fit.sharing = sharing
        order += [fit for fit, _ in sorted(members, key=lambda member: -len(member[1] & shared))]
    return order


def _features(config: Any) -> tuple[tuple[Any, ...], frozenset[int | str]]:
    """What else must be equal for two fits to compute the same features, and the layers that are read.

    The deepest layer, too: what a deeper network took is not what another would have. No layers where there
    is no backbone, or no memory for features.
    """
    runtime = config.runtime
    nodes = backbones(config.method.get("model")) if runtime.feature_memory_gb else []
    layers = [tuple(node.layers) for node in nodes]
    batch = config.method.loader.batch_size
    ran = (runtime.device, runtime.threads, batch, runtime.batch_size or batch)
    return (precision(config), *ran, *(found[-1:] for found in layers)), frozenset().union(*layers)


@dataclass(frozen=True)
class Rates:
    """Seconds that earlier records took an image of training and an image of a test set."""

    fit: float
    test: float
    own: bool  # of the same settings; else of others of the method

    def of(self, fit: Fit) -> float:
        """Seconds of a fit and those of its cells that wait."""
        train = len(fit.group.train) + sum(map(len, fit.group.stages))
        return self.fit * train + self.test * sum(len(cell.tests) for cell in fit.waiting)


def seconds_of(fits: Sequence[Fit], results: Path) -> list[float | None]:
    """What each fit will take by earlier records; None where its method has none."""
    pairs = zip(fits, rates_of(fits, results), strict=True)
    return [0.0 if fit.group.skipped else rate.of(fit) if rate else None for fit, rate in pairs]


def rates_of(fits: Sequence[Fit], results: Path) -> list[Rates | None]:
    """Of earlier records of a fit's row, on its data set or on others; else of other rows of its method."""
    known: dict[tuple[str, str, str], Rates | None] = {}
    found = []
    for fit in fits:
        ident = fit.cells[0].id
        key = (ident.dataset, ident.row, ident.protocol)
        if key not in known:
            known[key] = _rates(results, ident)
        found.append(known[key])
    return found


def _rates(results: Path, ident: CellId) -> Rates | None:
    cells = results / "cells"
    row, method = path_name(ident.row), path_name(ident.method)
    for dataset, name in ((path_name(ident.dataset), row), ("*", row), ("*", f"{method}*")):
        pairs = [pair for record in _some(cells, dataset, name, ident) if (pair := _per_image(record))]
        if pairs:
            fit, test = (statistics.median(part) for part in zip(*pairs, strict=True))
            return Rates(fit, test, own=name == row)
    return None


def _some(cells: Path, dataset: str, row: str, ident: CellId) -> Iterator[records.Record]:
    """A few finished records: one of each category, those of the same protocol first."""
    found = 0
    for folder in sorted(cells.glob(f"{dataset}/*/{row}")):
        if folder.name.partition("@")[0] != path_name(ident.method).partition("@")[0]:
            continue
        runs = sorted(folder.glob("*/*"), key=lambda path: not path.parent.name.startswith(ident.protocol))
        for run in runs:
            try:
                record = records.read(run / "record.json")
            except (OSError, ValueError):
                continue
            if record["status"] == "done" and "debug" not in record.get("marks", ()):
                yield record
                found += 1
                break
        if found == LOOKED_AT:
            return


def _per_image(record: records.Record) -> tuple[float, float] | None:
    counts, timing = record.get("counts", {}), record.get("timing", {})
    try:
        tested = counts["test_normal"] + counts["test_anomalous"]
        test = timing["predict_seconds"] + timing["evaluate_seconds"]
        return timing["fit_seconds"] / max(counts["train"], 1), test / max(tested, 1)
    except (KeyError, TypeError):  # another program's maps: nobody knows what it took
        return None


@dataclass(frozen=True)
class Pack:
    """Fits that one job runs, and the seconds that they will take."""

    fits: tuple[Fit, ...]
    seconds: float

    @property
    def cells(self) -> int:
        """How many of their cells wait."""
        return sum(len(fit.waiting) for fit in self.fits)


def packed(
    fits: Sequence[Fit], seconds: Sequence[float | None], target: float, most: int | None
) -> list[Pack]:
    """Neighbours in one pack until it takes `target` seconds; larger ones where that gives more than `most`.

    A pack ends with its kind once it is half full.
    """
    costs = [UNKNOWN if one is None else one for one in seconds]
    while True:
        packs = list(_cut(fits, costs, target))
        if most is None or len(packs) <= max(1, most):
            return packs
        target = max(1.1 * target, sum(costs) / most)


def _cut(fits: Sequence[Fit], costs: Sequence[float], target: float) -> Iterator[Pack]:
    held: list[Fit] = []
    total = 0.0
    for fit, cost in zip(fits, costs, strict=True):
        new_kind = bool(held) and kind(fit) != kind(held[-1])
        if held and (total + cost > target or (new_kind and total > target / 2)):
            yield Pack(tuple(held), total)
            held, total = [], 0.0
        held.append(fit)
        total += cost
    if held:
        yield Pack(tuple(held), total)


def write_pack(path: Path, pack: Pack, config_dirs: Iterable[Path]) -> None:
    """The pack as JSON. Raises OSError."""
    entries: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for fit in pack.fits:
        entries[fit.words] += [(cell.id.category, fit.seed) for cell in fit.waiting]
    content = {
        "submitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "folder": str(Path.cwd()),
        "seconds": round(pack.seconds, 1),
        "config_dirs": [str(Path(folder).expanduser().resolve()) for folder in config_dirs],
        "entries": [{"words": words, "cells": cells} for words, cells in entries.items()],
    }
    records.replace_text(path, json.dumps(content, indent=1) + "\n")


def read_pack(path: Path) -> Plan:
    """The plan of a pack, made anew where the pack was: what has a record by now is done. Raises UsageError.

    Of what shall run again (rerun=failed|always) that too which has run since the pack was written: a job
    that is queued again does not begin anew.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        submitted, here = str(content["submitted"]), Path(content["folder"])
        folders = [Path(folder) for folder in content["config_dirs"]]
        entries = [
            (tuple(map(str, e["words"])), {(str(c), int(s)) for c, s in e["cells"]})
            for e in content["entries"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no pack of cells ({error!r}); submit the sweep again") from error
    os.chdir(here)
    sys.path[:0] = map(str, folders)  # a user's method lies beside its YAML
    wanted: dict[tuple[str, ...], set[tuple[str, int]]] = {}
    choices: list[config.Choice] = []
    for words, cells in entries:
        seeds = ",".join(str(seed) for seed in sorted({seed for _, seed in cells}))
        choices += config.choices([*words, f"seed={seeds}"], folders)
        wanted[words] = cells
    plan = make_plan(choices)
    plan.fits = [  # a fit keeps all its cells: one without a record costs little beside the fit
        fit
        for fit in plan.fits
        if any((cell.id.category, fit.seed) in wanted[fit.words] for cell in fit.cells)
    ]
    for fit in plan.fits:
        for cell in fit.waiting:
            record = records.find(Path(fit.config.paths.results), cell.id, cell.fingerprint)
            if record and str(record["date"]) >= submitted:
                cell.done = record
    return plan

"""Where the runs left their files, looked up once for each record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ad_bench.report.rows import Record, under
from ad_bench.report.site.script import slug


class Run(NamedTuple):
    """The folder of a run, `parts` of it below the results, and the names of its files; none: it is gone."""

    folder: str
    parts: tuple[str, ...]
    files: frozenset[str]


class Runs:
    """The runs of the records of one results folder. Text, not Path: there may be ten thousand."""

    def __init__(self, results: Path) -> None:
        self._home = os.path.join(results, "cells")  # noqa: PTH118
        self._known: dict[int, Run] = {}

    def of(self, record: Record) -> Run:
        """The run that left a record; the board keeps its records, so that each has a name of its own."""
        if id(record) not in self._known:
            self._known[id(record)] = self._look_up(record)
        return self._known[id(record)]

    def _look_up(self, record: Record) -> Run:
        row = f"{record['method']}@{record['variant']}" if record.get("variant") else str(record["method"])
        protocol = f"{record['protocol']}-seed{record['seed']}"
        names = (str(record["dataset"]), str(record["category"]), row, protocol, fingerprint(record))
        parts = tuple(map(slug, names))
        folder = "/".join((self._home, *parts))
        try:
            return Run(folder, parts, frozenset(os.listdir(folder)))  # noqa: PTH208
        except OSError:
            return Run(folder, parts, frozenset())


def fingerprint(record: Mapping[str, object]) -> str:
    """That of the cell, blank where the record has none."""
    return str(under(record, "fingerprint").get("cell") or "")


def text_of(run: Run, name: str) -> str:
    """A file of the run, as UTF-8. Raises OSError."""
    with open(f"{run.folder}/{name}", encoding="utf-8", errors="replace", newline="") as file:  # noqa: PTH123
        return file.read()

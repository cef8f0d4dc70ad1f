"""The record that a finished cell leaves: written in one step, found and read without torch or pandas.

Layout: results/cells/<dataset>/<category>/<method>[@<variant>]/<protocol>-seed<k>/<fingerprint>/record.json.
results/README.md describes the fields; `SCHEMA` grows when one changes its meaning.
"""

from __future__ import annotations

import errno
import functools
import gc
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ad_bench.errors import ResultsError
from ad_bench.processes import abandoned, temporary

SCHEMA = 1
Record = dict[str, Any]


@dataclass(frozen=True)
class CellId:
    """Where a cell stands in a table: the unit of storage and of failure."""

    dataset: str
    category: str
    method: str
    variant: str
    protocol: str
    seed: int

    @property
    def row(self) -> str:
        """`patchcore`, or `patchcore@coreset_ratio=0.01` for a variant."""
        return f"{self.method}@{self.variant}" if self.variant else self.method

    def folder(self, results: Path) -> Path:
        """The folder that holds one sub-folder for each fingerprint."""
        names = (self.dataset, self.category, self.row, f"{self.protocol}-seed{self.seed}")
        return results.joinpath("cells", *map(path_name, names))

    def __str__(self) -> str:
        return f"{self.dataset}/{self.category} {self.row} {self.protocol}-seed{self.seed}"


@functools.lru_cache(maxsize=4096)  # a plan of 10,000 cells has few names, many times
def path_name(text: str) -> str:
    """`text` as one portable path component; long or odd ones end in a hash of the original."""
    clean = re.sub(r"[^A-Za-z0-9._=,@+-]", "_", text).lstrip(".") or "_"
    if clean == text and len(clean) <= 120:
        return clean
    return f"{clean[:100]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def find(results: Path, cell: CellId, fingerprint: str) -> Record | None:
    """The record of this very cell and fingerprint, or None; an unreadable one counts as none."""
    try:
        return read(cell.folder(results) / fingerprint / "record.json")
    except (OSError, ValueError):
        return None


def read(path: Path) -> Record:
    """One record. Raises ValueError, naming the file, where it is no record of this schema."""
    try:
        record = orjson.loads(_content(path))  # a report reads thousands, in a third of json's time
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); delete its folder and run the cell again") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise ValueError(
            f"{path} has schema {found}, this version reads {SCHEMA}; delete it or use its version"
        )
    return record


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return path.read_bytes()  # NFS: another host replaced it between looking it up and reading it


def folders(results: Path, problems: list[str] | None = None) -> Iterator[Path]:
    """Every folder that may hold a record, in path order; what may not be read is named in `problems`."""
    return _below(results / "cells", 5, [] if problems is None else problems)


def read_all(results: Path) -> tuple[list[Record], list[str]]:
    """Every record below `results`, in path order, and a line for each that could not be read."""
    records: list[Record] = []
    problems: list[str] = []
    with no_collecting():
        for folder in folders(results, problems):
            try:
                records.append(read(folder / "record.json"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                problems.append(str(error))
    return records, problems


def _below(folder: Path, depth: int, problems: list[str]) -> Iterator[Path]:
    """The folders `depth` levels down, in path order, hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except FileNotFoundError:  # nothing was run yet, or another process replaced it meanwhile
        return
    except OSError as error:
        problems.append(str(error))
        return
    for name in names:
        if depth == 1:
            yield folder / name
        else:
            yield from _below(folder / name, depth - 1, problems)


@contextmanager
def no_collecting() -> Iterator[None]:
    """No search for circular garbage: plain data have none, and over much of them it doubles the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()  # nor when the search goes on: what was read has none
            gc.enable()


@contextmanager
def writing(results: Path, cell: CellId, fingerprint: str, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes the cell's on leaving, in one rename, or leaves nothing behind.

    Where another process finished the same cell meanwhile its record stays, unless `replace`.
    Raises ResultsError where the disk is full or the folder cannot be written.
    """
    final = cell.folder(results) / fingerprint
    try:
        with scratch(results) as folder:
            yield folder
            for path in folder.iterdir():  # a record must not be visible before its bytes are on the disk
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
            final.parent.mkdir(parents=True, exist_ok=True)
            _move_in(folder, final, replace)
    except OSError as error:
        raise ResultsError(
            f"cannot write the record of {cell} in {results}: {error.strerror or error}."
            " Earlier ones are intact; make room (or set paths.results) and run the same command again,"
            " finished cells are kept"
        ) from error


@contextmanager
def scratch(results: Path) -> Iterator[Path]:
    """A folder on the disk of the records that is gone on leaving; `sweep_leftovers` knows its name."""
    folder = temporary(results / "cells")
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_in(folder: Path, final: Path, replace: bool) -> None:
    for _ in range(10):  # two processes may replace the same record at the same moment
        try:
            _rename(folder, final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if not replace and (final / "record.json").is_file():
            return
        old = folder.with_name(folder.name.replace(".tmp-", ".old-") + secrets.token_hex(2))
        with suppress(FileNotFoundError):
            final.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    raise ResultsError(f"{final} is being rewritten by other processes; run the same command again")


def _rename(half: Path, final: Path) -> None:
    """Rename in one step.

    NFS repeats a request whose answer was lost; the source is then gone because the first one did its work.
    """
    before = half.stat()
    try:
        half.replace(final)
    except FileNotFoundError:
        with suppress(OSError):
            os.listdir(final.parent)  # asks the server anew what is there  # noqa: PTH208
            if os.path.samestat(before, final.stat()):
                return
        raise


def sweep_leftovers(results: Path) -> int:
    """Remove temporary folders that nobody will finish (`processes.abandoned`); returns how many."""
    removed = 0
    for folder in leftovers(results):
        shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


def leftovers(results: Path) -> list[Path]:
    """The temporary folders beside the records that nobody will finish."""
    found = (path for kind in (".tmp-*", ".old-*") for path in (results / "cells").glob(kind))
    return [path for path in found if abandoned(path)]


def write_json(path: Path, record: Record) -> None:
    """Standard JSON: NaN and infinities become null, keys keep their order."""
    text = json.dumps(_standard(record), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _standard(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _standard(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_standard(v) for v in value]
    return value


def replace_text(path: Path, text: str) -> None:
    """Write a whole text file in one step, so that a reader never sees half of it."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = temporary(path.parent)
    try:
        write(half)
        _rename(half, path)
    finally:
        half.unlink(missing_ok=True)

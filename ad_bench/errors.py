"""The errors that a user can cause and mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdbenchError(Exception):
    """Base of the errors below; its text says what was found, what was expected, and what to do."""


class UsageError(AdbenchError):
    """A wrong command, name, key or value: nothing was run (exit code 2)."""


class DataError(AdbenchError):
    """An image, mask or folder that cannot be used; names the file."""


class CategoryMissing(DataError, FileNotFoundError):
    """The data set has no such category on this disk."""


class WeightsError(AdbenchError):
    """Pretrained weights that are missing, unsafe or of another network."""


class WeightsMissing(WeightsError):
    """No weights of the name `args[0]`; `args[1]`: where they were looked for, and what to do."""

    def __str__(self) -> str:
        return f"no weights for '{self.args[0]}'. {self.args[1]}"


class ResultsError(AdbenchError):
    """Results or cache cannot be written: the disk is full, or it is no folder. Earlier records stay.

    A matter of the machine, not of a cell: it stops a run, and the same command goes on.
    """


class TrainingError(AdbenchError):
    """A training that cannot go on: its loss is NaN or infinite."""


class TimeLimitError(AdbenchError):
    """A fit with its cells that took longer than runtime.max_minutes."""


class PredictionError(AdbenchError):
    """A method returned something that cannot be scored: NaN, infinity, a wrong shape."""


class WorkerError(AdbenchError):
    """A worker process that died: killed, out of memory, or crashed in a library."""


def closest(name: str, known: Iterable[str], hint: str = "") -> str:
    """' Did you mean a, b?' for a misspelt name, or `hint` where nothing is close."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else (f" {hint}" if hint else "")

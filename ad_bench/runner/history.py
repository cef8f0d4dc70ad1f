"""The sweeps that were begun: what `adbench run` left of its command in results/sweeps. Imports no torch."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ad_bench import processes
from ad_bench.runner.slurm import Job
from ad_bench.running import Running

FOLDER = "sweeps"
# What Slurm calls a job that will not run again. Every other state, also one that a later Slurm adds, is of a
# job that may still run.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


@dataclass(frozen=True)
class Sweep:
    """One `adbench run` that had something to run."""

    path: Path
    words: tuple[str, ...]
    config_dirs: tuple[Path, ...]
    launch: str
    machine: str
    pid: int
    started: datetime.datetime
    cells: int  # that waited then
    jobs: tuple[Job, ...]
    folder: Path  # that the command was called in

    @property
    def host(self) -> str:
        """Where the command was called."""
        return processes.host(self.machine)

    @property
    def packs(self) -> Path:
        """The folder of its jobs: packs, logs, submitit's own files. There for launch=slurm alone."""
        return self.path.with_suffix("")

    def living(self, said: Sequence[Running], states: Mapping[str, str]) -> bool | None:
        """Whether anything of it still runs or waits in a queue; None where nobody can tell from here."""
        now = [one for one in said if not one.stale]
        if self.jobs:
            ids = {job.id for job in self.jobs}
            if any(one.job in ids for one in now) or any(
                states.get(one, "CANCELLED") not in ENDED for one in ids
            ):
                return True
            return False if any(one in states for one in ids) else None
        if self.machine == processes.machine():
            return processes.alive(self.pid)
        # A local sweep's workers have numbers of their own.
        if any(
            one.machine == self.machine and (one.pid == self.pid or self.launch == "local") for one in now
        ):
            return True
        return None


def sweeps(results: Path) -> list[Sweep]:
    """All of a results folder, the newest first; a torn file is passed over."""
    found = []
    for path in (results / FOLDER).glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_read(path, results))
    return sorted(found, key=lambda sweep: (sweep.started, sweep.path.name), reverse=True)


def _read(path: Path, results: Path) -> Sweep:
    said = json.loads(path.read_text(encoding="utf-8"))
    return Sweep(
        path=path,
        words=tuple(str(word) for word in said["words"]),
        config_dirs=tuple(Path(folder) for folder in said["config_dirs"]),
        launch=str(said["launch"]),
        machine=str(said["machine"]),
        pid=int(said["pid"]),
        started=datetime.datetime.fromisoformat(said["started"]),
        cells=int(said["cells"]),
        jobs=tuple(Job(str(job["id"]), results / job["pack"]) for job in said["jobs"]),
        folder=Path(said["folder"]),
    )


def command(words: Sequence[str], config_dirs: Sequence[Path] = ()) -> str:
    """The `adbench run` of these words, as a shell takes it."""
    many = ["-m"] if any(map(_several, words)) else []
    folders = [part for folder in config_dirs for part in ("--config-dir", str(folder))]
    return shlex.join(["adbench", "run", *many, *words, *folders])


def _several(word: str) -> bool:
    """Whether a word names several values that only -m takes; not a list, a mapping or a quoted text."""
    key, _, value = word.partition("=")
    return (
        key not in ("category", "seed", "suite") and value[:1] not in "[{'\"" and bool(set(",(") & set(value))
    )

"""What processes work on right now: a small file of each below results/running, for `adbench status` alone.

No lock and no queue: nothing else reads these files, and where one cannot be written work goes on without it.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ad_bench import processes, records
from ad_bench.records import CellId

FOLDER = "running"
EVERY = 3.0  # s between two writings
SIGN_OF_LIFE = 60.0  # s; a process that has nothing new to say touches its file
SILENT = 600.0  # s without one: the process is taken for dead, or for another that got its number


class Presence:
    """Says what this process works on. Costs its calls nothing: a thread writes; none of them ever raises."""

    def __init__(self, results: Path) -> None:
        self.path = results / FOLDER / f"{processes.machine()}-{os.getpid()}.json"
        self.pid = os.getpid()
        self._work: tuple[tuple[CellId, ...], str, str] | None = None
        self._stage: tuple[str, int, int | None] = ("", 0, None)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def cell(self, cells: Sequence[CellId], device: str) -> None:
        """The cells of the fit that begins."""
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._stage = ("", 0, None)
        self._work = (tuple(cells), device, since)
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._tell, name="adbench presence", daemon=True)
            with suppress(RuntimeError):  # no more threads: nobody sees what runs here
                self._thread.start()

    def stage(self, text: str, done: int = 0, total: int | None = None) -> None:
        """What happens to the cells, and how far it is."""
        self._stage = (text, done, total)

    def close(self) -> None:
        """Nothing is worked on any more."""
        self._ended.set()
        if os.getpid() != self.pid or self._thread is None:  # a child's copy of it says nothing
            return
        with suppress(RuntimeError):
            self._thread.join(EVERY)
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _tell(self) -> None:
        said, when = None, 0.0
        while True:
            work, stage = self._work, self._stage
            now = time.monotonic()
            with suppress(Exception):  # a full disk, a folder that was removed: not what the work is about
                if (work, stage) != said:
                    records.replace_text(self.path, json.dumps(self._content(work, stage)) + "\n")
                    said, when = (work, stage), now
                elif now - when > SIGN_OF_LIFE:
                    os.utime(self.path)
                    when = now
            if self._ended.wait(EVERY):
                return

    def _content(
        self, work: tuple[tuple[CellId, ...], str, str] | None, stage: tuple[str, int, int | None]
    ) -> dict[str, Any]:
        cells, device, since = work or ((), "", "")
        text, done, total = stage
        return {
            "schema": 1,
            "cells": [asdict(cell) for cell in cells],
            "since": since,
            "stage": text,
            "done": done,
            "total": total,
            "device": device,
            "machine": processes.machine(),
            "pid": self.pid,
            "job": job_id(os.environ),
        }


def job_id(environment: Mapping[str, str]) -> str | None:
    """The Slurm job that a process belongs to, as `123` or, of an array, `123_4`."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


@dataclass(frozen=True)
class Running:
    """What a process has said."""

    cells: tuple[CellId, ...]
    since: str  # ISO, UTC
    stage: str
    done: int
    total: int | None
    device: str
    machine: str
    pid: int
    job: str | None
    silent: float  # s since the last sign of life, by this machine's clock
    stale: bool  # of a process that is dead, or silent for too long
    path: Path

    @property
    def host(self) -> str:
        """Where it runs."""
        return processes.host(self.machine)


def read(results: Path) -> list[Running]:
    """What all processes said, those that are dead too, oldest work first; a torn file is passed over."""
    found = []
    for path in (results / FOLDER).glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_read(path))
    return sorted(found, key=lambda one: (one.since, one.path.name))


def _read(path: Path) -> Running:
    silent = time.time() - path.stat().st_mtime
    said = json.loads(path.read_text(encoding="utf-8"))
    machine, pid = str(said["machine"]), int(said["pid"])
    here = machine == processes.machine()
    return Running(
        cells=tuple(CellId(**cell) for cell in said["cells"]),
        since=str(said["since"]),
        stage=str(said["stage"]),
        done=int(said["done"]),
        total=None if said["total"] is None else int(said["total"]),
        device=str(said["device"]),
        machine=machine,
        pid=pid,
        job=None if said["job"] is None else str(said["job"]),
        silent=silent,
        stale=silent > SILENT or (here and not processes.alive(pid)),
        path=path,
    )

"""How a sweep stands: cells by state, what runs now, why cells failed, jobs, rate and time left.

Read from records, from the small files of results/running and results/sweeps, and from Slurm where it
answers. A sweep is planned once; then only the records that are missing are looked for. Imports no torch.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ad_bench import config, records, running
from ad_bench.errors import AdbenchError, UsageError
from ad_bench.records import CellId, Record
from ad_bench.runner import history, packs, slurm
from ad_bench.runner.history import Sweep
from ad_bench.runner.plan import Plan, make_plan
from ad_bench.running import Running

SLURM_EVERY = 30.0  # s between two questions to Slurm
OTHERS = 20  # earlier sweeps that are asked after
LOCAL = ("paths.results=", "rerun=")  # words that name no cell


@dataclass
class Tracked:
    """A cell of the plan, its record's file, and how it ended."""

    id: CellId
    path: Path
    words: tuple[str, ...]  # of its choice, without those of LOCAL
    seconds: float | None  # estimated, its share of the fit
    status: str | None = None  # done | failed | skipped; None: it has no record that counts
    date: datetime.datetime | None = None
    reason: str = ""  # why it failed
    passed_over: tuple[int, int] | None = None  # the file of a record that shall be replaced


@dataclass(frozen=True)
class Failure:
    """Cells that failed for one reason."""

    reason: str
    cells: tuple[Tracked, ...]


class Status:
    """The cells of one plan.

    `look` brings up to date: `open`, the cells without a record; `said` by all processes; `working`, of these
    the living that are at open cells; `states` of the jobs.
    """

    def __init__(
        self,
        results: Path,
        sweep: Sweep | None,
        plan: Plan,
        words: Sequence[str],
        config_dirs: Sequence[Path] = (),
    ) -> None:
        self.results, self.sweep, self.missing = results, sweep, list(plan.missing)
        self.lacking = plan.lacking  # weights; the methods that need them have no cells here
        self.words, self.config_dirs = tuple(words), tuple(config_dirs)
        self.since = sweep.started.replace(microsecond=0) if sweep else None  # records count whole seconds
        again = [word.partition("=")[2] for word in words if word.startswith("rerun=")]
        self.again = {"failed": {"failed"}, "always": {"done", "failed", "skipped"}}.get(
            again[-1] if again else "", set()
        )
        self.cells = list(_tracked(plan, results))
        for cell, record in zip(self.cells, [cell.done for cell in plan.cells], strict=True):
            if record is not None:
                self._take(cell, record)
        self.states: dict[str, str] = {}
        self.asked = -SLURM_EVERY
        self.look()

    def look(self) -> None:
        """Read what has changed: records that were missing, who works on what, the jobs."""
        for cell in self.cells:
            if cell.status is None:
                self._find(cell)
        self.open = [cell for cell in self.cells if cell.status is None]
        self.said = running.read(self.results)
        self.working = self._working()
        if self.sweep and self.sweep.jobs and time.monotonic() - self.asked >= SLURM_EVERY:
            self.states = slurm.states([job.id for job in self.sweep.jobs])
            self.asked = time.monotonic()
        self.now = datetime.datetime.now(datetime.UTC)

    def _working(self) -> list[tuple[Running, list[CellId]]]:
        """Each process that works on cells of the plan that have no record yet, with these."""
        wanted = {cell.id for cell in self.open}
        pairs = [(one, [cell for cell in one.cells if cell in wanted]) for one in self.said if not one.stale]
        return [(one, cells) for one, cells in pairs if cells]

    def _find(self, cell: Tracked) -> None:
        try:
            found = cell.path.stat()
            if (found.st_mtime_ns, found.st_ino) != cell.passed_over:
                self._take(cell, records.read(cell.path))
        except (OSError, ValueError):  # not there, or torn: it runs again
            return

    def _take(self, cell: Tracked, record: Record) -> None:
        status, date = str(record["status"]), None
        with suppress(KeyError, TypeError, ValueError):
            date = datetime.datetime.fromisoformat(record["date"])
        if status in self.again and self.since and (date is None or date < self.since):
            with suppress(OSError):
                found = cell.path.stat()
                cell.passed_over = (found.st_mtime_ns, found.st_ino)
            return
        cell.status, cell.date = status, date
        if status == "failed":
            error = record.get("error") or {}
            lines = str(error.get("message", "")).splitlines()
            cell.reason = f"{error.get('type', 'Error')}: {lines[0] if lines else 'no message'}"

    @property
    def failed(self) -> int:
        """How many cells failed."""
        return sum(cell.status == "failed" for cell in self.cells)

    @property
    def living(self) -> bool | None:
        """Whether something works on the plan or waits in a queue to do so; None where nobody can tell."""
        if self.working:
            return True
        return self.sweep.living(self.said, self.states) if self.sweep else False

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state; what runs is not among what waits."""
        found = Counter(cell.status for cell in self.cells)
        runs = len({cell for _, cells in self.working for cell in cells})
        return {
            "done": found["done"],
            "failed": found["failed"],
            "skipped": found["skipped"],
            "running": runs,
            "waiting": found[None] - runs,
        }

    @property
    def rate(self) -> float | None:
        """Cells an hour since the sweep began; None where none has ended since."""
        ended = self._ended_since()
        if not ended or self.since is None:
            return None
        until = self.now if self.living else max(cell.date for cell in ended if cell.date)
        return 3600 * len(ended) / max((until - self.since).total_seconds(), 1.0)

    @property
    def seconds_left(self) -> float | None:
        """As long as the rest takes if it goes on like this; None where nothing runs or nobody knows.

        Estimated work still to do, at the pace of the estimated work that was done since the sweep began.
        """
        rest, ended = self.open, self._ended_since()
        if not rest or not self.living:
            return None
        known = [cell.seconds for cell in self.cells if cell.seconds]
        usual = sum(known) / len(known) if known else 1.0

        def work(cells: Sequence[Tracked]) -> float:
            return sum(usual if cell.seconds is None else cell.seconds for cell in cells)

        if (done := work(ended)) and self.since is not None:
            return work(rest) * (self.now - self.since).total_seconds() / done
        return work(rest) / len(self.working) if known and self.working else None

    def _ended_since(self) -> list[Tracked]:
        if self.since is None:
            return []
        return [cell for cell in self.cells if cell.status and cell.date and cell.date >= self.since]

    @property
    def failures(self) -> list[Failure]:
        """The failed cells by reason, the most frequent first; numbers and paths in it tell none apart."""
        groups: dict[str, list[Tracked]] = defaultdict(list)
        for cell in self.cells:
            if cell.status == "failed":
                groups[re.sub(r"\S*/\S*|'[^']*'|\d+(\.\d+)?(e[+-]?\d+)?", "*", cell.reason)].append(cell)
        ordered = sorted(groups.values(), key=lambda cells: -len(cells))
        return [Failure(cells[0].reason, tuple(cells)) for cells in ordered]

    @property
    def jobs(self) -> dict[str, int]:
        """The sweep's jobs by state; UNKNOWN where Slurm says nothing of one."""
        jobs = self.sweep.jobs if self.sweep else ()
        return dict(Counter(self.states.get(job.id, "UNKNOWN") for job in jobs).most_common())

    @property
    def unfinished_jobs(self) -> list[tuple[slurm.Job, str, int]]:
        """Jobs that ended, their state, and how many of their cells have no record."""
        if self.sweep is None or not self.states:
            return []
        open_: dict[tuple[tuple[str, ...], str, int], int] = Counter(
            (cell.words, cell.id.category, cell.id.seed) for cell in self.open
        )
        found = []
        for job in self.sweep.jobs:
            state = self.states.get(job.id, "UNKNOWN")
            if open_ and (state in history.ENDED or state == "UNKNOWN"):
                lost = sum(open_[key] for key in _cells_of(job.pack) if key in open_)
                if lost:
                    found.append((job, state, lost))
        return found


def _tracked(plan: Plan, results: Path) -> Iterator[Tracked]:
    fresh = [replace(fit, cells=[replace(cell, done=None) for cell in fit.cells]) for fit in plan.fits]
    for fit, seconds in zip(plan.fits, packs.seconds_of(fresh, results), strict=True):
        words = _naming(fit.words)
        share = None if seconds is None else seconds / len(fit.cells)
        for cell in fit.cells:
            path = cell.id.folder(results) / cell.fingerprint / "record.json"
            yield Tracked(cell.id, path, words, share)


def _naming(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if not word.startswith(LOCAL))


def _cells_of(pack: Path) -> list[tuple[tuple[str, ...], str, int]]:
    """Words, category and seed of each cell of a pack; none where it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(pack.read_text(encoding="utf-8"))
        return [
            (_naming(entry["words"]), str(category), int(seed))
            for entry in content["entries"]
            for category, seed in entry["cells"]
        ]
    return []


def status_of(words: Sequence[str], config_dirs: Sequence[Path] = ()) -> tuple[Status, list[Sweep]]:
    """What these words ask for; without any (but paths.results), the newest sweep. And the other open ones.

    Raises UsageError where there is no sweep, or its words cannot be planned any more.
    """
    others = [word for word in words if not word.startswith("paths.results=")]
    if others:
        plan, results = _plan(words, config_dirs)
        known = history.sweeps(results)
        wanted = sorted(words), {Path(folder).expanduser().resolve() for folder in config_dirs}
        sweep = next((one for one in known if (sorted(one.words), set(one.config_dirs)) == wanted), None)
    else:
        results = Path(words[-1].partition("=")[2] if words else "results").absolute()
        known = history.sweeps(results)
        if not known:
            raise UsageError(
                f"{results / history.FOLDER} knows of no sweep. Say which cells are meant, as in adbench run:"
                " adbench status method=patchcore dataset=mvtec"
            )
        sweep, words, config_dirs = known[0], known[0].words, known[0].config_dirs
        plan = plan_again(sweep, results)
    status = Status(results, sweep, plan, words, config_dirs)
    return status, _open([one for one in known if one is not sweep][:OTHERS], status.said)


def _plan(words: Sequence[str], config_dirs: Sequence[Path]) -> tuple[Plan, Path]:
    for folder in config_dirs:  # a user's method lives beside its YAML
        sys.path.insert(0, str(Path(folder).expanduser().resolve()))
    # What has failed is shown as that, also where the words ask to run it again.
    named = [word for word in words if not word.startswith("rerun=")]
    with records.no_collecting():
        chosen = config.choices([*named, "rerun=never"], config_dirs, multirun=True)
        return make_plan(chosen, complete=False), Path(chosen[0].config.paths.results)


def plan_again(sweep: Sweep, results: Path) -> Plan:
    """The plan of a sweep, made in the folder of its command, for the results where it was found."""
    if not sweep.folder.is_dir():
        asked = history.command(sweep.words).replace(" run ", " status ", 1)
        raise UsageError(
            f"{sweep.path.name} was begun in {sweep.folder}, which is not on this machine; name its words:"
            f" {asked}"
        )
    quoted = str(results.absolute()).replace("'", "\\'")
    try:
        with contextlib.chdir(sweep.folder):
            return _plan([*sweep.words, f"paths.results='{quoted}'"], sweep.config_dirs)[0]
    except AdbenchError as error:
        raise UsageError(f"{sweep.path.name} cannot be planned any more: {error}") from error


def _open(others: Sequence[Sweep], said: Sequence[Running]) -> list[Sweep]:
    """The sweeps of which something still runs or waits in a queue."""
    states = slurm.states([job.id for sweep in others for job in sweep.jobs])
    return [sweep for sweep in others if sweep.living(said, states)]


def as_json(status: Status, others: Sequence[Sweep]) -> dict[str, Any]:
    """All of it as plain data."""
    sweep = status.sweep

    def brief(one: Sweep) -> dict[str, Any]:
        return {
            "name": one.path.stem,
            "command": history.command(one.words, one.config_dirs),
            "launch": one.launch,
            "host": one.host,
            "pid": one.pid,
            "started": one.started.isoformat(),
        }

    return {
        "results": str(status.results),
        "sweep": brief(sweep) if sweep else None,
        "living": status.living,
        "cells": len(status.cells),
        **status.counts,
        "missing": status.missing,
        "cells_an_hour": status.rate,
        "seconds_left": status.seconds_left,
        "processes": [
            {
                "cells": [str(cell) for cell in cells],
                "stage": one.stage,
                "done": one.done,
                "total": one.total,
                "since": one.since,
                "host": one.host,
                "pid": one.pid,
                "device": one.device,
                "job": one.job,
            }
            for one, cells in status.working
        ],
        "failures": [
            {
                "reason": failure.reason,
                "count": len(failure.cells),
                "cells": [str(cell.id) for cell in failure.cells],
                "records": [str(cell.path) for cell in failure.cells],
            }
            for failure in status.failures
        ],
        "jobs": status.jobs,
        "unfinished_jobs": [
            {"id": job.id, "state": state, "cells": lost} for job, state, lost in status.unfinished_jobs
        ],
        "other_sweeps": [brief(one) for one in others],
        "next": next_steps(status),
    }


def next_steps(status: Status) -> list[str]:
    """What to do now; nothing while it goes on by itself."""
    same = history.command(status.words, status.config_dirs)
    plain = history.command([w for w in status.words if not w.startswith("rerun=")], status.config_dirs)
    missing = "runs all of it again" if "rerun=always" in status.words else "runs what is missing"
    steps = []
    if status.open and status.living is False:
        steps.append(f"the same command {missing}: {same}")
    elif status.open and status.living is None:
        steps.append(f"if nothing of it runs any more, the same command {missing}: {same}")
    elif status.unfinished_jobs:
        steps.append(f"when the other jobs have ended, the same command {missing}: {same}")
    if status.failed:
        when = "when this has ended, " if status.open and status.living else ""
        steps.append(f"{when}rerun=failed runs the failed cells again: {plain} rerun=failed")
    if not steps and not status.open:
        steps.append("every cell has a record: adbench report makes the tables")
    return steps

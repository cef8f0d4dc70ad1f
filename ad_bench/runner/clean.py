"""Left-overs of killed processes, and what is forgotten of old sweeps. Imports no torch.

Nothing of a living process is touched, and nothing of another machine that moved within a day. Records, image
stores and the checkpoints of trainings are no left-overs.
"""

from __future__ import annotations

import datetime
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from ad_bench import processes, records, running
from ad_bench.config import conf_dir
from ad_bench.datasets.building import PREFIX
from ad_bench.errors import AdbenchError
from ad_bench.processes import DAY, abandoned
from ad_bench.runner import history, slurm
from ad_bench.runner.history import Sweep
from ad_bench.runner.status import Status, plan_again

FORGOTTEN = datetime.timedelta(days=30)  # an unfinished sweep's file is kept for so long
# Temporary files of earlier versions, without a word of whose they are: `.table.csv.0a1b2c3d`.
OLD = re.compile(r"\..+\.[0-9a-f]{8}")
HALF_RECORD = "half-written record"
HALF_FILE = "half-written file"
HALF_STORE = "half-built image store"
HALF_CHECKPOINT = "half-written checkpoint"
DEAD = "note of a dead process"
SWEEP = "finished or forgotten sweep"
CHECKPOINT = "checkpoints of a training"


@dataclass(frozen=True)
class LeftOver:
    """A file or folder that nobody needs, and how many bytes it holds."""

    path: Path
    kind: str
    size: int


def default_folders() -> tuple[str, str]:
    """Results and cache where nobody says otherwise: those of conf/paths/default.yaml."""
    paths = OmegaConf.load(conf_dir() / "paths" / "default.yaml")
    return str(paths.results), str(paths.cache)


def left_overs(results: Path, cache: Path) -> list[LeftOver]:
    """All that `adbench clean` removes."""
    found = [(path, HALF_RECORD) for path in records.leftovers(results)]
    found += [(path, HALF_FILE) for path in _half_files(results)]
    found += [(path, DEAD) for path in _dead(results)]
    found += [(path, SWEEP) for path in _forgotten(results)]
    found += [(path, HALF_STORE) for path in _half_built(cache)]
    found += [(path, HALF_CHECKPOINT) for path in (cache / "checkpoints").glob("*/.tmp-*") if abandoned(path)]
    return [LeftOver(path, kind, size(path)) for path, kind in found]


def checkpoints(cache: Path) -> list[LeftOver]:
    """The folders of trainings that were stopped and can go on, and of those that run."""
    folders = sorted(path for path in (cache / "checkpoints").glob("[!.]*") if path.is_dir())
    return [LeftOver(path, CHECKPOINT, size(path)) for path in folders]


def _half_files(results: Path) -> Iterator[Path]:
    """Temporary files of whatever is replaced whole: tables, pages, packs. Below cells there are none."""
    for folder in (results, *_folders(results)):
        with suppress(OSError):
            for path in folder.glob(".*"):
                if (path.name.startswith(".tmp-") or OLD.fullmatch(path.name)) and abandoned(path):
                    yield path


def _folders(results: Path) -> Iterator[Path]:
    with suppress(OSError):
        for folder in results.glob("*/"):
            if folder.is_dir() and not folder.name.startswith(".") and folder.name != "cells":
                yield folder
                yield from (path for path in folder.rglob("*/") if path.is_dir())


def _dead(results: Path) -> Iterator[Path]:
    """Files of results/running: here those of the dead, of other machines those that are a day old."""
    said = running.read(results)
    for one in said:
        here = one.machine == processes.machine()
        if not processes.alive(one.pid) if here else one.silent > DAY:
            yield one.path
    yield from _torn(results / running.FOLDER, {one.path for one in said})


def _torn(folder: Path, whole: set[Path]) -> Iterator[Path]:
    """Files that a loss of power cut short."""
    yield from (path for path in folder.glob("*.json") if path not in whole and abandoned(path))


def _half_built(cache: Path) -> Iterator[Path]:
    for folder in (cache / "images", cache / "probes"):
        yield from (path for path in folder.glob(f"{PREFIX}*") if abandoned(path))
    # The embedded data set's own names say the process alone.
    yield from (path for path in cache.glob(".*-making-*") if abandoned(path))
    yield from (path for path in cache.glob(".*-damaged-*") if abandoned(path))


def _forgotten(results: Path) -> Iterator[Path]:
    """Files and folders of sweeps that are over and complete, or that began more than 30 days ago."""
    known = history.sweeps(results)
    yield from _torn(results / history.FOLDER, {sweep.path for sweep in known})
    for folder in (results / history.FOLDER).glob("*/"):  # killed while it queued jobs
        lonely = not folder.with_suffix(".json").exists()
        if lonely and folder.is_dir() and time.time() - processes.newest(folder) > FORGOTTEN.total_seconds():
            yield folder
    states, said = slurm.states([job.id for sweep in known for job in sweep.jobs]), running.read(results)
    complete: dict[tuple[object, ...], bool] = {}
    for sweep in known:
        living = sweep.living(said, states)
        if living or (living is None and time.time() - sweep.path.stat().st_mtime < DAY):
            continue
        if datetime.datetime.now(datetime.UTC) - sweep.started < FORGOTTEN:
            key = (sweep.words, sweep.config_dirs, sweep.folder)
            if key not in complete:
                complete[key] = _complete(sweep, results)
            if not complete[key]:
                continue
        if sweep.packs.is_dir():
            yield sweep.packs
        yield sweep.path


def _complete(sweep: Sweep, results: Path) -> bool:
    """Whether every cell of it has a record; False where its words cannot be planned any more."""
    with suppress(AdbenchError):
        return not Status(results, sweep, plan_again(sweep, results), sweep.words).open
    return False


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count nothing."""
    with suppress(OSError):
        if path.is_symlink():
            return 0
        if path.is_dir():
            return sum(size(inside) for inside in path.iterdir())
        return path.stat().st_size
    return 0


def remove(left: Sequence[LeftOver]) -> list[LeftOver]:
    """Remove them; returns those that could not be."""
    kept = []
    for one in left:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            with suppress(OSError):
                one.path.unlink(missing_ok=True)
        if one.path.is_symlink() or one.path.exists():
            kept.append(one)
    return kept


def clean(results: Path, cache: Path, dry_run: bool = False, with_checkpoints: bool = False) -> int:
    """Remove what is left over and say what; returns how many could not be removed."""
    found, trainings = left_overs(results, cache), checkpoints(cache)
    working = sum(not one.stale for one in running.read(results))
    if with_checkpoints and not working:
        found, trainings = [*found, *trainings], []
    kept = [] if dry_run else remove(found)
    for one in found:
        verb = "would remove" if dry_run else "cannot remove" if one in kept else "removed"
        print(f"{verb}  {one.path}  {one.kind}, {human(one.size)}")
    gone = [one for one in found if one not in kept]
    verb = "would be removed" if dry_run else "removed"
    total = human(sum(one.size for one in gone))
    print(f"{len(gone)} left-overs, {total}, {verb}" if found else "nothing is left over")
    if trainings:
        why = (
            f"{working} processes are at work (adbench status)"
            if with_checkpoints
            else "--checkpoints removes them too, and their trainings begin anew"
        )
        print(
            f"{len(trainings)} trainings have checkpoints to go on from in {cache / 'checkpoints'},"
            f" {human(sum(one.size for one in trainings))}; they stay: {why}"
        )
    return len(kept)


def human(size: float) -> str:
    """`512 B`, `3.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

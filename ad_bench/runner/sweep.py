"""Run a plan and say what happened: in this process, in workers beside it, or as jobs of a cluster."""

from __future__ import annotations

import datetime
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ad_bench.errors import ResultsError, UsageError, closest
from ad_bench.records import replace_text, scratch, sweep_leftovers
from ad_bench.runner import history, packs
from ad_bench.runner.plan import Fit, Plan
from ad_bench.runner.progress import Watch

if TYPE_CHECKING:
    from ad_bench.runner.workers import Slot

KINDS = ("inline", "local", "slurm")


@dataclass(frozen=True)
class Command:
    """The words of an `adbench run`, which a sweep is found again by."""

    words: tuple[str, ...] = ()
    config_dirs: tuple[Path, ...] = ()


def run_plan(plan: Plan, command: Command = Command()) -> int:
    """Run every cell that waits; returns how many cells of the plan have failed, now or before.

    Where jobs do that, those that had failed before: the jobs go on without this process.
    """
    console = Console(stderr=True)
    launch = launch_of(plan)
    for folder in _results(plan.fits):
        sweep_leftovers(folder)
    print_plan(plan, console, short=True)
    ended = Counter(str(cell.done["status"]) for cell in plan.cells if cell.done)
    fits = packs.together(packs.warm([fit for fit in plan.fits if fit.waiting]))
    if fits and launch is not None:
        _try_writing(_results(fits))
        if launch.kind == "slurm":
            _submit(fits, launch, command, console)
        else:
            _remember(fits, launch.kind, command)
            ended += _work(fits, launch, console)
    console.print(
        ", ".join(f"{count} {status}" for status, count in sorted(ended.items())) or "nothing is done yet"
        if fits
        else "nothing to do",
        highlight=False,
    )
    if ended["failed"]:
        console.print("rerun=failed runs the failed cells again; their record.json holds the traceback")
    return ended["failed"]


def _try_writing(folders: Iterable[Path]) -> None:
    """ResultsError where no record could be written, before hours are spent on one."""
    for folder in folders:
        try:
            with scratch(folder) as inside:
                (inside / "try").write_bytes(b"0")
        except OSError as error:
            raise ResultsError(
                f"cannot write in {folder}: {error.strerror or error}. Nothing was run; earlier records are"
                " intact; make room (or set paths.results) and run the same command again"
            ) from error


def run_pack(path: Path) -> int:
    """A job's work: what has no record of a pack; returns how many cells have failed now."""
    plan = packs.read_pack(path)
    fits = packs.together(packs.warm([fit for fit in plan.fits if fit.waiting]))
    if not fits:
        return 0
    launch = launch_of(plan)
    assert launch is not None
    _try_writing(_results(fits))
    return _in_workers(fits, launch, Console(stderr=True))["failed"]


def launch_of(plan: Plan) -> Any:
    """The launch settings of a plan; None where it has no cells. Raises UsageError."""
    if not plan.fits:
        return None
    configs = _configs(plan.fits)
    launch = configs[0].launch
    if any(config.launch != launch for config in configs):
        raise UsageError(
            "a sweep is launched in one way: give launch=... on the command line, not in a suite"
        )
    if launch.kind not in KINDS:
        raise UsageError(
            f"launch.kind={launch.kind}: expected {', '.join(KINDS)}.{closest(launch.kind, KINDS)}"
        )
    return launch


def _configs(fits: Iterable[Fit]) -> list[Any]:
    """The configurations of the fits, each once: many fits share one, and comparing them is slow."""
    return list({id(fit.config): fit.config for fit in fits}.values())


def _results(fits: Iterable[Fit]) -> set[Path]:
    return {Path(config.paths.results) for config in _configs(fits)}


def _work(fits: Sequence[Fit], launch: Any, console: Console) -> Counter[str]:
    if launch.kind == "local":
        return _in_workers(fits, launch, console)
    from ad_bench.runner import features
    from ad_bench.runner.cell import run_fit  # brings torch: not needed where all is done

    ended: Counter[str] = Counter()
    with Watch(sum(len(fit.waiting) for fit in fits), console) as watch:
        try:
            for fit in fits:
                ended.update(str(record["status"]) for record in run_fit(fit, watch))
        finally:
            features.end()
    return ended


def _places(fits: Sequence[Fit], launch: Any) -> list[Slot]:
    """Where the workers of these fits run. Raises UsageError."""
    from ad_bench.runner.workers import slots

    devices = {str(config.runtime.device) for config in _configs(fits)}
    if named := [device for device in devices if device.startswith("cuda:")]:
        raise UsageError(
            f"runtime.device={named[0]} names one device, and each worker has its own: say launch.devices="
            f"[{named[0].removeprefix('cuda:')}] instead"
        )
    return slots(launch, devices == {"cpu"}, len(fits))


def _in_workers(fits: Sequence[Fit], launch: Any, console: Console) -> Counter[str]:
    from ad_bench.runner.workers import Supervisor

    places = _places(fits, launch)
    seconds = packs.seconds_of(fits, Path(fits[0].config.paths.results))
    grace = float(fits[0].config.runtime.grace_seconds)
    with Watch(sum(len(fit.waiting) for fit in fits), console, lanes=len(places)) as watch:
        return Supervisor(fits, seconds, places, watch, int(launch.attempts), grace).run()


def _submit(fits: Sequence[Fit], launch: Any, command: Command, console: Console) -> None:
    """Packs to Slurm; returns when they are queued."""
    from ad_bench.runner import slurm

    results = Path(fits[0].config.paths.results)
    name = sweep_name()
    folder = results / history.FOLDER / name
    paths = []
    made = job_packs(fits, launch)
    for number, pack in enumerate(made):
        paths.append(folder / f"pack-{number:05}.json")
        packs.write_pack(paths[-1], pack, command.config_dirs)
    jobs: list[slurm.Job] = []
    try:
        jobs = slurm.submit(paths, launch, folder)
    except slurm.SubmitError as error:
        jobs = error.jobs
        raise
    finally:
        if jobs:  # queued: `adbench status` must know them, also where Slurm refused the rest
            known = [{"id": job.id, "pack": str(job.pack.relative_to(results))} for job in jobs]
            _remember(fits, "slurm", command, name, known)
    hours = sum(pack.seconds for pack in made) / 3600
    console.print(
        f"{len(jobs)} jobs queued for {sum(pack.cells for pack in made)} cells, about {hours:.1f} h of work; "
        "adbench status says how they do, and the same command queues what is missing then",
        highlight=False,
    )


def job_packs(fits: Sequence[Fit], launch: Any) -> list[packs.Pack]:
    """The packs of waiting fits that are jobs of a cluster."""
    seconds = packs.seconds_of(fits, Path(fits[0].config.paths.results))
    return packs.packed(fits, seconds, 60.0 * float(launch.pack_minutes), launch.max_jobs)


def sweep_name() -> str:
    """Sorts by time; two sweeps begun at once differ."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _remember(
    fits: Sequence[Fit], kind: str, command: Command, name: str = "", jobs: Sequence[dict[str, str]] = ()
) -> None:
    """Leave the command where `adbench status` finds it; on a full disk the records say why it is not."""
    from ad_bench import processes

    content = {
        "schema": 1,
        "words": list(command.words),
        "config_dirs": [str(Path(folder).expanduser().resolve()) for folder in command.config_dirs],
        "launch": kind,
        "machine": processes.machine(),
        "pid": os.getpid(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cells": sum(len(fit.waiting) for fit in fits),
        "jobs": list(jobs),
        "folder": str(Path.cwd()),
    }
    path = Path(fits[0].config.paths.results) / history.FOLDER / f"{name or sweep_name()}.json"
    try:
        replace_text(path, json.dumps(content, indent=1) + "\n")
    except OSError:
        if jobs:
            raise


def print_plan(plan: Plan, console: Console | None = None, short: bool = False) -> None:
    """What there is to do: every waiting cell with what it takes, or only how many."""
    console = console or Console()
    waiting = [cell for cell in plan.cells if cell.done is None]
    kept = Counter(str(cell.done["status"]) for cell in plan.cells if cell.done)
    if not short:
        lines = "\n".join(f"would run  {cell.id}  {cell.fingerprint}" for cell in waiting)
        console.out(lines, highlight=False)  # ten thousand of them in one go
    have = ", ".join(f"{count} already {status}" for status, count in sorted(kept.items()))
    console.print(
        f"{len(plan.cells)} cells: {len(waiting)} to run{', ' + have if have else ''}", highlight=False
    )
    if plan.missing:
        console.print(f"not on this disk, shown as missing: {', '.join(plan.missing)}", highlight=False)
    launch = launch_of(plan)
    if waiting and launch is not None and not short:
        for line in _estimate(plan, launch):
            console.print(line, highlight=False, soft_wrap=True)


def _estimate(plan: Plan, launch: Any) -> list[str]:
    """Hours by earlier records, and how the cells are packed."""
    fits = packs.warm([fit for fit in plan.fits if fit.waiting])
    results = Path(fits[0].config.paths.results)
    seconds = packs.seconds_of(fits, results)
    total = sum(packs.UNKNOWN if one is None else one for one in seconds)
    rates = packs.rates_of(fits, results)
    unknown, other = rates.count(None), sum(rate is not None and not rate.own for rate in rates)
    guessed = f"; {other} of {len(fits)} fits by records of other settings of their method" if other else ""
    if unknown:
        guessed += (
            f"; {unknown} of {len(fits)} fits have no record of their method yet and count "
            f"{packs.UNKNOWN:.0f} s each"
        )
    lines = [f"about {_hours(total)} of work by earlier records{guessed}"]
    if launch.kind == "local":
        places = _places(fits, launch)
        where = [place.device for place in places]
        on = f"CUDA devices {', '.join(sorted({str(w) for w in where}))}" if where[0] else "the CPU"
        lines.append(
            f"{len(places)} workers with {places[0].threads} threads each on {on}:"
            f" about {_hours(total / len(places))}"
        )
    if launch.kind == "slurm":
        made = job_packs(fits, launch)
        lines.append(f"{len(made)} job{'' if len(made) == 1 else 's'}:")
        lines += [
            f"  {number:5}  {pack.cells:5} cells  {_hours(pack.seconds)}" for number, pack in enumerate(made)
        ]
    return lines


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

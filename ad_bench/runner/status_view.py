"""How a sweep stands, for people: once, or drawn again every few seconds until all of it is done."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ad_bench.records import CellId
from ad_bench.runner import history
from ad_bench.runner.history import Sweep
from ad_bench.runner.status import Status, next_steps
from ad_bench.running import Running

EVERY = 5.0  # s between two looks
LISTED = 20  # processes, kinds of failures, jobs
BAR = 40  # characters
COLOURS = {"done": "green", "failed": "red", "skipped": "yellow", "running": "cyan", "waiting": "dim"}


def print_status(status: Status, others: Sequence[Sweep], console: Console) -> None:
    """All of it, on lines as long as they need."""
    for line in _lines(status, others):
        console.print(line, soft_wrap=True)


def watch(status: Status, others: Sequence[Sweep], console: Console) -> None:
    """Look every 5 s until every cell has a record; where no terminal is, a line for each change."""
    said = ""
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while status.open:
                    live.update(Group(*_lines(status, others)), refresh=True)
                    time.sleep(EVERY)
                    status.look()
        while status.open:
            text = _summary(status).plain
            if text != said:
                console.print(f"{datetime.datetime.now():%H:%M:%S} {text}", highlight=False, soft_wrap=True)
                said = text
            time.sleep(EVERY)
            status.look()
    finally:  # Ctrl-C too
        print_status(status, others, console)


def _lines(status: Status, others: Sequence[Sweep]) -> Iterator[Text]:
    if status.sweep:
        yield Text(history.command(status.words, status.config_dirs), style="bold")
        yield _origin(status, status.sweep)
    yield _bar(status.counts, len(status.cells))
    yield _summary(status)
    if status.missing:
        yield Text(f"not on this disk, shown as missing: {', '.join(status.missing)}")
    yield from _processes(status.working, status.now)
    yield from _jobs(status)
    yield from _failures(status)
    for sweep in others:
        began = f"{sweep.started.astimezone():%Y-%m-%d %H:%M}"
        yield Text(
            f"also open, since {began} on {sweep.host}: {history.command(sweep.words, sweep.config_dirs)}"
        )
    for step in next_steps(status):
        yield Text(step, style="bold")


def _origin(status: Status, sweep: Sweep) -> Text:
    how = {
        True: "it goes on",
        False: "it has ended" if not status.open else "nothing of it runs any more",
        None: f"no sign of life from {'its jobs' if sweep.jobs else sweep.host}",
    }[status.living if status.open else False]
    jobs = f", {len(sweep.jobs)} jobs" if sweep.jobs else ""
    return Text(
        f"begun {sweep.started.astimezone():%Y-%m-%d %H:%M} on {sweep.host}"
        f" ({duration((status.now - sweep.started).total_seconds())} ago), launch={sweep.launch}{jobs}: {how}"
    )


def _bar(counts: dict[str, int], total: int) -> Text:
    """Each state's share of the line."""
    line, before = Text(), 0
    for state, count in counts.items():
        until = before + count
        width = round(BAR * until / max(total, 1)) - round(BAR * before / max(total, 1))
        line.append(("." if state == "waiting" else "#") * width, style=COLOURS[state])
        before = until
    return line


def _summary(status: Status) -> Text:
    """`812 done, 3 failed, 16 running, 1169 waiting of 2000; 396 cells an hour, about 2 h 57 min left`."""
    parts = [
        (f"{count:,} {state}", COLOURS[state] if count else "")
        for state, count in status.counts.items()
        if count
    ]
    line = Text(", ").join(Text(text, style=style) for text, style in parts) if parts else Text("no cells")
    line.append(f" of {len(status.cells):,} cells")
    if status.rate:
        line.append(f"; {_number(status.rate)} cells an hour")
    if status.seconds_left is not None:
        line.append(f"{',' if status.rate else ';'} about {duration(status.seconds_left)} left")
    return line


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _processes(working: Sequence[tuple[Running, list[CellId]]], now: datetime.datetime) -> Iterator[Text]:
    rows = []
    for one, cells in working[:LISTED]:
        what = str(cells[0]) + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")
        total = "" if one.total is None else f"/{one.total}"
        stage = f"{one.stage} {one.done}{total}" if one.done or one.total else one.stage
        where = f"{one.host} {one.device}" + (f" job {one.job}" if one.job else f" pid {one.pid}")
        since = (now - datetime.datetime.fromisoformat(one.since)).total_seconds()
        rows.append((what, stage, where, f"since {duration(since)}"))
    if rows:
        yield Text("running", style="bold")
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            yield Text(
                "  " + "  ".join([*(part.ljust(w) for part, w in zip(row, widths, strict=False)), row[3]])
            )
    if len(working) > LISTED:
        yield Text(f"  and {len(working) - LISTED} more processes")


def _jobs(status: Status) -> Iterator[Text]:
    if not status.jobs:
        return
    if status.states:
        yield Text("jobs: " + ", ".join(f"{count:,} {state}" for state, count in status.jobs.items()))
    else:
        yield Text("jobs: Slurm says nothing of them here")
    left = status.unfinished_jobs
    if left:
        cells = sum(count for *_, count in left)
        yield Text(
            f"{len(left):,} jobs ended and left {cells:,} cells without a record; their logs:", style="red"
        )
        for job, state, count in left[:LISTED]:
            logs = _short(job.pack.parent)
            yield Text(f"  {job.id} {state}: {count:,} cells  {logs}/{job.id}*")
    if len(left) > LISTED:
        yield Text(f"  and {len(left) - LISTED} more")


def _failures(status: Status) -> Iterator[Text]:
    failures = status.failures
    if failures:
        yield Text("failed", style="bold red")
    for failure in failures[:LISTED]:
        yield Text(f"  {len(failure.cells):,} x {failure.reason}")
        for cell in failure.cells[:2]:
            yield Text(f"      {cell.id}: {_short(cell.path)}")
    if failures:
        yield Text("  the records hold the tracebacks")
    if len(failures) > LISTED:
        yield Text(f"  and {len(failures) - LISTED} more reasons")


def _short(path: Path) -> Path:
    """Below the folder that the command is called in where it is."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"

"""Run a plan, cell by cell, and say what happened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from ad_bench.records import sweep_leftovers
from ad_bench.runner.plan import Plan
from ad_bench.runner.progress import Watch


def run_plan(plan: Plan) -> int:
    """Run every cell that waits; returns how many cells of the plan have failed, now or before."""
    console = Console(stderr=True)
    waiting = sum(len(fit.waiting) for fit in plan.fits)
    print_plan(plan, console, short=True)
    for folder in {Path(fit.config.paths.results) for fit in plan.fits}:
        sweep_leftovers(folder)
    ended = Counter(str(cell.done["status"]) for cell in plan.cells if cell.done)
    if waiting:
        from ad_bench.runner.cell import run_fit  # brings torch: not needed where all is done

        with Watch(waiting, console) as watch:
            for fit in plan.fits:
                if fit.waiting:
                    ended.update(str(record["status"]) for record in run_fit(fit, watch))
    console.print(
        ", ".join(f"{count} {status}" for status, count in sorted(ended.items())) or "nothing to do",
        highlight=False,
    )
    if ended["failed"]:
        console.print("rerun=failed runs the failed cells again; their record.json holds the traceback")
    return ended["failed"]


def print_plan(plan: Plan, console: Console | None = None, short: bool = False) -> None:
    """What there is to do: every waiting cell, or only how many."""
    console = console or Console()
    waiting = [cell for cell in plan.cells if cell.done is None]
    kept = Counter(str(cell.done["status"]) for cell in plan.cells if cell.done)
    if not short:
        for cell in waiting:
            console.print(
                f"would run  {cell.id}  {cell.fingerprint}", highlight=False, markup=False, soft_wrap=True
            )
    have = ", ".join(f"{count} already {status}" for status, count in sorted(kept.items()))
    console.print(
        f"{len(plan.cells)} cells: {len(waiting)} to run{', ' + have if have else ''}", highlight=False
    )
    if plan.missing:
        console.print(f"not on this disk, shown as missing: {', '.join(plan.missing)}", highlight=False)

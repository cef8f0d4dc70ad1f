"""What a sweep costs beside its work: planning 10,000 cells, 1,000 small cells, one backbone kept or not.

    python scripts/bench_sweep.py [--planned 34] [--cells 1000] [--repeats 3] [--scratch DIR] [--out FILE.md]

Seconds of the processor throughout, each in processes of their own with one thread: what else a machine does
then matters less. Made images in MVTec AD's layout; all goes to a temporary folder below `--scratch`.
For Linux, where the processes of a sweep are counted through /proc.
"""

import argparse
import datetime
import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CATEGORIES = (
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
    *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
)
PLANNING, BEYOND = 5.0, 20.0  # targets: s for 10,000 cells; ms a cell beyond its work
SMALL = ("method=random,mean_image", "dataset=mvtec", "category=bottle", "runtime.device=cpu")
BARE = ("metric.intervals.replicates=0", "runtime.latency_repeats=0", "save.pictures=false")
WORK = ("fit_seconds", "predict_seconds", "evaluate_seconds")


# ---- what is measured on ---------------------------------------------------------------------------------


def make(root: Path, train: int, normal: int, defects: int, side: int, categories: tuple[str, ...]) -> None:
    """Files in MVTec's layout: noise, and a bright square as the defect; two kinds where there are many."""
    import numpy as np

    rng = np.random.default_rng(0)
    kinds = ("cut", "hole")[: 1 + (defects > 10)]
    pictures = [rng.integers(0, 200, (side, side, 3), dtype=np.uint8) for _ in range(8)]
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 255
    marked = [np.where(mask[..., None] > 0, 250, one).astype(np.uint8) for one in pictures]
    normals, bad, (truth,) = ([_png(one) for one in some] for some in (pictures, marked, [mask]))
    for category in categories:
        parts = [("train/good", train, normals), ("test/good", normal, normals)]
        for kind in kinds:
            parts.append((f"test/{kind}", defects // len(kinds), bad))
            parts.append((f"ground_truth/{kind}", defects // len(kinds), [truth]))
        for folder, count, files in parts:
            (root / category / folder).mkdir(parents=True)
            end = "_mask" if folder.startswith("ground_truth") else ""
            for number in range(count):
                (root / category / folder / f"{number:03}{end}.png").write_bytes(files[number % len(files)])


def _png(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# ---- in processes of their own ---------------------------------------------------------------------------


def plan_child(words: list[str], fill: bool) -> dict[str, Any]:
    """CPU seconds to import, to compose and to plan; `fill` then gives every cell a record."""
    from ad_bench import config
    from ad_bench.runner.plan import make_plan

    imported = time.process_time()
    choices = config.choices(words, multirun=True)
    composed = time.process_time()
    plan = make_plan(choices)
    planned = time.process_time()
    assert "torch" not in sys.modules
    if fill:
        _fill(plan.cells, Path(choices[0].config.paths.results))
    return {
        "import": imported,
        "compose": composed - imported,
        "plan": planned - composed,
        "all": planned,
        "choices": len(choices),
        "cells": len(plan.cells),
        "done": sum(cell.done is not None for cell in plan.cells),
    }


def _fill(cells: list[Any], results: Path) -> None:
    from bench_report import record

    for cell in cells:
        folder = cell.id.folder(results) / cell.fingerprint
        folder.mkdir(parents=True)
        made = record(random.Random(0), "made", "made", "method_00", cell.id.seed, cell.fingerprint, 0.9)
        (folder / "record.json").write_text(json.dumps(made, indent=1), encoding="utf-8")


def cells_child(words: list[str], kept: bool) -> dict[str, Any]:
    """CPU ms a cell, in this process: all, its work, measuring, and the rest."""
    from rich.console import Console

    from ad_bench import config
    from ad_bench.runner import cell, outcome, timing
    from ad_bench.runner import kept as keeping
    from ad_bench.runner.plan import make_plan
    from ad_bench.runner.progress import Watch

    class Clock:
        perf_counter = staticmethod(time.process_time)

    timing.time = Clock  # type: ignore[assignment]  # records then say seconds of the processor
    spent = {"measuring": 0.0, "building": 0.0}

    def timed(module: Any, name: str, what: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **more: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **more)
            finally:
                spent[what] += time.process_time() - start

        setattr(module, name, call)

    timed(cell, "image_latency", "measuring")
    timed(outcome, "write_pictures", "measuring")
    timed(cell, "build", "building")
    if not kept:
        keeping.KEPT = 0
    fits = make_plan(config.choices(words, multirun=True)).fits
    written: list[Any] = []
    start = 0.0
    with Watch(len(fits), Console(file=io.StringIO())) as watch:
        for number, fit in enumerate(fits):
            if number == 2:  # the first ones import what a method needs, and fill the store
                spent.update(dict.fromkeys(spent, 0.0))
                written.clear()
                start = time.process_time()
            written += cell.run_fit(fit, watch)
    total = time.process_time() - start
    if bad := [one for one in written if one["status"] != "done"]:
        raise SystemExit(f"{len(bad)} cells are not done, first: {bad[0]['reason'] or bad[0]['error']}")
    work = sum(one["timing"][key] for one in written for key in WORK)
    parts = {"all": total, "work": work, **spent, "beyond": total - work - spent["measuring"]}
    return {key: 1000 * value / len(written) for key, value in parts.items()} | {"cells": len(written)}


def child(*arguments: str) -> dict[str, Any]:
    """What a process of its own says."""
    words = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(words, env=_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command_seconds(*words: str) -> float:
    """CPU seconds of an `adbench run` and of all the processes that it starts."""
    command = [sys.executable, "-m", "ad_bench", "run", *words]
    process = subprocess.Popen(command, env=_environment(), stderr=subprocess.PIPE, start_new_session=True)
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    seen: dict[int, int] = {}
    said = b""
    while process.poll() is None:
        seen.update(_ticks(process.pid))
        said += process.stderr.read() or b""
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said.decode()[-2000:]}")
    return sum(seen.values()) / os.sysconf("SC_CLK_TCK")


def _ticks(session: int) -> dict[int, int]:
    """Clock ticks that every process of a session has used so far."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            found[int(path.parent.name)] = int(fields[11]) + int(fields[12])
    return found


# ---- the tables ------------------------------------------------------------------------------------------


def planning(scratch: Path, seeds: int, repeats: int) -> list[str]:
    data, results = scratch / "planned", scratch / "planned-results"
    make(data / "mvtec", 200, 30, 50, 8, CATEGORIES)
    words = ["method=glob(*)", "dataset=mvtec", f"seed=range(0,{seeds})", "backbone.weights=random"]
    words += [f"paths.data={data}", f"paths.results={results}"]

    def best(fill: str = "look") -> dict[str, Any]:
        return min((child("plan", fill, *words) for _ in range(repeats)), key=lambda one: one["all"])

    nothing = best()
    child("plan", "fill", *words)
    done = best()
    rows = [
        f"| {one['cells']:,} cells, {one['done']:,} done | {one['import']:.2f} | {one['compose']:.2f} "
        f"| {one['plan']:.2f} | {one['all']:.2f} | {'yes' if one['all'] < PLANNING else 'no'} |"
        for one in (nothing, done)
    ]
    return [
        f"## Planning: {nothing['choices']} methods, 15 categories of 280 images, {seeds} seeds",
        "",
        f"Start to finished plan, s; the best of {repeats}. Hydra composes each method once, the planner",
        "expands categories and seeds, hashes what each fit depends on, looks for records. No torch.",
        "",
        f"| | import | compose | plan | all | under {PLANNING:g} s |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def cells(scratch: Path, count: int) -> list[str]:
    data = scratch / "small"
    make(data / "mvtec", 6, 3, 3, 48, ("bottle",))
    shared = [*SMALL, f"paths.data={data}", f"paths.cache={scratch / 'cache'}"]

    def words(name: str, number: int, *more: str) -> list[str]:
        return [*shared, f"seed=range(0,{number // 2})", f"paths.results={scratch / name}", *more]

    usual = child("cells", "kept", *words("usual", max(40, count // 5)))
    bare = child("cells", "kept", *words("bare", count, *BARE))
    local = ["launch=local", "launch.workers_per_device=2", "launch.threads=1"]
    few, many = max(20, count // 5), count
    seconds = [
        command_seconds("-m", *words(f"local{number}", number, *BARE, *local)) for number in (few, many)
    ]
    all_local = 1000 * (seconds[1] - seconds[0]) / (many - few)
    beyond = all_local - bare["work"] - bare["measuring"]
    rows = [
        f"| inline, usual settings | {usual['cells']:,} | {usual['all']:.1f} | {usual['work']:.1f} "
        f"| {usual['measuring']:.1f} | **{usual['beyond']:.1f}** |",
        f"| inline, bare | {bare['cells']:,} | {bare['all']:.1f} | {bare['work']:.1f} "
        f"| {bare['measuring']:.1f} | **{bare['beyond']:.1f}** |",
        f"| launch=local, 2 workers, bare | {many:,} | {all_local:.1f} | {bare['work']:.1f} "
        f"| {bare['measuring']:.1f} | **{beyond:.1f}** |",
    ]
    return [
        "## Small cells: random and mean_image, 6 training and 6 test images of 48 pixels",
        "",
        "Processor ms a cell. Work: fit, predict, evaluate (FLOPs too). Measuring: latency and pictures, as",
        "far as the settings want them. Bare: without them and the bootstrap. launch=local: all processes",
        f"of the command, the difference between {many:,} and {few:,} cells, less the work of the row above.",
        f"Target: beyond work and measuring under {BEYOND:g} ms.",
        "",
        "| | cells | all | work | measuring | beyond |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def backbones(scratch: Path, count: int) -> list[str]:
    data = scratch / "small"
    rows = []
    for name in ("resnet18", "wide_resnet50_2"):
        found = {}
        for how in ("anew", "kept"):
            words = ["method=patchcore", f"backbone={name}", "backbone.weights=random", *SMALL[1:], *BARE]
            words += ["method.input={size: 64}", f"seed=range(0,{count})", f"paths.data={data}"]
            words += [f"paths.cache={scratch / 'cache'}", f"paths.results={scratch / name / how}"]
            found[how] = child("cells", how, *words)
        for how, one in found.items():
            rows.append(
                f"| {name} | {how} | {one['cells']} | {one['all']:.0f} | {one['building']:.0f} "
                f"| {one['beyond']:.0f} |"
            )
    return [
        "## One backbone, kept between cells or built anew: patchcore at 64 pixels",
        "",
        "Processor ms a cell. Random weights: where it is built anew, reading a file would be added.",
        "",
        "| backbone | | cells | all | building the method | beyond work and measuring |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--planned", type=int, default=34, help="seeds of the planned sweep")
    parser.add_argument("--cells", type=int, default=1000, help="small cells")
    parser.add_argument("--repeats", type=int, default=3, help="how often a plan is made")
    parser.add_argument("--scratch", type=Path, help="where all is made for the time being")
    parser.add_argument("--out", type=Path, help="also write the tables into this Markdown file")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, how, *words = options.child
        found = plan_child(words, how == "fill") if what == "plan" else cells_child(words, how == "kept")
        print(json.dumps(found))
        return
    from importlib.metadata import version

    from bench_metrics import cpu_name, publish

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench_sweep_", dir=options.scratch) as name:
        scratch = Path(name)
        tables = [
            *planning(scratch, options.planned, options.repeats),
            *cells(scratch, options.cells),
            *backbones(scratch, max(6, options.cells // 50)),
        ]
    lines = [
        "# What a sweep costs beside its work",
        "",
        "Written by `scripts/bench_sweep.py` in one run. Seconds of the processor, one thread.",
        f"Load when it began, of what else the machine did: {load:.1f} on {os.cpu_count()} cores; a busy",
        "second thread of a core makes processor seconds longer too.",
        f"{cpu_name()}, Python {platform.python_version()}, torch {version('torch')}, "
        f"Hydra {version('hydra-core')}, {datetime.date.today()}.",
        "",
        *tables,
    ]
    publish(lines, options.out)


if __name__ == "__main__":
    main()

"""Ten cells of frozen features in one sweep, against the dearest of them alone: results/bench/ten.md.

    ADBENCH_WEIGHTS=DIR python scripts/bench_ten.py --data DIR [--train 60] [--test 200] [--repeats 1]
        [--threads 2] [--scratch DIR] [--out results/bench/ten.md]

Real `adbench run` commands on the magnetic tiles (DIR/mtd) with ImageNet's ResNet-18, from start to exit,
each with a results folder of its own, all with one prepared store. Results are compared to the last digit.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench_metrics import cpu_name, publish  # isort: skip  # sets one thread before NumPy is loaded

WANTED = 3.0  # times the dearest cell alone
# None trains a network; settings that a user would compare.
CELLS = (
    ("patchcore",),
    ("patchcore", "method.model.coreset_ratio=0.01"),
    ("patchcore", "method.model.reweight=9"),
    ("patchcore", "method.model.neighbors=3"),
    ("softpatch",),
    ("padim",),
    ("padim", "method.model.dimensions=50"),
    ("padim", "method.model.dimension_seed=0"),
    ("padim", "method.model.eps=0.1"),
    ("spade",),
)
INPUTS = (
    "bilinear",
    "lanczos",
)  # PatchCore and SoftPatch read images by the one, PaDiM and SPADE by the other


class Command(NamedTuple):
    """What an `adbench run` took and left."""

    seconds: float
    peak: float  # bytes
    records: dict[tuple[str, str], dict[str, Any]]  # by method and variant
    samples: dict[tuple[str, str], list[list[str]]]


def run(results: Path, words: list[str], threads: int) -> Command:
    program = [sys.executable, "-m", "ad_bench", "run", *words, f"paths.results={results}"]
    pools = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    start = time.perf_counter()
    process = subprocess.Popen(program, env=os.environ | pools, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(program)}\n{said}")
    records, samples = {}, {}
    for path in results.glob("cells/*/*/*/*/*/record.json"):
        record = json.loads(path.read_text())
        name = record["method"], record["variant"]
        records[name] = record
        with (path.parent / "samples.csv").open() as handle:
            samples[name] = list(csv.reader(handle))
    return Command(seconds, 1024.0 * used.ru_maxrss, records, samples)


def suite(cells: tuple[tuple[str, ...], ...]) -> str:
    runs = [{"method": [method], "dataset": ["mtd"], "overrides": words} for method, *words in cells]
    return json.dumps({"runs": runs})  # which is YAML too


def same(one: Command, other: Command) -> bool:
    """Whether all cells of `one` have the same scores and metrics there, to the last digit."""
    return all(
        record["metrics"] == other.records[name]["metrics"] and one.samples[name] == other.samples[name]
        for name, record in one.records.items()
    )


def best(commands: list[Command]) -> Command:
    return min(commands, key=lambda command: command.seconds)


def row(cell: tuple[str, ...], alone: Command, sweep: Command) -> str:
    ((name, record),) = alone.records.items()
    timing, shared = record["timing"], sweep.records[name]["timing"]
    words = ", ".join(word.removeprefix("method.model.") for word in cell[1:])
    own = " | ".join(f"{timing[f'{part}_seconds']:.1f}" for part in ("fit", "predict", "evaluate"))
    return (
        f"| {cell[0]}{f' ({words})' if words else ''} | {alone.seconds:.1f} | {own} | "
        f"{shared['fit_seconds']:.1f} | {shared['predict_seconds']:.1f} | "
        f"{100 * shared.get('features_reused', 0):.0f} % | {record['metrics']['image']['image_auroc']:.4f} |"
    )


def measure(options: argparse.Namespace, scratch: Path) -> list[str]:
    common = [
        "backbone=resnet18",
        "protocol=full",
        "runtime.device=cpu",
        "metric.intervals.replicates=0",
        f"paths.data={options.data.resolve()}",
        f"paths.cache={scratch / 'cache'}",
        f"runtime.max_train={options.train}",
        f"runtime.max_test={options.test}",
    ]
    for kind in INPUTS:
        words = ["method=random", "dataset=mtd", f"dataset.input={{size: [256, 256], interpolation: {kind}}}"]
        run(
            scratch / f"prepared-{kind}",
            [*words, *(word for word in common if "backbone" not in word)],
            options.threads,
        )
    folder = scratch / "config" / "suite"
    folder.mkdir(parents=True)
    (folder / "ten.yaml").write_text(suite(CELLS))
    many = ["suite=ten", "--config-dir", str(folder.parent), *common]
    sweeps: dict[int, list[Command]] = {2: [], 0: []}
    alone: list[list[Command]] = [[] for _ in CELLS]
    for turn in range(options.repeats):
        for gigabytes, found in sweeps.items():
            words = [*many, f"runtime.feature_memory_gb={gigabytes}"]
            found.append(run(scratch / f"sweep-{gigabytes}-{turn}", words, options.threads))
        for number, (method, *settings) in enumerate(CELLS):
            words = [f"method={method}", "dataset=mtd", *settings, *common]
            alone[number].append(run(scratch / f"alone-{number}-{turn}", words, options.threads))
    on, off = best(sweeps[2]), best(sweeps[0])
    each = [best(found) for found in alone]
    dearest = max(command.seconds for command in each)
    total = sum(command.seconds for command in each)
    ratio = on.seconds / dearest
    equal = same(on, off) and all(same(command, on) for command in each)
    rows = zip(CELLS, each, strict=True)
    counts = next(iter(each[0].records.values()))["counts"]
    tested = counts["test_normal"] + counts["test_anomalous"]
    return [
        f"{counts['train']} training and {tested} test images of 256x256, {options.threads} CPU threads.",
        f"From start to exit of the commands; store prepared, no bootstrap. The best of {options.repeats}.",
        "",
        "| | s | times the dearest alone | peak MB |",
        "|---|---|---|---|",
        f"| ten cells in one sweep | {on.seconds:.1f} | **{ratio:.2f}** (wanted: {WANTED:.0f}) | "
        f"{on.peak / 1e6:.0f} |",
        f"| the same, runtime.feature_memory_gb=0 | {off.seconds:.1f} | {off.seconds / dearest:.2f} | "
        f"{off.peak / 1e6:.0f} |",
        f"| the dearest alone | {dearest:.1f} | 1 | {max(command.peak for command in each) / 1e6:.0f} |",
        f"| the ten as ten commands | {total:.1f} | {total / dearest:.2f} | |",
        "",
        f"Scores and metrics equal to the last digit in all three: {'yes' if equal else 'NO'}.",
        "",
        "| cell | alone, s | fit | predict | evaluate | in the sweep: fit | predict | reused | image AUROC |",
        "|---|---|---|---|---|---|---|---|---|",
        *(row(cell, command, on) for cell, command in rows),
        "",
        "`alone`: the whole command; the rest of it is start-up, the latency of one image, its operations.",
        "In the sweep `fit` and `predict` count reused features as if they had been computed. `reused`:",
        f"share of the batches. Images are resized in two ways ({' and '.join(INPUTS)}), so features are",
        "computed twice.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds mtd/")
    parser.add_argument("--train", type=int, default=60, help="training images at most")
    parser.add_argument("--test", type=int, default=200, help="test images at most")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each command")
    parser.add_argument("--scratch", type=Path, help="where results and stores go for the time being")
    parser.add_argument("--out", type=Path, help="also write the page into this Markdown file")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench_ten_", dir=options.scratch) as name:
        lines = measure(options, Path(name))
    head = [
        "# Ten cells that share features",
        "",
        "Written by `scripts/bench_ten.py --data DIR --out results/bench/ten.md` in one run, wall clock.",
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, {datetime.date.today()};"
        f" load when it began, of what else the machine did: {load:.1f}.",
        "",
    ]
    publish([*head, *lines], options.out)


if __name__ == "__main__":
    main()

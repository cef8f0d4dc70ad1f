"""What runtime.precision does to metrics and speed, by real runs; minutes where half precision is emulated.

    python scripts/bench_precision.py --data DIR [--device cpu] [--out FILE.md] [-- more words of adbench run]

DIR holds mvtec/bottle. Each precision is a sweep of its own over the same cells, with a store that is
prepared; the words after -- are added to each, such as backbone=wide_resnet50_2 on a GPU. A difference in
speed says something only where the machine computes in that precision by itself.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench_metrics import cpu_name, publish  # isort: skip
import torch

from ad_bench.records import Record, read_all

METHODS = ("patchcore", "padim")
SHOWN = (
    *(("image", "image_auroc"), ("paper", "pixel_auroc")),
    *(("paper", "pixel_aupr"), ("paper", "pixel_aupro")),
)
PAGE = """\
# What the precision of the backbone does

Written by `scripts/bench_precision.py`: real runs on MVTec AD's bottle (209 training, 83 test images) with
`{words}`, seed 0. Metrics in points: the value in float32, and the differences to it; those of
pixels in the geometry of the paper. {machine}, Python {python}, torch {torch}, {today}.

| method | precision | images/s | fit s | image AUROC | pixel AUROC | pixel AUPR | pixel AUPRO |
|---|---|---|---|---|---|---|---|
"""


def run(words: Sequence[str], precision: str, cache: Path, results: Path) -> dict[str, Record]:
    """The records of METHODS in one precision, by method."""
    command = [
        *(sys.executable, "-m", "ad_bench", "run", "-m", f"method={','.join(METHODS)}", *words),
        *(f"runtime.precision={precision}", "metric.intervals.replicates=0", "runtime.feature_memory_gb=0"),
        *(f"paths.cache={cache}", f"paths.results={results}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return {record["method"]: record for record in read_all(results)[0]}


def rows(found: dict[str, dict[str, Record]]) -> list[str]:
    """A line for each method and precision; metrics as differences to float32, in points."""
    lines = []
    for method in METHODS:
        plain = found["float32"][method]
        for precision, records in found.items():
            record = records[method]
            timing = record["timing"]
            cells = [method, precision, f"{timing['images_per_second']:.1f}", f"{timing['fit_seconds']:.1f}"]
            for where, name in SHOWN:
                value, before = (100 * one["metrics"][where][name] for one in (record, plain))
                cells.append(f"{value:.2f}" if record is plain else f"{value - before:+.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    cuda = given.device.startswith("cuda")
    words = [f"paths.data={given.data.resolve()}", "dataset=mvtec", "category=bottle"]
    words += [f"runtime.device={given.device}", *(given.words or ["backbone=resnet18"])]
    precisions = ["float32", *(["tf32"] if cuda else []), "bfloat16", "float16"]
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        run([*words, "runtime.max_train=8"], "float32", cache, Path(scratch) / "warm")
        found = {p: run(words, p, cache, Path(scratch) / p) for p in precisions}
    machine = torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {torch.get_num_threads()} threads"
    shown = " ".join(given.words or ["backbone=resnet18"])
    publish([*PAGE.format(words=shown, machine=machine, **versions()).splitlines(), *rows(found)], given.out)


def versions() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "today": datetime.date.today(),
    }


if __name__ == "__main__":
    main()

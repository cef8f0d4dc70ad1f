"""What a report of many records takes: seconds, memory, the size of the page, its first interaction.

    python scripts/bench_report.py [--records 10000] [--samples 100] [--no-chromium]

Records are made up and written to a temporary folder as `adbench run` writes them, with samples.csv and
config.yaml beside them (`--samples 0`: records alone). `adbench report` runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS, CATEGORIES, DATASETS = 40, 50, 4
IMAGE = ("image_auroc", "image_aupr", "image_f1max")
PIXEL = ("pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro", "pixel_aupro@0.05")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--records", type=int, default=10_000)
    options.add_argument("--samples", type=int, default=100, help="test images of each cell")
    options.add_argument("--no-chromium", action="store_true", help="leave out the page's first interaction")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        make(results, chosen.records, chosen.samples)
        print(f"{chosen.records} records, {chosen.samples} test images each")
        for name in ("first report", "again, nothing new"):
            seconds, processor, memory = report(results)
            print(
                f"{name}: {seconds:.2f} s ({processor:.2f} s of the processor), {memory / 1e6:.0f} MB at most"
            )
        files = [path.stat().st_size for path in (results / "html").rglob("*") if path.is_file()]
        print(f"page: {len(files)} files, {sum(files) / 1e6:.1f} MB, the largest {max(files) / 1e6:.2f} MB")
        if not chosen.no_chromium:
            print(first_interaction(results / "html" / "index.html"))


def make(results: Path, count: int, samples: int) -> None:
    """`count` finished cells: methods x categories of several data sets x seeds."""
    draw = random.Random(0)
    for place in range(count):
        seed, cell = divmod(place, METHODS * CATEGORIES)
        method, column = divmod(cell, CATEGORIES)
        dataset, category = f"made_{column % DATASETS}", f"category_{column // DATASETS:02}"
        name = f"method_{method:02}"
        folder = results / "cells" / dataset / category / name / f"full-seed{seed}" / f"{place:012x}"
        folder.mkdir(parents=True)
        made = record(draw, dataset, category, name, seed, f"{place:012x}", 0.6 + method / 120)
        (folder / "record.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
        if samples:
            config = [f"seed: {seed}", "method:", *(f"  setting_{i}: {i}" for i in range(90))]
            (folder / "config.yaml").write_text("\n".join(config) + "\n", encoding="utf-8")
            lines = ["path,label,defect,score"]
            for i in range(samples):
                label = i % 2
                kind = ("good", "scratch")[label]
                lines.append(f"{category}/test/{kind}/{i:03}.png,{label},{kind},{draw.gauss(label, 1)!r}")
            (folder / "samples.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def record(
    draw: random.Random, dataset: str, category: str, method: str, seed: int, fingerprint: str, level: float
) -> dict[str, object]:
    """A record of the size that `adbench run` writes."""

    def figures(names: tuple[str, ...]) -> dict[str, float]:
        return {name: min(1.0, level + draw.random() / 20) for name in names}

    metrics = {"image": figures(IMAGE), "paper": figures(PIXEL), "full": figures(PIXEL)}
    intervals = {
        section: {name: {"low": v - 0.01, "high": v + 0.01, "se": 0.005} for name, v in held.items()}
        for section, held in metrics.items()
    }
    point = {
        "threshold": 1.5,
        "precision": 0.9,
        "recall": 0.8,
        "tpr": 0.8,
        "fpr": 0.1,
        "iou": 0.7,
        "f1": 0.85,
    }
    return {
        "schema": 1,
        "status": "done",
        "reason": None,
        "error": None,
        "dataset": dataset,
        "category": category,
        "method": method,
        "variant": "",
        "protocol": "full",
        "seed": seed,
        "title": method.replace("_", " ").capitalize(),
        "taxonomy": ("memory_bank", "teacher_student", "recon_ae", "one_class")[int(method[-2:]) % 4],
        "source": "ours",
        "fidelity": "paper",
        "paper": {"arxiv": "2106.08265", "selection": "last"},
        "fingerprint": {"cell": fingerprint, "fit": fingerprint, "evaluation": fingerprint},
        "counts": {"train": 200, "test_normal": 50, "test_anomalous": 50},
        "geometry": {
            "size": [256, 256],
            "interpolation": "bilinear",
            "antialias": True,
            "channel_order": "rgb",
        },
        "weights": [{"name": "resnet18.tv_in1k", "source": "folder", "sha256": "ab" * 32, "as_paper": True}],
        "marks": [],
        "versions": {"python": "3.11.7", "adbench": "0.1.0", "torch": "2.6.0", "numpy": "2.1.0"},
        "commit": "0123456789ab",
        "hardware": {"cpu": "a processor", "device": "cpu", "threads": 1},
        "date": "2026-11-22T21:00:00+00:00",
        "metrics": metrics,
        "undefined": {},
        "thresholds": {"image": 1.5, "paper": 1.2, "full": 1.3},
        "pixels_seen": 1.0,
        "warnings": [],
        "intervals": intervals,
        "operating_points": {section: {"f1max": point} for section in metrics},
        "bootstrap": {"replicates": 1000, "level": 0.95, "seed": 0},
        "model": {"parameters": 11_000_000, "bytes": 44_000_000, "flops": 3_000_000_000},
        "timing": {
            "fit_seconds": 20 * draw.random(),
            "predict_seconds": draw.random(),
            "images_per_second": 100 * draw.random(),
            "latency_ms_p50": 50 * draw.random(),
            "latency_ms_p95": 60.0,
        },
        "memory": {"host_peak_bytes": 700_000_000, "device_peak_bytes": None},
    }


def report(results: Path) -> tuple[float, float, int]:
    """Seconds, seconds of the processor and the highest memory in bytes of one `adbench report`."""
    words = [sys.executable, "-m", "ad_bench", "report", f"paths.results={results}"]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"adbench report failed: {os.waitstatus_to_exitcode(status)}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def first_interaction(page_file: Path) -> str:
    """Seconds from opening the page to its first figures, and to the rows in a new order after a click."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "page: playwright is not installed, the first interaction was not measured"
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    program = os.environ.get("CHROMIUM", program)
    if program is None:
        return "page: no Chromium, the first interaction was not measured"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(page_file.as_uri())
        page.wait_for_selector("table.data tbody tr[data-key]")
        shown = time.perf_counter() - start
        first = page.locator("table.data tbody tr[data-key]").first.get_attribute("data-key")
        page.get_by_role("button", name="image AUROC").click()
        page.wait_for_selector(f'table.data tbody tr[data-key]:not([data-key="{first}"]):first-child')
        sorted_ = time.perf_counter() - start
        browser.close()
    return f"page: rows after {shown:.2f} s, sorted by a click after {sorted_:.2f} s"


if __name__ == "__main__":
    main()

"""Time and error of the bootstrap intervals, beside ranking the images of every replicate anew.

    python scripts/bench_bootstrap.py [--images 100 500] [--size 256] [--brute 40] [--out FILE.md]

One process, one thread, CPU seconds, the best of several. Re-ranking is run for `--brute` replicates of the
first table's maps; its time is multiplied up to all of them.
"""

import argparse
import datetime
import platform
import tracemalloc
from pathlib import Path

from bench_metrics import cpu_name, cpu_seconds, made, publish  # isort: skip  # sets one thread before NumPy is loaded
import numpy as np

from ad_bench.metrics import evaluate_maps
from ad_bench.metrics.bootstrap import bootstrap_pixels, draws, replicate_pixels
from ad_bench.metrics.truth import PixelTruth

NAMES = [
    *("pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou"),
    *("pixel_aupro", "pixel_aupro@0.05", "pixel_aupro@0.01"),
]
Maps = list[np.ndarray]


def reranked(maps: Maps, truth: PixelTruth, weights: np.ndarray) -> np.ndarray:
    """(R, names) by ranking the pixels of the images drawn; each image's own regions are found once."""
    rows = []
    for row in weights:
        images = np.repeat(np.arange(len(maps)), row)
        labels = np.zeros(len(images), int)
        values = evaluate_maps([maps[i] for i in images], truth.subset(images), labels, labels, NAMES)
        rows.append([values[name] for name in NAMES])
    return np.array(rows)


def kinds(maps: Maps, masks: Maps) -> dict[str, tuple[Maps, Maps]]:
    """The same test set with scores and defects that are harder to count."""
    one = [values + 3 * (image == 0) for image, values in enumerate(maps)]
    speckled = [mask & (np.arange(mask.size).reshape(mask.shape) % 7 == 0) for mask in masks]
    return {
        "as they are": (maps, masks),
        "exp(6 s): a heavy tail": ([np.exp(6 * values) for values in maps], masks),
        "a normal image above all others": (one, masks),
        "defects found well": ([v + 3 * mask for v, mask in zip(maps, masks, strict=True)], masks),
        "one in seven of the defect pixels": (maps, speckled),
        "16 scores to the unit, ties": ([np.round(values * 16) / 16 for values in maps], masks),
    }


def time_table(sizes: list[int], size: int, replicates: int, repeats: int) -> list[str]:
    lines = [
        f"## Time, {size}x{size}, {replicates} replicates of {len(NAMES)} metrics",
        "",
        "| images | ranking and exact values, CPU s | intervals, CPU s | extra memory, MB | scores, MB |",
        "|---|---|---|---|---|",
    ]
    for images in sizes:
        maps, masks = made(images, size, seed=0)
        truth, labels = PixelTruth.of(masks), [int(mask.any()) for mask in masks]
        ranking, exact = cpu_seconds(lambda: evaluate_maps(maps, truth, labels, labels, NAMES), repeats)  # noqa: B023

        def intervals() -> object:
            return bootstrap_pixels(maps, truth, NAMES, replicates, labels=labels, exact=exact)  # noqa: B023

        own, _ = cpu_seconds(intervals, repeats)
        tracemalloc.start()
        intervals()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        scores = sum(values.nbytes for values in maps) / 1e6
        lines.append(f"| {images} | {ranking:.3f} | {own:.3f} | {peak:.0f} | {scores:.0f} |")
    return [*lines, ""]


def error_table(images: int, size: int, replicates: int, brute: int) -> list[str]:
    lines = [
        f"## Error, {images} maps of {size}x{size}, {brute} replicates re-ranked",
        "",
        "The largest error of a replicate, the mean error, and that of the ends of the 90 % interval; the",
        "mean error as a share of the replicates' standard deviation. Each where it is largest.",
        "",
        "| scores | largest | mean | of the ends | share of deviation |",
        "|---|---|---|---|---|",
    ]
    took = 0.0
    for kind, (maps, masks) in kinds(*made(images, size, seed=0)).items():
        truth, labels = PixelTruth.of(masks), [int(mask.any()) for mask in masks]
        weights = np.vstack([np.ones_like(labels), draws(labels, brute, 0)])
        values = replicate_pixels(maps, truth, NAMES, weights)
        counted = np.stack([values[name] for name in NAMES], axis=1)
        seconds, exact = cpu_seconds(lambda: reranked(maps, truth, weights), 1)  # noqa: B023
        took = took or seconds / len(weights) * replicates
        moved = counted[1:] - counted[0] + exact[0]
        error = np.abs(moved - exact[1:])
        ends = np.abs(np.subtract(*(np.quantile(v, [0.05, 0.95], axis=0) for v in (moved, exact[1:]))))
        share = np.max(error.mean(axis=0) / np.maximum(exact[1:].std(axis=0), 1e-12))
        shown = error.max(), error.mean(axis=0).max(), ends.max(), share
        lines.append(f"| {kind} | {' | '.join(f'{value:.1e}' for value in shown)} |")
    return [*lines, "", f"Ranking all {replicates} replicates anew would take {took:.0f} CPU s.", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--brute", type=int, default=40, help="replicates that are also ranked anew")
    parser.add_argument("--out", type=Path, help="also write the tables into this Markdown file")
    options = parser.parse_args()
    lines = [
        "# Time and error of the bootstrap intervals",
        "",
        "Made by `scripts/bench_bootstrap.py`: one process, one thread, CPU seconds, the best of several.",
        f"{cpu_name()}, Python {platform.python_version()}, NumPy {np.__version__}, {datetime.date.today()}.",
        "",
        *time_table(options.images, options.size, options.replicates, options.repeats),
        *error_table(min(options.images), options.size, options.replicates, options.brute),
    ]
    publish(lines, options.out)


if __name__ == "__main__":
    main()

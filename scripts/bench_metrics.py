"""Time and error of the pixel metrics: ours, scikit-learn, an AUPRO by argsort, a loop over 200 thresholds.

    python scripts/bench_metrics.py [--images 100 500] [--size 256] [--repeats 5] [--out FILE.md]

One process, one thread, CPU seconds, the best of several. About 2 % of the pixels are defective.
"""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when NumPy is loaded

import numpy as np  # noqa: E402
import scipy  # noqa: E402
import sklearn  # noqa: E402
from scipy.ndimage import gaussian_filter, label  # noqa: E402
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score  # noqa: E402

from ad_bench.metrics import evaluate_maps  # noqa: E402

NAMES = ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro", "pixel_aupro@0.05"]
CORNERS = np.ones((3, 3))


def made(images: int, size: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Smooth float32 maps that find most of the defects; round defects of many sizes, 1.7 an image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    masks = [np.zeros((size, size), bool) for _ in range(images)]
    defective = np.arange(images) % 4 != 0  # a quarter of the images is normal
    for _ in range(round(1.75 * images)):
        mask = masks[rng.choice(np.flatnonzero(defective))]
        radius = size * np.clip(rng.lognormal(-3.0, 0.5), 0.01, 0.2)
        top, left = rng.integers(0, size, 2)
        mask |= (rows - top) ** 2 + (columns - left) ** 2 < radius**2
    maps = []
    for mask in masks:
        noise = gaussian_filter(rng.normal(size=(size, size)), 4) * 14
        maps.append((noise + 2 * gaussian_filter(mask * rng.uniform(0.3, 2.0), 3)).astype(np.float32))
    return maps, masks


def scikit_learn(maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    scores, truth = np.concatenate(maps, axis=None), np.concatenate(masks, axis=None)
    precision, recall, _ = precision_recall_curve(truth, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return {
        "pixel_auroc": float(roc_auc_score(truth, scores)),
        "pixel_aupr": float(average_precision_score(truth, scores)),
        "pixel_f1max": float(f1.max()),
    }


def area(fpr: np.ndarray, pro: np.ndarray, limit: float) -> float:
    inside = fpr < limit
    return float(
        np.trapezoid(np.append(pro[inside], np.interp(limit, fpr, pro)), np.append(fpr[inside], limit))
        / limit
    )


def argsort_aupro(maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    """Exact: every pixel with its gain through one argsort, one point for each distinct score."""
    gain, regions = [np.zeros(mask.shape) for mask in masks], 0
    for weight, mask in zip(gain, masks, strict=True):
        numbered, count = label(mask, structure=CORNERS)
        weight[mask] = 1 / np.bincount(numbered.ravel())[numbered[mask]]
        regions += count
    scores, truth = np.concatenate(maps, axis=None), np.concatenate(masks, axis=None)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    pro = np.append(0, (np.cumsum(np.concatenate(gain, axis=None)[order]) / regions)[last])
    fpr = np.append(0, (np.cumsum(~truth[order]) / (~truth).sum())[last])
    return {"pixel_aupro": area(fpr, pro, 0.3), "pixel_aupro@0.05": area(fpr, pro, 0.05)}


def loop_aupro(maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    """Approximate, as in many papers' code: 200 even thresholds, all pixels compared at each."""
    scores, truth = np.stack(maps), np.stack(masks)
    numbered, count = np.zeros(truth.shape, np.int64), 0
    for image, mask in enumerate(masks):
        regions, found = label(mask, structure=CORNERS)
        numbered[image][mask] = regions[mask] + count
        count += found
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    fpr, pro = [0.0], [0.0]
    for threshold in np.linspace(scores.max(), scores.min(), 200):
        found = np.bincount(numbered[scores >= threshold], minlength=count + 1)
        fpr.append(found[0] / sizes[0])
        pro.append(float(np.mean(found[1:] / sizes[1:])))
    x, y = np.array(fpr), np.array(pro)
    return {"pixel_aupro": area(x, y, 0.3), "pixel_aupro@0.05": area(x, y, 0.05)}


def ours(maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    labels = [int(mask.any()) for mask in masks]
    return evaluate_maps(maps, masks, labels, labels, NAMES)


def cpu_seconds(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def table(images: int, size: int, repeats: int) -> list[str]:
    maps, masks = made(images, size, seed=0)
    coarse = [np.round(m * 16) / 16 for m in maps]  # a few hundred distinct scores: ties everywhere
    own, values = cpu_seconds(lambda: ours(maps, masks), repeats)
    tied = ours(coarse, masks)
    rows = [f"| adbench, {len(NAMES)} metrics | {own:.3f} | 1.0 | | |"]
    peers: list[tuple[str, Callable[..., dict[str, float]], int]] = [
        ("scikit-learn: AUROC, AP, PR curve", scikit_learn, min(repeats, 3)),
        ("exact AUPRO with a full argsort", argsort_aupro, min(repeats, 3)),
        ("AUPRO, loop over 200 thresholds", loop_aupro, 1),
    ]
    for name, call, times in peers:
        seconds, truth = cpu_seconds(lambda call=call: call(maps, masks), times)
        error = max(abs(values[key] - value) for key, value in truth.items())
        on_ties = max(abs(tied[key] - value) for key, value in call(coarse, masks).items())
        rows.append(f"| {name} | {seconds:.3f} | {seconds / own:.1f} | {error:.1e} | {on_ties:.1e} |")
    regions = sum(label(mask, structure=CORNERS)[1] for mask in masks)
    share = np.mean([mask.mean() for mask in masks])
    return [
        f"## {images} maps of {size}x{size}, {share:.1%} defective, {regions} regions",
        "",
        "| what | CPU s | times ours | largest difference to ours | the same, scores with ties |",
        "|---|---|---|---|---|",
        *rows,
        "",
        ", ".join(f"{name} {value:.6f}" for name, value in values.items()),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the tables into this Markdown file")
    options = parser.parse_args()
    lines = [
        "# Time and error of the pixel metrics",
        "",
        "Made by `scripts/bench_metrics.py`: one process, one thread, CPU seconds, the best of several.",
        f"{cpu_name()}, Python {platform.python_version()}, NumPy {np.__version__},",
        f"SciPy {scipy.__version__}, scikit-learn {sklearn.__version__}, {datetime.date.today()}.",
        "The 200-threshold loop is inexact: its difference is its own error.",
        "",
    ]
    for images in options.images:
        lines += table(images, options.size, options.repeats)
    print("\n".join(lines))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()

"""Time, error and memory of the pixel metrics against those that people use: writes results/bench/metrics.md.

    python scripts/bench_metrics.py [--images 100 500 1700] [--stream 1700] [--out results/bench/metrics.md]

Needs the extra `bench` (adeval, torchmetrics); rows of what is not installed are left out. One thread, CPU
seconds, the best of several. About 2 % of the pixels are defective. A CUDA device is timed if there is one.
"""

import argparse
import datetime
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when NumPy is loaded

import numpy as np  # noqa: E402
import scipy  # noqa: E402
from scipy.ndimage import gaussian_filter, label  # noqa: E402

from ad_bench.geometry import resize_map  # noqa: E402
from ad_bench.metrics import PixelTruth, evaluate, evaluate_maps, rank_pixels  # noqa: E402

NAMES = ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro", "pixel_aupro@0.05"]
CORNERS = np.ones((3, 3))
NO_AVX512 = "X86_V4,AVX512_ICL"  # what NPY_DISABLE_CPU_FEATURES calls it from NumPy 2.4 on
Maps = list[np.ndarray]
Values = dict[str, float]


# ---- what is measured on ---------------------------------------------------------------------------------


def made(images: int, size: int, seed: int) -> tuple[Maps, Maps]:
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


class Stream(Sequence[np.ndarray]):
    """Large maps, each made from a small one when it is asked for, as the runner does."""

    def __init__(self, images: int, size: int, change: Callable[[Any], Any]) -> None:
        self.images, self.size, self.change = images, size, change

    def __len__(self) -> int:
        return self.images

    def mask(self, image: int) -> np.ndarray:
        rng = np.random.default_rng((1, image))
        found = np.zeros((self.size, self.size), bool)
        rows, columns = np.ogrid[: self.size, : self.size]
        for _ in range(rng.integers(1, 4) if image % 4 else 0):
            radius = self.size * np.clip(rng.lognormal(-3.0, 0.5), 0.01, 0.2)
            top, left = rng.integers(0, self.size, 2)
            found |= (rows - top) ** 2 + (columns - left) ** 2 < radius**2
        return found

    def __getitem__(self, image: Any) -> Any:
        rng = np.random.default_rng((2, image))
        small = resize_map(self.mask(image)[8::16, 8::16].astype(np.float32), (64, 64))
        noise = gaussian_filter(rng.normal(size=(64, 64)), 1) * 3.5
        small = (noise + 2 * gaussian_filter(small * rng.uniform(0.3, 2.0), 1)).astype(np.float32)
        return self.change(resize_map(small, (self.size, self.size)))

    def truth(self) -> PixelTruth:
        return PixelTruth.join([PixelTruth.of([self.mask(image)]) for image in range(self.images)])


# ---- who is measured -------------------------------------------------------------------------------------


def ours(maps: Maps, masks: Maps | PixelTruth) -> Values:
    labels = np.arange(len(maps)) % 2  # of no interest here
    truth = masks if isinstance(masks, PixelTruth) else PixelTruth.of(masks)
    return evaluate_maps(maps, truth, labels, labels, NAMES)


def scikit_learn(maps: Maps, masks: Maps) -> Values:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, truth = np.concatenate(maps, axis=None), np.concatenate(masks, axis=None)
    precision, recall, _ = precision_recall_curve(truth, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return {
        "pixel_auroc": float(roc_auc_score(truth, scores)),
        "pixel_aupr": float(average_precision_score(truth, scores)),
        "pixel_f1max": float(f1.max()),
    }


def torch_metrics(maps: Maps, masks: Maps) -> Values:
    import torch
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_precision_recall_curve,
    )

    scores = torch.from_numpy(np.concatenate(maps, axis=None))
    truth = torch.from_numpy(np.concatenate(masks, axis=None).astype(np.int64))
    precision, recall, _ = binary_precision_recall_curve(scores, truth)
    f1 = torch.nan_to_num(2 * precision * recall / (precision + recall))
    return {
        "pixel_auroc": float(binary_auroc(scores, truth)),
        "pixel_aupr": float(binary_average_precision(scores, truth)),
        "pixel_f1max": float(f1.max()),
    }


def adeval(maps: Maps, masks: Maps) -> Values:
    """1000 strips, its default."""
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010  adeval 1.1 calls what NumPy 2.4 has no more
    import cv2
    from adeval import EvalAccumulator

    cv2.setNumThreads(1)
    ends = np.array([(one.min(), one.max()) for one in maps])
    counts = EvalAccumulator(float(ends[:, 0].min()), float(ends[:, 1].max()))
    counts.add_anomap_batch(maps, [mask.view(np.uint8) for mask in masks])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no image scores here and divides by none
        found = counts.summary()
    return {
        "pixel_auroc": float(found["p_auroc"]),
        "pixel_aupr": float(found["p_aupr"]),
        "pixel_aupro": float(found["p_aupro"]),
    }


def area(fpr: np.ndarray, pro: np.ndarray, limit: float) -> float:
    inside = fpr < limit
    return float(
        np.trapezoid(np.append(pro[inside], np.interp(limit, fpr, pro)), np.append(fpr[inside], limit))
        / limit
    )


def argsort_aupro(maps: Maps, masks: Maps) -> Values:
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


def loop_aupro(maps: Maps, masks: Maps) -> Values:
    """Approximate, as in many papers' code: 200 even thresholds, all pixels compared at each."""
    scores, truth = np.stack(maps), np.stack(masks)
    numbered, count = np.zeros(truth.shape, np.int32), 0
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


# ---- measuring -------------------------------------------------------------------------------------------


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


def publish(lines: list[str], out: Path | None) -> None:
    print("\n".join(lines))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(lines))


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def table(images: int, size: int, repeats: int, quick: bool = False) -> list[str]:
    maps, masks = made(images, size, seed=0)
    coarse = [np.round(m * 16) / 16 for m in maps]  # a few hundred distinct scores: ties everywhere
    own, values = cpu_seconds(lambda: ours(maps, masks), repeats)
    truth = PixelTruth.of(masks)
    kept, _ = cpu_seconds(lambda: ours(maps, truth), repeats)
    tied = ours(coarse, masks)
    few = 1 if images > 500 else 2
    peers: list[tuple[str, str, Callable[..., Values], int]] = [
        ("adeval, 1000 strips (inexact)", "adeval", adeval, max(few, repeats // 3)),
        ("scikit-learn: AUROC, AP, PR curve", "sklearn", scikit_learn, few),
        ("torchmetrics: AUROC, AP, PR curve", "torchmetrics", torch_metrics, few),
        ("exact AUPRO with a full argsort", "scipy", argsort_aupro, few),
        ("AUPRO, loop over 200 thresholds (inexact)", "scipy", loop_aupro, 1),
    ]
    rows = [
        f"| adbench, {len(NAMES)} metrics | {own:.3f} | 1.0 | | |",
        f"| adbench, masks read before | {kept:.3f} | {kept / own:.2f} | | |",
    ]
    seconds: dict[str, float] = {}
    for name, module, call, times in peers[:1] if quick else peers:
        if not installed(module):
            continue
        seconds[name], found = cpu_seconds(lambda call=call: call(maps, masks), times)
        error = max(abs(values[key] - value) for key, value in found.items())
        on_ties = ""
        if images <= 500:  # beyond that the slow ones take minutes
            on_ties = f"{max(abs(tied[key] - value) for key, value in call(coarse, masks).items()):.1e}"
        rows.append(f"| {name} | {seconds[name]:.3f} | {seconds[name] / own:.1f} | {error:.1e} | {on_ties} |")
    said = []
    if peers[0][0] in seconds:
        said.append(f"{own / seconds[peers[0][0]]:.2f} x the time of adeval")
    if peers[1][0] in seconds:
        exact = seconds[peers[1][0]] + seconds[peers[3][0]]
        said.append(f"1/{exact / own:.0f} of scikit-learn and an exact AUPRO")
    regions = sum(label(mask, structure=CORNERS)[1] for mask in masks)
    share = np.mean([mask.mean() for mask in masks])
    return [
        f"### {images} maps of {size}x{size}, {share:.1%} defective, {regions} regions",
        "",
        "| what | CPU s | times ours | largest difference to ours | the same, scores with ties |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Ours: {', '.join(said)}." if said else "",
        ", ".join(f"{name} {value:.6f}" for name, value in values.items()),
        "",
    ]


def peak(forget: bool = False) -> int:
    """The most bytes resident so far, or since it was last told to forget."""
    status = Path("/proc/self/status")
    if not status.is_file():  # macOS, where nothing can be forgotten
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def memory(images: int, size: int) -> str:
    ours(*made(8, size, 1))  # what is loaded once
    maps, masks = made(images, size, 0)
    truth = PixelTruth.of(masks)
    before = peak(forget=True)
    ours(maps, truth)
    own, scores = peak() - before, sum(m.nbytes for m in maps)
    return f"| {images} | {scores / 1e6:.0f} MB | {own / 1e6:.0f} MB | {own / scores:.2f} |"


CHANGES: dict[str, Callable[[Any], Any]] = {
    "s": lambda s: s,
    "exp(s)": np.exp,
    "20 s": lambda s: 20 * s,
    "s / 1000": lambda s: s / 1000,
    "-1 / s": lambda s: -1 / s,
}


def invariance(size: int) -> list[str]:
    maps, masks = made(100, size, 0)
    low = min(float(m.min()) for m in maps)
    # float64, in which none of the changes merges two of these scores; positive, for -1 / s
    positive = [m.astype(np.float64) - low + 1 for m in maps]
    half = [np.round(m * 16).astype(np.float16) for m in maps]
    sets = {name: [change(m) for m in positive] for name, change in CHANGES.items()}
    sets |= {"float32 of few levels": [m.astype(np.float32) for m in half], "the same in float16": half}
    values = {name: ours(one, masks) for name, one in sets.items()}
    rows = [
        f"| {name} | {' | '.join(f'{value:.15f}' for value in found.values())} |"
        for name, found in values.items()
    ]
    same = all(values[name] == values["s"] for name in CHANGES)
    same &= values["float32 of few levels"] == values["the same in float16"]
    return [
        f"| scores | {' | '.join(NAMES)} |",
        f"|---{'|---' * len(NAMES)}|",
        *rows,
        "",
        f"Bit for bit the same: {'yes' if same else 'NO'}.",
        "",
    ]


def stream(images: int, size: int, change: str, exact: bool) -> str:
    """One line: values with bounds, seconds and resident memory; or, with `exact`, the exact values."""
    maps = Stream(images, size, CHANGES[change])
    truth, labels = maps.truth(), np.arange(images) % 2
    start = time.process_time()
    for image in range(images):
        maps[image]
    making = time.process_time() - start
    start = time.process_time()
    found = evaluate(maps, truth, labels, labels, NAMES, memory=None if exact else 0)
    took = time.process_time() - start - (1 if exact else 2) * making
    parts = [f"{found.values[name]!r} {found.bounds.get(name, 0.0)!r}" for name in NAMES]
    return ";".join([*parts, f"{took} {peak()}"])


def streams(images: int, size: int) -> list[str]:
    rows, far = [], 0.0
    for change in ("s", "exp(s)"):
        words = ["--child", "stream", str(images), str(size), change]
        answers = [child([*words, way]) for way in ("bounded", "exact")]
        (bounded, cost), (exact, whole) = (
            ([tuple(map(float, part.split())) for part in answer.split(";")[:-1]], answer.split(";")[-1])
            for answer in answers
        )
        (took, resident), (exactly, held) = (tuple(map(float, end.split())) for end in (cost, whole))
        off = max(abs(a[0] - b[0]) for a, b in zip(bounded, exact, strict=True))
        true = all(abs(a[0] - b[0]) <= a[1] for a, b in zip(bounded, exact, strict=True))
        far = max(far, *(one[1] for one in bounded))
        rows.append(
            f"| {change} | {took:.0f} | {resident / 1e6:.0f} MB | {max(one[1] for one in bounded):.1e} | "
            f"{off:.1e} | {'yes' if true else 'NO'} | {exactly:.0f} | {held / 1e9:.1f} GB |"
        )
    return [
        f"{images} maps of {size}x{size}, {images * size**2 / 1e9:.2f} billion pixels, made one by one",
        "from maps of 64x64, in a process without torch, which alone takes 0.4 GB; CPU seconds without the",
        "making. The last two columns: all in memory, exact.",
        "",
        "| scores | CPU s | resident | bound reported | true error | within | CPU s | resident |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def child(words: list[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, env=os.environ | environment
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def on_cuda(size: int) -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return ["No CUDA device here: not measured.", ""]
    device = torch.device("cuda")
    rows = []
    for images in (100, 1700):
        maps, masks = made(images, size, 0)
        truth = PixelTruth.of(masks)
        pool = torch.from_numpy(np.concatenate(maps, axis=None)).to(device)

        def timed(call: Callable[[], Any]) -> float:
            best = float("inf")
            for _ in range(5):
                torch.cuda.synchronize()
                start = time.perf_counter()
                call()
                torch.cuda.synchronize()
                best = min(best, time.perf_counter() - start)
            return best

        sort = timed(lambda pool=pool: pool.sort())
        whole = timed(lambda maps=maps, truth=truth: rank_pixels(maps, truth, device=device))
        labels = np.arange(images) % 2
        pair = [evaluate(maps, truth, labels, labels, NAMES, device=d).values for d in (None, device)]
        error = max(abs(pair[0][name] - pair[1][name]) for name in NAMES)
        rows.append(f"| {images} | {1e3 * sort:.1f} | {1e3 * whole:.1f} | {whole / sort:.1f} | {error:.1e} |")
    return [
        f"{torch.cuda.get_device_name()}; wall clock, maps on the host.",
        "",
        "| images | one device sort, ms | ranking, ms | times the sort | largest difference to the CPU |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--stream", type=int, default=0, help="maps of 1024x1024 for the bounded way; 0: none"
    )
    parser.add_argument("--out", type=Path, help="also write the tables into this Markdown file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child and options.child[0] == "stream":  # without torch, as `adbench evaluate`
        _, images, size, change, way = options.child
        print(stream(int(images), int(size), change, way == "exact"))
        return
    import torch

    torch.set_num_threads(1)
    if options.child:
        what, *words = options.child
        if what == "memory":
            print(memory(int(words[0]), int(words[1])))
        else:
            print("\n".join(table(int(words[0]), int(words[1]), int(words[2]), quick=True)))
        return
    peers = [name for name in ("adeval", "torchmetrics") if installed(name)]
    from importlib.metadata import version

    lines = [
        "# Time, error and memory of the pixel metrics",
        "",
        "Made by `scripts/bench_metrics.py` in one run: one thread, CPU seconds, the best of several.",
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__},",
        f"SciPy {scipy.__version__}, scikit-learn {version('scikit-learn')}, torch {torch.__version__},",
        f"{''.join(f'{name} {version(name)}, ' for name in peers)}{datetime.date.today()}.",
        "Ours: AUROC, AP, F1-max, IoU, AUPRO to 0.3 and to 0.05, all exact, from masks each time.",
        "The difference of an inexact row is its own error. torchmetrics puts scores outside [0, 1] through",
        "a sigmoid in float32, which merges some.",
        "",
        "## Time and error",
        "",
    ]
    for images in options.images:
        lines += table(images, options.size, options.repeats if images <= 500 else 3)
    if "AVX512" in str(getattr(np._core._multiarray_umath, "__cpu_features__", {})) and peers:
        lines += [
            "### The same without NumPy's AVX-512 sort",
            "",
            "On some processors, AMD's Zen 4 among them, NumPy sorts floats several times slower with",
            "AVX-512 than with AVX2. adeval sorts every map, ours where it must. With",
            f"`NPY_DISABLE_CPU_FEATURES={NO_AVX512}`:",
            "",
        ]
        for images in options.images:
            words = ["--child", "table", str(images), str(options.size), "9" if images <= 500 else "3"]
            lines += [child(words, NPY_DISABLE_CPU_FEATURES=NO_AVX512).replace("### ", "#### "), ""]
    lines += ["## Unchanged when the scores are", "", *invariance(options.size)]
    lines += [
        "## Memory beside the maps",
        "",
        "| images | scores | at most taken beside them | times the scores |",
        "|---|---|---|---|",
        *(child(["--child", "memory", str(images), str(options.size)]) for images in options.images),
        "",
    ]
    if options.stream:
        lines += ["## Larger than memory: bounded, not exact", "", *streams(options.stream, 1024)]
    lines += ["## On a GPU", "", *on_cuda(options.size)]
    publish(lines, options.out)


if __name__ == "__main__":
    main()

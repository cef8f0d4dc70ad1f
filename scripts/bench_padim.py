"""PaDiM beside the bare backbone, the usual ways of its steps and a peer: writes results/bench/padim.md.

    python scripts/bench_padim.py [--images FOLDER] [--peer PYTHON] [--out results/bench/padim.md]

ResNet-18, layers 1 to 3, 100 of 448 channels, 256 px, batches of 32. FOLDER holds train.npy and test.npy,
uint8 (N, 256, 256, 3); without it 60 and 200 images are made. `--peer` is the interpreter of an environment
with anomalib and needs the weights (ADBENCH_WEIGHTS): the peer gets the same file. Ways take turns.
Linux, which tells the peak of memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.methods.padim import PaDiM
from ad_bench.parts import gaussian
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample, upsample_and_blur, worst_pixel

BATCH, SIGMA, EPS = 32, 4.0, 0.01
BORDER = 16  # pixels that a blur of sigma 4 reaches
SHAPES = {"R18-Rd100, 256 px": (60, 4096, 100), "a quarter of WR50-Rd550, 224 px": (32, 784, 550)}


# ---- what is measured on ---------------------------------------------------------------------------------


def made(count: int, seed: int) -> np.ndarray:
    """Smooth textures with noise, uint8 (count, 256, 256, 3)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 32, 32, generator=generator)
    noise = torch.randn(count, 3, 256, 256, generator=generator) * 0.03
    images = F.interpolate(coarse, size=(256, 256), mode="bicubic") + noise
    return images.clamp(0, 1).mul(255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def batches(images: np.ndarray, size: int) -> list[Tensor]:
    """float32 (B, 3, H, W) in [0, 1], channels last in memory."""
    return [part.permute(0, 3, 1, 2).float() / 255 for part in torch.from_numpy(images).split(size)]


class Train:
    """Stands for a TrainSet."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts

    def batches(self) -> Iterator[SimpleNamespace]:
        return (SimpleNamespace(images=part) for part in self.parts)


# ---- the usual ways --------------------------------------------------------------------------------------


def replicate_all(levels: list[Tensor], picked: Tensor) -> Tensor:
    first, *deeper = levels
    same = [F.interpolate(level, size=first.shape[-2:], mode="nearest") for level in deeper]
    return torch.cat([first, *same], 1)[:, picked]


def invert_factor(covariance: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(covariance)
    identity = torch.eye(factor.shape[-1]).expand_as(factor)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def by_inverse(features: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    offset = features - mean
    return torch.einsum("bpi,pij,bpj->bp", offset, inverse, offset).clamp(0).sqrt()


def by_solving(features: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    offset = (features - mean).permute(1, 2, 0)
    return torch.linalg.solve_triangular(factor, offset, upper=False).square().sum(1).sqrt().T


def convolve(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge, mirror the border, convolve along rows, then along columns."""
    offsets = torch.arange(-BORDER, BORDER + 1, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    index = torch.arange(-BORDER, size[0] + BORDER) % (2 * size[0])
    index = torch.minimum(index, 2 * size[0] - 1 - index)
    large = upsample(maps, size)[:, None]
    return F.conv2d(F.conv2d(large[..., index], kernel)[:, :, index], kernel.mT)[:, 0]


# ---- measuring -------------------------------------------------------------------------------------------


def now() -> float:
    """Wall clock; of one thread its own CPU seconds, which other work on the machine disturbs less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(call: Callable[[], Any]) -> float:
    start = now()
    call()
    return now() - start


def in_turns(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every way, in every one of the rounds, after a first round that does not count."""
    rounds = [{name: seconds(way) for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: [one[name] for one in rounds] for name in ways}


class Stored(torch.nn.Module):
    """Stands for a backbone whose feature maps are known."""

    def __init__(self, levels: list[Tensor]) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.levels


def stages(model: PaDiM, train: list[Tensor], test: list[Tensor], repeats: int) -> list[str]:
    """The steps one by one, ours and the usual ways."""
    images, trained = test[0], sum(map(len, train))
    count, size = len(images), (images.shape[2], images.shape[3])
    features = [model.embed(part).flatten(2).transpose(1, 2) for part in train]
    queries = model.embed(images).flatten(2).transpose(1, 2)
    backbone, model.backbone = model.backbone, Stored(levels := model.backbone(images))  # type: ignore[assignment]
    maps = model.gaussian.mahalanobis(queries).reshape(count, *levels[0].shape[2:])
    large = upsample_and_blur(maps, size, SIGMA)
    mean = model.gaussian.mean.points
    rows = (torch.cat(features) - mean).transpose(0, 1)
    covariance = rows.mT.bmm(rows).div_(trained - 1).add_(EPS * torch.eye(rows.shape[2]))
    factor, inverse = torch.linalg.cholesky(covariance), torch.linalg.inv(covariance)

    def whiten() -> None:
        for span in gaussian._spans(covariance):
            gaussian.whiten_(covariance[span].clone())

    steps: list[tuple[str, int, dict[str, Callable[[], Any]]]] = [
        (
            "embedding",
            count,
            {
                "ours": lambda: model.embed(images),
                "replicate all, then pick": lambda: replicate_all(levels, model.picked),
            },
        ),
        ("fit, the Gaussians", trained, {"ours": lambda: PositionGaussian(EPS).fit(features)}),
        (
            "of it: covariances to whitening",
            trained,
            {
                "ours": whiten,
                "LAPACK: Cholesky, triangular inverse": lambda: invert_factor(covariance),
                "LAPACK: inverse": lambda: torch.linalg.inv(covariance),
            },
        ),
        *(
            (
                f"distances, {len(some)} at a time",
                len(some),
                {
                    "ours": lambda some=some: model.gaussian.mahalanobis(some),
                    "triangular solve": lambda some=some: by_solving(some, mean, factor),
                    "products with the inverse": lambda some=some: by_inverse(some, mean, inverse),
                },
            )
            for some in (queries, queries[:8], queries[:1])
        ),
        (
            "to 256 px, blur",
            count,
            {
                "ours": lambda: upsample_and_blur(maps, size, SIGMA),
                "interpolate, two convolutions": lambda: convolve(maps, size),
            },
        ),
        ("worst pixel", count, {"ours": lambda: worst_pixel(large)}),
    ]
    lines = ["| step | way | ms an image | of ours |", "|---|---|---|---|"]
    for step, number, ways in steps:
        took = {way: statistics.median(times) for way, times in in_turns(ways, repeats).items()}
        lines += [
            f"| {step} | {way} | {1e3 * spent / number:.2f} | {spent / took['ours']:.1f} |"
            for way, spent in took.items()
        ]
    model.backbone = backbone
    return lines


def digits(model: PaDiM, train: list[Tensor], test: list[Tensor]) -> str:
    """Largest relative error of distances and maps against float64, over the first test batch."""
    rows = torch.cat([model.embed(part).flatten(2).transpose(1, 2) for part in train]).double()
    queries = model.embed(test[0]).flatten(2).transpose(1, 2)
    errors: list[list[float]] = [[], []]
    maps = torch.empty(len(queries), rows.shape[1], dtype=torch.float64)
    for span in gaussian._spans(model.gaussian.whitening.points):
        centre = rows[:, span].mean(0)
        spread = (rows[:, span] - centre).transpose(0, 1)
        covariance = spread.mT.bmm(spread) / (len(rows) - 1) + EPS * torch.eye(rows.shape[2])
        maps[:, span] = by_solving(queries[:, span].double(), centre, torch.linalg.cholesky(covariance))
        plain = by_solving(queries[:, span], centre.float(), torch.linalg.cholesky(covariance.float()))
        errors[0].append((plain / maps[:, span] - 1).abs().max().item())
    own = (model.gaussian.mahalanobis(queries) / maps - 1).abs().max().item()
    side = round(maps.shape[1] ** 0.5)
    size = (test[0].shape[2], test[0].shape[3])
    blurred = convolve(maps.view(-1, side, side), size)
    found = model.predict(Inputs(test[0])).maps
    assert found is not None
    error = (found / blurred - 1).abs().max().item()
    return (
        f"Largest relative error against float64: distances {own:.1e} (triangular solve in float32 "
        f"{max(errors[0]):.1e}), maps {error:.1e}."
    )


# ---- memory ----------------------------------------------------------------------------------------------


def memory_child(way: str, count: int, positions: int, dim: int) -> str:
    """Peak bytes above those before, of fit and predict: features are made batch by batch."""

    def features(seed: int) -> Tensor:
        return torch.randn(8, positions, dim, generator=torch.Generator().manual_seed(seed))

    torch.linalg.inv(torch.eye(dim))  # the libraries' own buffers are not counted
    torch.bmm(features(0)[:, :8].transpose(0, 1), torch.rand(8, dim, dim))
    before, peaks = memory_of_process("VmRSS"), []
    if way == "ours":
        model = PositionGaussian(EPS)
        model.fit(features(seed) for seed in range(count // 8))
        peaks.append(memory_of_process("VmHWM") - before)
        model.mahalanobis(features(-1))
    else:
        dtype = torch.float64 if way == "textbook, float64" else torch.float32
        rows = torch.cat([features(seed) for seed in range(count // 8)])
        mean, covariance = rows.mean(0), torch.empty(positions, dim, dim, dtype=dtype)
        for position in range(positions):
            one = torch.from_numpy(np.cov(rows[:, position].numpy(), rowvar=False))
            covariance[position] = one + EPS * torch.eye(dim)
        inverse = torch.linalg.inv(covariance)
        peaks.append(memory_of_process("VmHWM") - before)
        by_inverse(features(-1).to(dtype), mean.to(dtype), inverse)
    peaks.append(memory_of_process("VmHWM") - before)
    return " ".join(map(str, peaks))


def memory_of_process(field: str) -> int:
    """Bytes, VmRSS now or VmHWM at most. getrusage would count what the parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def memory() -> list[str]:
    lines = [
        "| Gaussians | way | fit, MB | with predict, MB | float32 tables (P, d, d) |",
        "|---|---|---|---|---|",
    ]
    for name, (count, positions, dim) in SHAPES.items():
        for way in ("ours", "textbook, float32", "textbook, float64"):
            words = [sys.executable, __file__, "--child", way, str(count), str(positions), str(dim)]
            said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            fit, both = (int(word) for word in said)
            table = positions * dim**2 * 4
            lines.append(f"| {name} | {way} | {fit / 1e6:,.0f} | {both / 1e6:,.0f} | {both / table:.2f} |")
    return lines


# ---- the peer --------------------------------------------------------------------------------------------


def beside_peer(python: str, train: np.ndarray, test: np.ndarray, threads: int) -> list[str]:
    """The peer's seconds and how far its maps are from ours with the same channels and its eps."""
    model = padim(eps=EPS + 1e-5)
    with tempfile.TemporaryDirectory(prefix="bench_padim_") as folder:
        np.save(Path(folder, "train.npy"), train)
        np.save(Path(folder, "test.npy"), test)
        given = {
            "folder": folder,
            "weights": str(model.backbone.weights.path),
            "picked": model.picked.tolist(),
            "batch": BATCH,
            "threads": threads,
        }
        file = Path(folder, "given.json")
        file.write_text(json.dumps(given))
        subprocess.run([python, str(Path(__file__).with_name("peer_padim.py")), str(file)], check=True)
        answer = json.loads(file.read_text())
        theirs = torch.from_numpy(np.load(Path(folder, "peer.npy")))
    parts, tests, found = batches(train, BATCH), batches(test, BATCH), []
    model.backbone(parts[0])  # warm
    bare = seconds(lambda: [model.backbone(part) for part in tests])
    start = now()
    model.fit(Train(parts), Run())  # type: ignore[arg-type]
    fit = now() - start
    start = now()
    for part in tests:
        found.append(model.predict(Inputs(part)).maps)
    predict = now() - start
    ours = torch.cat(found)  # type: ignore[arg-type]
    error, inner = (ours / theirs - 1).abs(), slice(BORDER, -BORDER)
    inside, anywhere = error[:, inner, inner].max().item(), error.max().item()

    def row(name: str, values: list[float]) -> str:
        return f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |"

    their_fit = answer["embed"] + answer["fit"]
    own = [bare, fit, 1e3 * predict / len(test), fit + predict]
    peers = [answer["bare"], their_fit, 1e3 * answer["predict"] / len(test), their_fit + answer["predict"]]
    return [
        "| | bare passes, test images, s | fit, s | predict, ms an image | fit and predict, s |",
        "|---|---|---|---|---|",
        row("ours", own),
        row("peer", peers),
        row("peer / ours", [theirs / ours for theirs, ours in zip(peers, own, strict=True)]),
        "",
        f"Maps, both with the same channels and eps: {BORDER} pixels or more from the border the largest",
        f"relative difference is {inside:.1e}, anywhere {anywhere:.1e}: the peer mirrors the border without",
        "the edge itself, ours with it, as SciPy. What else differs: it draws its channels with",
        f"torch.randperm (it was given ours), its eps is {EPS} + 1e-5 (ours was given it here), it keeps all",
        "features until the end, and inverts. Its process, with libraries and images, peaked at",
        f"{answer['peak'] / 1e6:,.0f} MB in its fit.",
        "",
    ]


def padim(eps: float = EPS) -> PaDiM:
    return PaDiM(Backbone("resnet18.tv_in1k", [1, 2, 3]), 100, 1024, eps, SIGMA)


def whole(model: PaDiM, train: list[Tensor], test: list[Tensor], repeats: int) -> list[str]:
    """Fit and predict against the bare forward passes over the same images."""

    def run() -> None:
        model.fit(Train(train), Run())  # type: ignore[arg-type]
        for part in test:
            model.predict(Inputs(part))

    took = in_turns({"bare": lambda: [model.backbone(part) for part in train + test], "ours": run}, repeats)
    ratios = [ours / bare for ours, bare in zip(took["ours"], took["bare"], strict=True)]
    count = sum(map(len, train + test))
    bare, ours = (statistics.median(times) for times in took.values())
    return [
        f"Bare forward passes over {count} images: {bare:.2f} s, {1e3 * bare / count:.1f} ms an image.",
        f"PaDiM, fit and predict: {ours:.2f} s. Medians of {repeats} rounds; ratios of a round: "
        f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}).",
    ]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder of train.npy and test.npy")
    parser.add_argument("--peer", help="the interpreter of an environment with anomalib")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        way, *numbers = options.child
        print(memory_child(way, *map(int, numbers)))
        return
    if options.images:
        images = [np.load(options.images / f"{name}.npy") for name in ("train", "test")]
    else:
        images = [made(60, 0), made(200, 1)]
    train, test = (batches(part, BATCH) for part in images)
    load, model = os.getloadavg()[0], padim()
    together = whole(model, train, test, options.repeats)
    error, steps = digits(model, train, test), stages(model, train, test, options.repeats)
    peaks = memory()
    beside = beside_peer(options.peer, *images, options.threads) if options.peer else []
    from bench_metrics import cpu_name, publish  # sets one thread, so not before all is measured

    clock = "CPU seconds, 1 thread" if options.threads == 1 else f"wall clock, {options.threads} threads"
    lines = [
        "# Time and memory of PaDiM",
        "",
        f"Written by `scripts/bench_padim.py` in one run, {clock}. ResNet-18,",
        f"layers 1 to 3, 100 channels, 64 x 64 positions, 256 px, {len(images[0])} images to fit and",
        f"{len(images[1])} to predict ({'files' if options.images else 'made'}), batches of {BATCH}.",
        f"Load when it began, of what else the machine did: {load:.1f} on {os.cpu_count()} cores.",
        f"{cpu_name()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{datetime.date.today()}.",
        "",
        "## The whole",
        "",
        *together,
        error,
        "",
        "## Its steps",
        "",
        "Each beside the usual ways of the same step on the same numbers; medians. Steps of a fit: for each",
        "of the images fitted on.",
        "",
        *steps,
        "",
        "## Memory",
        "",
        "Peak of a process above what it held before, network left out, features made in batches of 8.",
        "Textbook: all features, NumPy's covariance of every position, all inverses, products with these.",
        "",
        *peaks,
        "",
        *(["## Beside anomalib", "", *beside] if beside else []),
    ]
    publish(lines, options.out)


if __name__ == "__main__":
    main()

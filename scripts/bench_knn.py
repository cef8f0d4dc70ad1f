"""Nearest rows and patch pooling beside the usual ways, in one run: writes results/bench/knn.md.

    python scripts/bench_knn.py [--images FOLDER] [--threads 2] [--repeats 5] [--out results/bench/knn.md]

ResNet-18, 256 px. FOLDER holds train.npy and test.npy, uint8 (N, 256, 256, 3); without it 60 and 16 images
are made. scikit-learn and faiss take part where they are installed. Wall clock, the median; ways take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench_padim import batches, made
from torch import Tensor

from ad_bench.parts import shortlist
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.coreset import approximate_greedy_coreset
from ad_bench.parts.neighbors import nearest
from ad_bench.parts.patches import pool_rows, pooled_patches, resize_grid

CELLS = 1 << 24
Found = tuple[Tensor, Tensor]
Way = Callable[[Tensor, Tensor, int], Found]


# ---- ways ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def changed(name: str, value: object) -> Iterator[None]:
    before = getattr(shortlist, name)
    setattr(shortlist, name, value)
    try:
        yield
    finally:
        setattr(shortlist, name, before)


class WithoutHalf:
    """Ours where products in bfloat16 are not fast; the bank is its own copy, learnt of in that way."""

    name, value = "half_is_fast", staticmethod(lambda device: False)

    def __init__(self) -> None:
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, queries: Tensor, bank: Tensor, k: int) -> Found:
        copy = self.copies.setdefault(id(bank), (bank, bank.clone()))[1]
        with changed(self.name, self.value):
            return nearest(queries, copy, k)


class WithoutAxes(WithoutHalf):
    name, value = "WORTH", 10**12


def two_steps(queries: Tensor, bank: Tensor, k: int) -> Found:
    """|q|^2 - 2qb + |b|^2 in float32 for k + 2 candidates, plain differences in float32 for these."""
    centre = bank.mean(0)
    rows, near = bank - centre, queries - centre
    norms, wanted = rows.square().sum(1), min(k + 2, len(bank))
    distances, indices = [], []
    for part, given in zip(near.split(CELLS // len(bank)), queries.split(CELLS // len(bank)), strict=True):
        index = (
            torch.addmm(norms, part, rows.T, alpha=-2).topk(wanted, 1, largest=False).indices.sort(1).values
        )
        squared = (given[:, None] - bank[index]).square().sum(2)
        order = squared.sort(dim=1, stable=True)
        distances.append(order.values[:, :k])
        indices.append(index.gather(1, order.indices[:, :k]))
    return torch.cat(distances), torch.cat(indices)


def cdist(queries: Tensor, bank: Tensor, k: int) -> Found:
    found = [torch.cdist(q, bank).topk(k, largest=False) for q in queries.split(CELLS // len(bank))]
    return torch.cat([f.values.square() for f in found]), torch.cat([f.indices for f in found])


def sklearn(queries: Tensor, bank: Tensor, k: int) -> Found:
    from sklearn.neighbors import NearestNeighbors

    fitted = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.numpy())
    distance, index = fitted.kneighbors(queries.numpy())
    return torch.from_numpy(distance**2), torch.from_numpy(index)


def faiss(queries: Tensor, bank: Tensor, k: int) -> Found:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    distance, index = faiss.knn(queries.numpy(), bank.numpy(), k)
    return torch.from_numpy(distance), torch.from_numpy(index)


def nearest_by_faiss(queries: Tensor, bank: Tensor, k: int) -> Found:
    return nearest(queries, bank, k, "faiss")


def of_a_new_bank(queries: Tensor, bank: Tensor, k: int) -> Found:
    return nearest(queries, bank.view_as(bank), k)  # another tensor: nothing is known of it


# ---- measuring -------------------------------------------------------------------------------------------


def in_turns(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median milliseconds and the last result of each way; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values[1:]) for name, values in times.items()}, results


def searches(title: str, queries: Tensor, bank: Tensor, k: int, once: bool, repeats: int) -> list[str]:
    """A table of all ways for one search; `once`: each search has a bank of its own, as in SPADE."""
    ways: dict[str, Way] = {
        "ours": of_a_new_bank if once else nearest,
        "ours, no bfloat16": WithoutHalf(),
        "ours, no principal axes": WithoutAxes(),
        "ours, backend faiss": nearest_by_faiss,
        "faiss-cpu, flat": faiss,
        "product, k + 2 candidates, differences": two_steps,
        "torch.cdist and topk": cdist,
        "scikit-learn, brute": sklearn,
    }
    if once:
        del ways["ours, no bfloat16"], ways["ours, no principal axes"]
    for name, module in (("faiss", "faiss"), ("scikit", "sklearn")):
        if importlib.util.find_spec(module) is None:
            ways = {way: call for way, call in ways.items() if name not in way}
    calls = {name: lambda way=way: way(queries, bank, k) for name, way in ways.items()}
    times, results = in_turns(calls, repeats)
    own = results["ours"]
    lines = [
        f"### {title}",
        "",
        f"{len(queries):,} queries, {len(bank):,} rows of {bank.shape[1]}, k = {k}; ms for 1,000 queries.",
        "",
        "| way | ms | times ours | other rows than ours | largest error of a distance |",
        "|---|---|---|---|---|",
    ]
    for name, took in times.items():
        distance, index = results[name]
        other = (index != own[1]).float().mean().item()
        error = ((distance - own[0]).abs() / own[0].clamp(min=1e-30)).max().item()
        ratio = took / times["ours"]
        lines.append(
            f"| {name} | {took / len(queries) * 1e3:.1f} | {ratio:.2f} | {other:.2%} | {error:.0e} |"
        )
    if not once:
        fresh = bank.clone()
        start = time.perf_counter()
        nearest(queries, fresh, k)
        learnt = time.perf_counter() - start - times["ours"] / 1000
        lines += ["", f"What ours learns of a bank at its first search is not in there: {learnt:.2f} s."]
    return [*lines, ""]


def usual_pooling(levels: list[Tensor]) -> Tensor:
    """Step by step: windows unfolded, pooled to 1024, resized, joined, pooled to 1024."""
    rows = []
    for maps in levels:
        windows = F.unfold(maps, 3, padding=1).transpose(1, 2).unflatten(1, maps.shape[-2:])
        rows.append(resize_grid(pool_rows(windows, 1024), (levels[0].shape[2], levels[0].shape[3])))
    return pool_rows(torch.cat(rows, -1), 1024)


def pooling(levels: list[Tensor], repeats: int) -> list[str]:
    usual = "windows unfolded, pooled, resized, pooled"
    ways = {"ours": lambda: pooled_patches(levels, 3, 1024, 1024), usual: lambda: usual_pooling(levels)}
    times, results = in_turns(ways, repeats)
    error = (results["ours"] - results[usual]).abs().max().item()
    return [
        "## Patch features of ResNet-18, layers 2 and 3, to 1024 numbers",
        "",
        "| way | ms an image | times ours |",
        "|---|---|---|",
        *[f"| {name} | {t / len(levels[0]):.2f} | {t / times['ours']:.1f} |" for name, t in times.items()],
        "",
        f"Largest difference between the two: {error:.1e}.",
        "",
    ]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    if options.images:
        train, test = (np.load(options.images / f"{name}.npy")[:60] for name in ("train", "test"))
        source = f"{len(train)} training images of {options.images.name}"
    else:
        train, test, source = made(60, 0), made(16, 1), "60 made images"
    backbone = Backbone("resnet18.tv_in1k", [1, 2, 3])

    def embed(images: np.ndarray) -> Tensor:
        parts = [pooled_patches(backbone(part)[1:], 3, 1024, 1024) for part in batches(images, 8)]
        return torch.cat(parts).flatten(0, 2)

    patches = embed(train)
    chosen = approximate_greedy_coreset(patches, len(patches) // 10, torch.Generator().manual_seed(0))
    bank, queries = patches[chosen], embed(test[:: max(1, len(test) // 8)][:8])
    del patches
    pixels = (
        torch.cat([backbone(part)[0] for part in batches(train[:6], 6)]).permute(0, 2, 3, 1).flatten(1, 2)
    )
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8192, 1024, generator=generator)
    lines = [
        "# Time of nearest neighbours and of patch pooling",
        "",
        "Written by `scripts/bench_knn.py` in one run, wall clock, the median; the ways take turns.",
        f"Load when it began, of what else the machine did: {load:.1f} on {os.cpu_count()} cores.",
        f"{options.threads} threads, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{datetime.date.today()}. Features of ResNet-18 at 256 px from {source}.",
        "",
        "Ours gives the rows and distances of brute force in double precision, the others those of float32.",
        "Other rows: where they chose differently. Error: relative to the squared distance.",
        "",
        "## Nearest rows",
        "",
        *searches("PatchCore: patches to a 10 % coreset", queries, bank, 1, False, options.repeats),
        *searches("The same, nine neighbours", queries, bank, 9, False, options.repeats),
        *searches(
            "SPADE: pixels of layer 1 to those of five images, another bank for every image",
            *(pixels[0], pixels[1:].flatten(0, 1), 1, True, options.repeats),
        ),
        *searches("50 of 209 images", noise[:32, :512], noise[32:241, :512].contiguous(), 50, False, 20),
        *searches(
            "Noise: nothing to gain from axes",
            noise[:2048],
            noise[2048:].contiguous(),
            1,
            False,
            options.repeats,
        ),
        *pooling(backbone(next(iter(batches(test, 8))))[1:], options.repeats),
    ]
    from bench_metrics import cpu_name, publish  # sets one thread, so not before all is measured

    lines[4] = f"{cpu_name()}, {lines[4]}"
    publish(lines, options.out)


if __name__ == "__main__":
    main()

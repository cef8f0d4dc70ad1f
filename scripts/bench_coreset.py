"""The greedy coreset beside simpler ways to the same points and beside anomalib: results/bench/coreset.md.

    python scripts/bench_coreset.py [--peer PYTHON] [--patches FILE.npy] [--points 20000 214320] [--ratio 0.1]
        [--threads 2] [--part 100] [--repeats 1] [--device cpu] [--out results/bench/coreset.md]

PYTHON is the interpreter of an environment with anomalib 2.7.0. FILE.npy holds patch features (N, C) of real
images: they are projected to 128 dimensions first, as PatchCore does, and all get the projected points.
The loops make one pass over all points per pick, each pass as long as the other: only the first `--part`
picks are made, and the seconds for all are extrapolated from them, marked ~. Ours always makes all. All in
one run, wall clock, the median of `--repeats`. Memory is what the peak of resident memory grows by in a new
process (Linux), on all points; a loop keeps what its first picks need.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ad_bench.parts.coreset import approximate_greedy_coreset, random_projection

DIM, STARTS = 128, 10
Choose = Callable[[Tensor, int], Tensor]

# anomalib on the points of argv[1]; argv[2]: threads, argv[3]: picks, argv[4]: of how many timed
PEER = """
import json, re, sys, time
import numpy as np, torch
from importlib.metadata import version
from anomalib.models.components.sampling import k_center_greedy
def resident(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1e3
torch.set_num_threads(int(sys.argv[2]))
k_center_greedy.tqdm = lambda steps, **_: steps
points, count, part = torch.from_numpy(np.load(sys.argv[1])), int(sys.argv[3]), int(sys.argv[4])
before = resident("VmRSS")
def timed(given, picks):
    start = time.perf_counter()
    chooser = k_center_greedy.KCenterGreedy(given, 0.5)
    chooser.coreset_size = picks
    chooser.select_coreset_idxs()
    return time.perf_counter() - start, chooser.features.shape[1]
out = {"version": version("anomalib"), "torch": torch.__version__}
# Of three dimensions, the points are not projected: the loop alone, on the same numbers as ours.
for name, given in (("same", points[:, None]), ("whole", points)):
    timed(given, 3)
    once, _ = timed(given, 1)
    some, dim = timed(given, part + 1)
    out[name] = {"seconds": once + (some - once) / part * (count - 1), "dim": dim}
    out[name]["memory"] = resident("VmHWM") - before
print(json.dumps(out))
"""


# ---- the ways ----------------------------------------------------------------------------------------------


def ours(points: Tensor, count: int) -> Tensor:
    return approximate_greedy_coreset(points, count, torch.Generator().manual_seed(0), None, STARTS)


def first_distance(points: Tensor) -> Tensor:
    starts = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:STARTS]
    return torch.stack([(points - points[start]).norm(dim=1) for start in starts]).mean(0)


def plain_pass(points: Tensor, count: int) -> Tensor:
    """One pass of plain differences over all points for every pick: what most libraries do."""
    distance, chosen = first_distance(points), []
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen)


def expanded_pass(points: Tensor, count: int) -> Tensor:
    """One pass of |x|^2 - 2xy + |y|^2, norms taken anew for every pick, minimum over a joined table."""
    distance, chosen = first_distance(points)[:, None], []
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        centre = points[chosen[-1]][None]
        norms = points[:, None].bmm(points[:, :, None]).reshape(-1, 1)
        new = (norms - 2 * points.mm(centre.T) + centre.square().sum()).clamp(0, None).sqrt()
        distance = torch.cat([distance, new], 1).min(1, keepdim=True).values
    return torch.tensor(chosen)


def matrix_vector_pass(points: Tensor, count: int) -> Tensor:
    """One pass per pick at its tightest: norms kept, points laid out for the product of all with one."""
    distance, columns, chosen = first_distance(points).square(), points.T.contiguous(), []
    norms = columns.square().sum(0)
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        new = torch.mv(columns.T, columns[:, chosen[-1]]).mul_(-2).add_(norms).add_(norms[chosen[-1]])
        distance = torch.minimum(distance, new.clamp_min_(0))
    return torch.tensor(chosen)


LOOPS: dict[str, Choose] = {
    "one matrix-vector product per pick": matrix_vector_pass,
    "plain differences": plain_pass,
    "expanded square, norms anew": expanded_pass,
}


# ---- how they are measured ---------------------------------------------------------------------------------


def seconds(choose: Choose, points: Tensor, count: int, repeats: int) -> tuple[float, Tensor]:
    """The median, and what was chosen."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        chosen = choose(points, count).cpu()
        times.append(time.perf_counter() - start)
    return statistics.median(times), chosen


def resident(name: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3


def peak(file: Path, count: int, threads: int) -> float:
    """MB by which the peak of a new process grows when ours chooses `count` of the points in `file`."""
    words = [sys.executable, __file__, "--peak-of", str(file), str(count), "--threads", str(threads)]
    return float(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)


def print_peak(file: str, count: int) -> None:
    points = torch.from_numpy(np.load(file))
    ours(points[:200], 100)  # libraries load and start their threads
    before = resident("VmRSS")
    ours(points, count)
    print(resident("VmHWM") - before)


def rows(points: Tensor, count: int, arguments: argparse.Namespace) -> list[str]:
    """One table: ours and the others on `points`."""
    megabytes = points.numel() * points.element_size() / 1e6
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "points.npy"
        np.save(file, points.numpy())
        moved, part = points.to(arguments.device), min(count - 1, arguments.part)
        base, chosen = seconds(ours, moved, count, arguments.repeats)
        grown = peak(file, count, arguments.threads) if arguments.device == "cpu" else float("nan")
        out = [
            f"## {len(points):,} points ({points.shape[1]} dimensions, {megabytes:.0f} MB), {count:,} picks",
            "",
            "| way | seconds | times ours | memory, MB | times the points | the same picks as ours |",
            "|---|---|---|---|---|---|",
            f"| ours | {base:.2f} | 1.0 | {grown:.0f} | {grown / megabytes:.2f} | |",
        ]
        before, _ = seconds(lambda points, _: first_distance(points), moved, 0, 3)
        for name, way in LOOPS.items():
            way(moved, 3)
            took, first = seconds(way, moved, part, arguments.repeats)
            took += max(0.0, took - before) * (count - part) / part
            same = (first == chosen[:part]).float().mean().item()
            out.append(f"| {name} | ~{took:.1f} | ~{took / base:.1f} | | | {same:.1%} of {part} |")
        if arguments.peer:
            words = [arguments.peer, "-c", PEER, str(file), str(arguments.threads), str(count), str(part)]
            pools = {f"{name}_NUM_THREADS": str(arguments.threads) for name in ("OMP", "MKL", "OPENBLAS")}
            done = subprocess.run(
                words, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **pools}
            )
            peer = json.loads(done.stdout.splitlines()[-1])
            for key, what in (("same", "its loop alone"), ("whole", "as it comes")):
                took, memory = peer[key]["seconds"], peer[key]["memory"]
                out.append(
                    f"| anomalib {peer['version']}, {what} ({peer[key]['dim']} dimensions) | ~{took:.0f} |"
                    f" ~{took / base:.0f} | {memory:.0f} | {memory / megabytes:.2f} | starts elsewhere |"
                )
    return [*out, ""]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, nargs="*", default=[20_000, 214_320])
    parser.add_argument("--patches", type=Path)
    parser.add_argument("--peer", help="the interpreter of an environment with anomalib")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--part", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print_peak(arguments.peak_of[0], int(arguments.peak_of[1]))
        return
    load = os.getloadavg()[0]
    device = "CPU" if arguments.device == "cpu" else torch.cuda.get_device_name(arguments.device)
    lines = [
        "# Time of the greedy coreset",
        "",
        f"Written by `scripts/bench_coreset.py` in one run on the {device}; threads: {arguments.threads}.",
        f"~: extrapolated from the first {arguments.part} picks, for these ways take as long for every pick.",
        "Memory: what the peak of resident memory grows by in a new process. The same picks: ours works in",
        "double precision, the loops in single, so that nearly equal distances may part them.",
        f"Load when it began, of what else the machine did: {load:.1f} on {os.cpu_count()} cores.",
        f"{cpu_name()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{datetime.date.today().isoformat()}.",
        "",
    ]
    print("\n".join(lines), flush=True)
    made = [
        (size, torch.rand(size, DIM, generator=torch.Generator().manual_seed(1))) for size in arguments.points
    ]
    if arguments.patches:
        patches = torch.from_numpy(np.load(arguments.patches)).float()
        real = random_projection(patches, DIM, torch.Generator().manual_seed(0))
        made.append((0, real))
    for size, points in made:
        kind = "Random" if size else "Patches of real images, projected:"
        table = rows(points, max(1, int(len(points) * arguments.ratio)), arguments)
        table[0] = table[0].replace("## ", f"## {kind} ", 1).replace("Random ", "Random: ", 1)
        print("\n".join(table), flush=True)
        lines += table
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()

"""Times the greedy coreset against simpler ways of choosing the same points, in one run; prints ratios.

python scripts/bench_coreset.py --points 20000 163856 --ratio 0.01 --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ad_bench.parts.coreset import approximate_greedy_coreset

DIM, STARTS = 128, 10


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


def whole_table(points: Tensor, count: int) -> Tensor:
    """Brute force: the table of all distances first."""
    table, distance, chosen = torch.cdist(points, points), first_distance(points), []
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, table[chosen[-1]])
    return torch.tensor(chosen)


def seconds(choose: Callable[[Tensor, int], Tensor], points: Tensor, count: int, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        choose(points, count)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads, {DIM} dimensions")
    print(f"{'points':>8} {'picks':>7} {'way':<14} {'seconds':>9} {'ours is':>9}  the same picks as ours")
    for size in arguments.points:
        points = torch.rand(size, DIM, generator=torch.Generator().manual_seed(1)).to(arguments.device)
        count = max(1, int(size * arguments.ratio))
        ways = [ours, plain_pass, expanded_pass] + ([whole_table] if size <= 10_000 else [])
        base, chosen = 0.0, ours(points, count)
        for way in ways:
            same = (way(points, count).cpu() == chosen).float().mean().item()
            took = seconds(way, points, count, arguments.repeats)
            base = base or took
            print(f"{size:>8} {count:>7} {way.__name__:<14} {took:>9.3f} {took / base:>8.1f}x  {same:.1%}")


if __name__ == "__main__":
    main()

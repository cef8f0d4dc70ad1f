"""Times the greedy coreset against simpler ways of choosing the same points, in one run; prints ratios.

python scripts/bench_coreset.py --points 40000 163856 --ratio 0.1 --threads 2 --part 100 --repeats 1

The loops make one pass over all points per pick, each pass as long as the other: only the first `--part`
picks are made, and the seconds for all are extrapolated from them, marked ~. Ours always makes all.
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


def matrix_vector_pass(points: Tensor, count: int) -> Tensor:
    """One pass per pick at its tightest: norms kept, points laid out for the product of all with one."""
    distance, columns, chosen = first_distance(points).square(), points.T.contiguous(), []
    norms = columns.square().sum(0)
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        new = torch.mv(columns.T, columns[:, chosen[-1]]).mul_(-2).add_(norms).add_(norms[chosen[-1]])
        distance = torch.minimum(distance, new.clamp_min_(0))
    return torch.tensor(chosen)


def whole_table(points: Tensor, count: int) -> Tensor:
    """Brute force: the table of all distances first."""
    table, distance, chosen = torch.cdist(points, points), first_distance(points), []
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, table[chosen[-1]])
    return torch.tensor(chosen)


def seconds(choose: Callable[[Tensor, int], object], points: Tensor, count: int, repeats: int) -> float:
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
    parser.add_argument("--part", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads, {DIM} dimensions")
    print(f"{'points':>8} {'picks':>7} {'way':<18} {'seconds':>10} {'of ours':>9}  the same picks as ours")
    for size in arguments.points:
        points = torch.rand(size, DIM, generator=torch.Generator().manual_seed(1)).to(arguments.device)
        count = max(1, int(size * arguments.ratio))
        kept: list[Tensor] = []
        base = seconds(lambda *given, to=kept: to.append(ours(*given)), points, count, arguments.repeats)
        print(f"{size:>8} {count:>7} {'ours':<18} {base:>10.3f} {1:>8.1f}x", flush=True)
        part = min(count, arguments.part)
        before = seconds(lambda points, _: first_distance(points), points, 0, arguments.repeats)
        loops = [plain_pass, expanded_pass, matrix_vector_pass]
        for way in loops + ([whole_table] if size <= 10_000 else []):
            chosen: list[Tensor] = []
            made = part if way in loops else count
            took = seconds(
                lambda *given, way=way, to=chosen: to.append(way(*given)), points, made, arguments.repeats
            )
            took += max(0.0, took - before) * (count - made) / made
            same = (chosen[-1].cpu() == kept[-1][:made]).float().mean().item()
            text = f"{'~' if made < count else ''}{took:.3f}"
            print(
                f"{size:>8} {count:>7} {way.__name__:<18} {text:>10} {took / base:>8.1f}x"
                f"  {same:.1%} of {made}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""A few points that lie close to all: greedy k-centre selection (arXiv:2106.08265, Alg. 1).

The choice is that of the plain loop, which after every pick passes over all points. Here it passes over few:

* Distances to the chosen points only fall. So a distance that leaves out the latest picks is at most too
  large, and a point needs no other as long as even that is no match for the farthest. The loop runs in a
  POOL of the farthest points until another may be farther. Then those of the largest distances catch up with
  the picks that they missed, as matrix products; most points never do, as they lie close to early picks.
* The product, in bfloat16 where that is quick (`bounds`), only says which picks may be nearer: the most that
  rounding can have added to a distance is taken off. Those few are then computed from plain differences in
  double precision, in one fixed order. So what is chosen depends neither on the sizes of pool and blocks nor
  on the number of threads, and equally far points are told apart by their index, as in the plain loop.

The pool is in the CPU's memory: the steps in it are too small for a GPU, which does the matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ad_bench.parts.bounds import UNIT, Floats, half_is_fast
from ad_bench.parts.exact import exact_products, squared_distances, sums_of_rows

T = TypeVar("T", Tensor, NDArray[np.float64])
Track = Callable[..., Iterator[int]]
ROWS = 1 << 16  # of points that are projected at a time: bounds the memory
POOL = 1024  # farthest points among which the loop runs: their 512 kB (D = 128) stay in a core's cache
CATCH_UP = 8192  # points of the largest distances that catch up at a time on a CPU; on a GPU all do
PICKS = 2048  # missed picks that are applied at a time
STEP = 256  # in multiples of it points and picks are multiplied: oneDNN compiles code for every size anew
LANE = 16  # picks of which only the least squared distance is looked at, in most cases
TINY = 2.0**-120  # per dimension, the most that products may lose where they are too small for a float
_TAKEN = -1.0  # below every distance: a chosen point is never chosen again


def greedy_coreset(points: Tensor, count: int, start: int, track: Track | None = None) -> Tensor:
    """Indices (count,) of k centres of `points` (N, D): first `start`, then the farthest from all so far.

    The covering radius is at most twice the best possible (Gonzalez 1985). Never twice the same point; of
    equally far ones the first.
    """
    count = _checked(points, count)
    if not -len(points) <= start < len(points):
        raise ValueError(f"start is the index of one of {len(points)} points; got {start}")
    first = torch.tensor([start % len(points)])
    distance = _mean_distance(points, first)
    distance[start] = _TAKEN
    return torch.cat([first, _farthest_first(points, distance, count - 1, track)])


def approximate_greedy_coreset(
    points: Tensor,
    count: int,
    generator: torch.Generator,
    projection_dim: int | None = 128,
    starts: int = 10,
    track: Track | None = None,
) -> Tensor:
    """Indices (count,) of k centres of `points` (N, D), chosen in a random linear projection.

    As in PatchCore's reference: the projection is an untrained linear layer without bias (none if the points
    have `projection_dim` dimensions already, or if it is None); before the first choice a point counts as far
    as its mean distance to `starts` random points, which are not chosen by that. All points if count >= N.
    """
    if count >= len(points) > 0:
        return torch.arange(len(points))
    count = _checked(points, count)
    if projection_dim is not None and projection_dim != points.shape[1]:
        points = random_projection(points, projection_dim, generator)
    seeds = torch.randperm(len(points), generator=generator)[:starts]
    return _farthest_first(points, _mean_distance(points, seeds), count, track)


def random_projection(points: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """(N, D) -> (N, dim) through the initial weights of torch's nn.Linear(D, dim, bias=False)."""
    bound = 1 / math.sqrt(points.shape[1])
    matrix = torch.empty(points.shape[1], dim).uniform_(-bound, bound, generator=generator).to(points)
    out = points.new_empty(len(points), dim)
    for row in range(0, len(points), ROWS):
        torch.mm(points[row : row + ROWS], matrix, out=out[row : row + ROWS])
    return out


def _checked(points: Tensor, count: int) -> int:
    if points.ndim != 2 or points.numel() == 0:
        raise ValueError(f"points have the shape (N, D) with N and D > 0; got {tuple(points.shape)}")
    if not count >= 1:
        raise ValueError(f"count is a number of points, at least 1; got {count}")
    return min(count, len(points))


@torch.no_grad()
def _farthest_first(points: Tensor, distance: Tensor, count: int, track: Track | None) -> Tensor:
    """`count` times the point of the largest `distance` (N,), which shrinks where the new point is nearer."""
    steps: Iterable[int] = range(count)
    with exact_products(points.device), torch.autocast("cpu", enabled=False):
        loop = _Loop(points, distance, count)
        for _ in track(steps, count, "coreset") if track else steps:
            loop.pick()
    return torch.tensor(loop.chosen, dtype=torch.long)


class _Loop:
    """The state of the greedy loop: the picks, a distance for every point, and the pool.

    distance[x] leaves out the picks from the seen[x]-th on: right if there are none, else at most too large.
    A point that is in the pool has its distance there, always right, and -inf here.
    """

    def __init__(self, points: Tensor, distance: Tensor, count: int):
        self.points, self.distance = points, distance
        self.mean, self.scale, self.norms = _bounding(points)
        self.numbers = Floats(half_is_fast(points.device))
        self.seen = torch.zeros(len(points), dtype=torch.int32, device=points.device)
        self.chosen: list[int] = []
        self.known = 0  # of the chosen, those in the three tensors; in the places of the others none is near
        size = _whole(count)
        self.centres = torch.zeros(size, dtype=torch.long, device=points.device)
        nowhere = self._places(self.centres[:1])
        nowhere = self.numbers.of_bank(nowhere[0] * 0, torch.full_like(nowhere[1], math.inf))
        self.right = nowhere.repeat(size, 1)
        self.longest = self.most_moved = torch.zeros((), device=points.device)
        self._take(_largest(distance, POOL))

    def pick(self) -> int:
        """The index of the farthest point, which counts as chosen from then on."""
        row, index = self._farthest()
        # Of others as far as this one the first is due; or none is if theirs is too large: a refill tells.
        while (-self.pool_distance[row], index) > self.others:
            self._refill()
            row, index = self._farthest()
        self.chosen.append(index)
        self.pool_distance[row] = _TAKEN
        self._approach_pool(row)
        return index

    def _farthest(self) -> tuple[int, int]:
        row = int(self.pool_distance.argmax())
        return row, int(self.pool_index[row])

    def _approach_pool(self, row: int) -> None:
        """Distances within the pool <- min(they, those to the pool's point `row`)."""
        low = torch.mv(self.pool_near, self.pool_minus[row], out=self.pool_low).numpy()
        rows = np.flatnonzero(low < self.pool_limit - self.pool_norms[row])
        if len(rows):
            new = np.sqrt(sums_of_rows((self.pool_points[rows] - self.pool_points[row]) ** 2))
            self.pool_distance[rows] = new = np.minimum(new, self.pool_distance[rows])
            self.pool_limit[rows] = _limit(new, self.pool_norms[rows])

    def _refill(self) -> None:
        """Points of the largest distances catch up; then refill the pool with the farthest that have."""
        now = len(self.chosen)
        if self.known < now:
            self._know(torch.tensor(self.chosen[self.known :], device=self.points.device))
        self.distance[self.pool] = torch.from_numpy(self.pool_distance).to(self.distance.device)
        self.seen[self.pool] = now
        due = float(np.sort(self.pool_distance)[len(self.pool_distance) * 3 // 4])
        rows = _largest(self.distance, CATCH_UP if self.points.device.type == "cpu" else len(self.points))
        self._catch_up(rows[self.seen[rows] < now], due)
        fresh = (self.seen == now).nonzero()[:, 0]
        self._take(fresh[_largest(self.distance[fresh], POOL)])

    def _know(self, new: Tensor) -> None:
        """Take the picks `new` (P,) to those that the others catch up with."""
        place = slice(self.known, self.known + len(new))
        places, lengths, moved = self._places(new)
        self.centres[place], self.right[place] = new, self.numbers.of_bank(places, lengths)
        self.longest = torch.maximum(self.longest, lengths.amax())
        self.most_moved = torch.maximum(self.most_moved, moved.amax())
        self.known = place.stop

    def _take(self, pool: Tensor) -> None:
        """Let the points `pool` (M,), ascending, be the pool; note the farthest of the others."""
        self.pool, self.pool_index = pool, pool.cpu().numpy()
        distance, norms, near = self.distance[pool], self.norms[pool], self._near(pool).cpu()
        self.pool_points = self.points[pool].double().cpu().numpy()
        self.pool_near, self.pool_minus, self.pool_low = near, near * -2, torch.empty(len(pool))
        self.pool_distance, self.pool_norms = distance.cpu().numpy(), norms.cpu().numpy()
        self.pool_limit = _limit(distance, norms).float().cpu().numpy()
        self.distance[pool] = -math.inf
        value, first = self.distance.max(0)  # of equals the first
        self.others = (-value.item(), int(first))

    def _catch_up(self, rows: Tensor, due: float) -> None:
        """Apply to the points `rows` the picks that they miss, for as long as they lie as far as `due`."""
        if not len(rows):
            return
        now = self.known
        seen, order = self.seen[rows].sort()
        rows = rows[order]
        width = min(PICKS, _whole(now) - int(seen[0]) // STEP * STEP)
        size = _block(self.points, width)
        for part, start in zip(rows.split(size), seen[::size].tolist(), strict=True):
            near, lengths, moved = self._places(part)
            places, begin = (self.numbers.of_points(near, lengths), lengths, moved), start // STEP * STEP
            while begin < now and len(part):
                end = min(begin + width, _whole(now))
                self._approach(part, places, begin, end)
                begin = end
                if begin < now:
                    far = self.distance[part] >= due
                    self.seen[part[~far]] = begin
                    part, places = part[far], tuple(one[far] for one in places)
            self.seen[part] = now

    def _approach(self, rows: Tensor, places: tuple[Tensor, ...], begin: int, end: int) -> None:
        """distance[rows] <- min(it, the distances to the picks from `begin` to `end`)."""
        left, lengths, moved = places
        left = F.pad(left, (0, 0, 0, _whole(len(rows)) - len(rows)))
        table = self.numbers.product(left, self.right[begin:end])[: len(rows)]
        low = table.view(len(rows), LANE, -1)
        least = self.numbers.least(low, lengths)
        # What the product says of a distance is that of two places, each up to `moved` from its point.
        moved, rounding = moved + self.most_moved, self.numbers.rounding
        slack = self.numbers.slack_of(lengths, self.longest, left.shape[1])
        known = self.distance[rows] * self.scale
        found = (least.amin(1).clamp(min=0) * rounding + slack).sqrt() + moved
        limit = (torch.minimum(known.float() * (1 + 1e-6), found) + moved).square().add_(slack).mul_(rounding)
        limit.masked_fill_(known <= 0, -math.inf)
        row, lane = (least <= limit[:, None]).nonzero(as_tuple=True)
        inside = self.numbers.inside(low, lengths, row, lane)
        pair, place = (inside <= limit[row, None]).nonzero(as_tuple=True)
        centres = self.centres[begin + lane[pair] + place * low.shape[2]]
        rows, size = rows[row[pair]], _block(self.points, 8 * self.points.shape[1])
        for some, centre in zip(rows.split(size), centres.split(size), strict=True):
            new = _distances(self.points.index_select(0, some), self.points.index_select(0, centre))
            self.distance.scatter_reduce_(0, some, new, "amin")

    def _places(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The points `rows` as a product takes them, their squared lengths, how far rounding has moved each."""
        near = self._near(rows) * self.scale
        places, lengths, moved = self.numbers.rounded(near)
        return places, lengths, moved + 2 * UNIT * lengths.sqrt()

    def _near(self, rows: Tensor) -> Tensor:
        """The points `rows` around the mean of all, in single precision."""
        return (self.points.index_select(0, rows) - self.mean).float()


def _bounding(points: Tensor) -> tuple[Tensor, float, Tensor]:
    """The mean (D,) of `points`; what brings them around it to about 1; their squared norms, made smaller (N,).

    So much smaller that |x|^2 - 2xy + |y|^2, from these norms and in single precision, never exceeds the
    squared distance: x y is off by at most (D + some) u |x| |y|, u = 2^-24, where |x| |y| is at most
    (|x|^2 + |y|^2) / 2. Around the mean norms are small, and so is what is taken.
    """
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    blocks = points.split(_block(points, points.shape[1]))
    for block in blocks:
        total += block.double().sum(0)
    mean = (total / len(points)).to(dtype)
    near = ((block - mean).float() for block in blocks)
    norms = torch.cat([torch.linalg.vecdot(x, x) for x in near]).double()
    if not norms.isfinite().all():
        raise ValueError("points need finite squared norms; got some that are nan or infinite")
    largest = norms.amax().sqrt().item()
    scale = 2.0 ** -max(-126, min(126, math.frexp(largest)[1])) if largest else 1.0
    share = 2 * (points.shape[1] + 16) * UNIT
    return mean, scale, (norms * (1 - share) - TINY * points.shape[1]).float()


def _limit(distance: T, norms: T) -> T:
    """What |y|^2 - 2xy must be below for y to be nearer to x than `distance` is; -inf if none can be."""
    limit = distance * distance - norms
    limit[distance <= 0] = -math.inf
    return limit


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(P, D), (P, D) or (D,) -> distances (P,) in double precision."""
    return squared_distances(x, y).sqrt()


def _largest(values: Tensor, count: int) -> Tensor:
    """Where the `count` largest of `values` (N,) are, ascending; of equals the first ones."""
    if count >= len(values):
        return torch.arange(len(values), device=values.device)
    least = values.topk(count, sorted=False).values.min()
    inside = values > least
    equal = (values == least).nonzero()[:, 0]
    inside[equal[: count - int(inside.sum())]] = True
    return inside.nonzero()[:, 0]


def _mean_distance(points: Tensor, seeds: Tensor) -> Tensor:
    """(N,): the mean distance to the points `seeds`."""
    centres = points[seeds.to(points.device)]
    total = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    size = _block(points, 8 * points.shape[1])
    for sums, block in zip(total.split(size), points.split(size), strict=True):
        for centre in centres:
            sums += _distances(block, centre)
    return total / len(seeds)


def _whole(count: int) -> int:
    return math.ceil(count / STEP) * STEP


def _block(points: Tensor, width: int) -> int:
    """How many rows of `width` make a table that a CPU's cache holds, or that keeps a GPU busy."""
    return max(1, (1 << 22 if points.device.type == "cpu" else 1 << 24) // max(1, width))

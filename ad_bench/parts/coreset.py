"""A few points that lie close to all: greedy k-centre selection (arXiv:2106.08265, Alg. 1).

The choice is that of the plain loop, which after every pick passes over all points. Here it passes over few:

* Distances to the chosen points only fall. So the POOL farthest points are kept apart, and the loop runs
  among them for as long as its farthest one lies beyond all others' distances of their last update. Only
  then are the picks since, up to PENDING of them, applied to all points, as one matrix product.
* The product, in single precision, only says which distances may have fallen: from |x|^2 - 2xy + |y|^2 the
  most that rounding can have added is taken off. Those few are then computed from plain differences in
  double precision, in one fixed order. So what is chosen depends neither on the sizes of pool and blocks nor
  on the number of threads, and equally far points are told apart by their index, as in the plain loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

Track = Callable[..., Iterator[int]]
ROWS = 1 << 16  # of points that are projected at a time: bounds the memory
POOL = 4096  # farthest points among which the loop runs: their 2 MB (D = 128) stay in a core's cache
PENDING = 256  # picks applied to all points at a time: enough for a matrix product to run at full speed
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
    chosen: list[int] = []
    steps: Iterable[int] = range(count)
    with torch.autocast(points.device.type, enabled=False):
        loop = _Loop(points, distance)
        for _ in track(steps, count, "coreset") if track else steps:
            chosen.append(loop.pick())
    return torch.tensor(chosen, dtype=torch.long)


class _Loop:
    """The state of the greedy loop over all points, and of the pool within."""

    def __init__(self, points: Tensor, distance: Tensor):
        self.points, self.distance = points, distance
        self.near, self.norms = _bounding(points)
        self.pending: list[int] = []
        self._fill()

    def pick(self) -> int:
        """The index of the farthest point, which counts as chosen from then on."""
        value, row = self.pool_distance.max(0)
        far, index = value.item(), int(self.pool_index[row])
        # Of others as far as this one the first is due. Their distances may have fallen since: then they are
        # not due after all, but only an update tells.
        if (-far, index) > self.others or (len(self.pending) >= PENDING and self.others[0] < math.inf):
            self._update()
            self._fill()
            value, row = self.pool_distance.max(0)
            index = int(self.pool_index[row])
        self.pending.append(index)
        self.pool_distance[row] = _TAKEN
        self._approach_pool(row)
        return index

    def _fill(self) -> None:
        """Take the farthest points into the pool; note the farthest of the others, of equals the first."""
        distance, self.others = self.distance, (math.inf, 0)
        if len(distance) <= POOL:
            self.pool_index = torch.arange(len(distance), device=distance.device)
        else:
            least = distance.topk(POOL, sorted=False).values.min()
            inside = distance > least
            equal = (distance == least).nonzero()[:, 0]
            inside[equal[: POOL - int(inside.sum())]] = True
            self.pool_index = inside.nonzero()[:, 0]  # ascending: the first of equals is that of all points
            value, first = distance.masked_fill(inside, _TAKEN).max(0)
            self.others = (-value.item(), int(first))
        self.pool_points = self.points[self.pool_index]
        self.pool_near, self.pool_norms = self.near[self.pool_index], self.norms[self.pool_index]
        self.pool_distance = distance[self.pool_index]
        self.pool_limit = _limit(self.pool_distance, self.pool_norms)

    def _approach_pool(self, row: Tensor) -> None:
        """Distances within the pool <- min(they, those to the pool's point `row`)."""
        low = torch.mv(self.pool_near, self.pool_near[row] * -2)
        rows = (low < self.pool_limit - self.pool_norms[row]).nonzero()[:, 0]
        new = _distances(self.pool_points[rows], self.pool_points[row])
        new = torch.minimum(new, self.pool_distance[rows])
        self.pool_distance[rows] = new
        self.pool_limit[rows] = _limit(new, self.pool_norms[rows])

    def _update(self) -> None:
        """All distances <- min(they, those to the pending points)."""
        centres = torch.tensor(self.pending, device=self.points.device)
        self.pending = []
        self.distance[self.pool_index] = self.pool_distance  # those are up to date
        limit = _limit(self.distance, self.norms)
        near, norms, size = self.near[centres].T, self.norms[centres], _block(self.points, len(centres))
        for begin in range(0, len(limit), size):
            low = torch.addmm(norms, self.near[begin : begin + size], near, alpha=-2)
            rows = (low.amin(1) < limit[begin : begin + size]).nonzero()[:, 0]
            low = low[rows]
            column = low.argmin(1)  # the likely nearest first: that leaves few of the others to look at
            self._approach(rows + begin, centres[column])
            low[torch.arange(len(rows), device=rows.device), column] = math.inf
            rows += begin
            left, column = (low < _limit(self.distance[rows], self.norms[rows])[:, None]).nonzero(
                as_tuple=True
            )
            self._approach(rows[left], centres[column])

    def _approach(self, rows: Tensor, centres: Tensor) -> None:
        """distance[rows] <- min(it, the distance to the points `centres`), in pairs; a row may recur."""
        size = _block(self.points, self.points.shape[1])
        for row, centre in zip(rows.split(size), centres.split(size), strict=True):
            new = _distances(self.points[row], self.points[centre])
            self.distance.scatter_reduce_(0, row, new, "amin")


def _bounding(points: Tensor) -> tuple[Tensor, Tensor]:
    """`points` around their mean in single precision (N, D), and their squared norms made smaller (N,).

    So much smaller that |x|^2 - 2xy + |y|^2, from these norms and in single precision, never exceeds the
    squared distance: x y is off by at most (D + some) u |x| |y|, u = 2^-24, where |x| |y| is at most
    (|x|^2 + |y|^2) / 2. Twice that is taken, for matrix units that cut off instead of rounding. Around the
    mean norms are small, and so is what is taken.
    """
    points = points if points.dtype == torch.float64 else points.float()
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    for block in points.split(_block(points, points.shape[1])):
        total += block.double().sum(0)
    near = (points - (total / len(points)).to(points.dtype)).float()
    norms = torch.linalg.vecdot(near, near).double()
    if not norms.isfinite().all():
        raise ValueError("points need finite squared norms; got some that are nan or infinite")
    inputs = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    unit = 2.0**-24
    return near, (norms * (1 - inputs - 2 * (points.shape[1] + 16) * unit)).float()


def _limit(distance: Tensor, norms: Tensor) -> Tensor:
    """What |y|^2 - 2xy must be below for y to be nearer to x than `distance` is; nothing is if x is taken."""
    return (distance.square() - norms).float().masked_fill_(distance < 0, -math.inf)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(P, D), (P, D) or (D,) -> distances (P,) in double precision.

    Summed by halves, elementwise: a built-in sum may add in another order for another P, and equals differ.
    """
    squares = (x.double() - y.double()).square_()
    while (width := squares.shape[1]) > 1:
        half = width // 2
        squares[:, :half] += squares[:, width - half :]
        squares = squares[:, : width - half]
    return squares[:, 0].sqrt()


def _mean_distance(points: Tensor, seeds: Tensor) -> Tensor:
    """(N,): the mean distance to the points `seeds`."""
    centres = points[seeds.to(points.device)]
    total = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    size = _block(points, points.shape[1])
    for sums, block in zip(total.split(size), points.split(size), strict=True):
        for centre in centres:
            sums += _distances(block, centre)
    return total / len(seeds)


def _block(points: Tensor, width: int) -> int:
    """How many rows of `width` make a table that a CPU's cache holds, or that keeps a GPU busy."""
    return max(1, (1 << 21 if points.device.type == "cpu" else 1 << 22) // max(1, width))

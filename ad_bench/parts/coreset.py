"""A few points that lie close to all: greedy k-centre selection (arXiv:2106.08265, Alg. 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

Track = Callable[..., Iterator[int]]
ROWS = 1 << 16  # of points that are projected at a time: bounds the memory


def greedy_coreset(points: Tensor, count: int, start: int, track: Track | None = None) -> Tensor:
    """Indices (count,) of k centres of `points` (N, D): first `start`, then the farthest from all so far.

    The covering radius is at most twice the best possible (Gonzalez 1985). Never twice the same point; of
    equally far ones the first.
    """
    count = _checked(points, count)
    if not -len(points) <= start < len(points):
        raise ValueError(f"start is the index of one of {len(points)} points; got {start}")
    columns, norms = _centred(points)
    distance = torch.full_like(norms, math.inf)
    distance[start] = _TAKEN
    _approach(distance, columns, norms, start)
    chosen = _farthest_first(columns, norms, distance, count - 1, track)
    return torch.cat([torch.tensor([start % len(points)]), chosen])


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
    seeds = torch.randperm(len(points), generator=generator)[:starts].to(points.device)
    total = points.new_zeros(len(points))
    for seed in seeds:
        total += (points - points[seed]).square().sum(1).sqrt()
    distance = (total / len(seeds)).square()  # squared like all others: the order stays, and so the choice
    columns, norms = _centred(points)
    del points
    return _farthest_first(columns, norms, distance, count, track)


def random_projection(points: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """(N, D) -> (N, dim) through the initial weights of torch's nn.Linear(D, dim, bias=False)."""
    bound = 1 / math.sqrt(points.shape[1])
    matrix = torch.empty(points.shape[1], dim).uniform_(-bound, bound, generator=generator).to(points)
    out = points.new_empty(len(points), dim)
    for row in range(0, len(points), ROWS):
        torch.mm(points[row : row + ROWS], matrix, out=out[row : row + ROWS])
    return out


_TAKEN = -1.0  # below every squared distance: a chosen point is never chosen again


def _checked(points: Tensor, count: int) -> int:
    if points.ndim != 2 or len(points) == 0:
        raise ValueError(f"points have the shape (N, D) with N > 0; got {tuple(points.shape)}")
    if not count >= 1:
        raise ValueError(f"count is a number of points, at least 1; got {count}")
    return min(count, len(points))


def _centred(points: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) -> (D, N) around their mean, and the squared norms (N,).

    Around the mean |x|^2 - 2xy + |y|^2 loses fewer digits. Laid out so, the product of all points with one,
    which is done for every choice, takes a third of the time.
    """
    columns = points.T.clone(memory_format=torch.contiguous_format)
    columns -= columns.mean(1, keepdim=True)
    return columns, columns.square().sum(0)


def _farthest_first(
    columns: Tensor, norms: Tensor, distance: Tensor, count: int, track: Track | None
) -> Tensor:
    """`count` times the point of the largest `distance`, which shrinks where the new point is nearer."""
    chosen = torch.empty(count, dtype=torch.long, device=columns.device)
    steps: Iterable[int] = range(count)
    for step in track(steps, count, "coreset") if track else steps:
        farthest = distance.argmax()
        chosen[step] = farthest
        distance[farthest] = _TAKEN
        _approach(distance, columns, norms, farthest)
    return chosen.cpu()


def _approach(distance: Tensor, columns: Tensor, norms: Tensor, centre: Tensor | int) -> None:
    """distance <- min(distance, squared distance to the point `centre`), in place."""
    product = torch.mv(columns.T, columns[:, centre])
    new = product.mul_(-2).add_(norms).add_(norms[centre]).clamp_min_(0)
    torch.minimum(distance, new, out=distance)

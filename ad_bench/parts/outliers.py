"""Which points stand apart from their neighbours: the local outlier factor (Breunig et al., SIGMOD 2000).

Of our own because SoftPatch asks for one factor in each of hundreds of groups: batched, on the device of the
features. scikit-learn's, which the tests hold it against, takes one group at a time, on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ad_bench.errors import UsageError

CELLS = 1 << 22  # of the tables of distances that are held at a time, a few of them: 16 MB each
TINY = 1e-10  # keeps the density of coinciding points finite, as in scikit-learn


@torch.no_grad()
def local_outlier_factor(groups: Tensor, neighbors: int) -> Tensor:
    """(P, N, D) -> (P, N): how many times denser the points around a point lie than itself; about 1 inside.

    Each of the P groups on its own. `neighbors` above N - 1 counts as N - 1; a point without company has 1.
    """
    if neighbors < 1:
        raise UsageError(f"the local outlier factor takes at least 1 neighbour; got {neighbors}")
    count = groups.shape[1]
    if count < 2:
        return torch.ones_like(groups[..., 0])
    step = max(1, CELLS // (count * count))
    return torch.cat([_factors(part, min(neighbors, count - 1)) for part in groups.split(step)])


def _factors(points: Tensor, neighbors: int) -> Tensor:
    # Plain differences: the quick formula would lose the digits of points that lie close to each other.
    table = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    table.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # nobody is a neighbour of itself
    distance, index = table.topk(neighbors, dim=2, largest=False)
    reach = torch.maximum(distance, _of(distance[..., -1], index))
    density = 1 / (reach.mean(2) + TINY)
    return _of(density, index).mean(2) / density


def _of(values: Tensor, index: Tensor) -> Tensor:
    """values (P, N) of the points `index` (P, N, k)."""
    return values.gather(1, index.flatten(1)).view(index.shape)

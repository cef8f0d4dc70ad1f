"""Self-organising maps: nodes on a grid, each at the mean of the rows nearest to it and its neighbours.

Kohonen, Self-organized formation of topologically correct feature maps, 1982; here all rows in each round.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ad_bench.parts.exact import exact_products
from ad_bench.parts.kmeans import closest, totals


@torch.no_grad()
def batch_som(
    rows: Tensor, nodes: Tensor, grid: tuple[int, int], radii: Iterable[float]
) -> tuple[Tensor, Tensor]:
    """Nodes (h * w, D) after one round with each of `radii`, and the node (N,) that each row had in the last.

    In a round each of the rows (N, D) goes to its nearest node, and each node to the mean of all rows, with
    weights exp(-g^2 / (2 radius^2)), g its distance on the grid (h, w) to a row's node. With a radius near 0
    that is k-means. A node that no row weighs on stays. The rows' nodes are those before the last move.
    """
    places = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float64) for side in grid)).to(rows.device)
    apart = (places[:, None] - places).square().sum(2)
    owner = torch.empty(0, dtype=torch.long)
    for radius in radii:
        owner = closest(rows, nodes)
        total, count = totals(rows, owner, len(nodes))
        weight = torch.exp(-apart / (2 * radius**2))
        with exact_products(rows.device):
            mass = weight @ count.double()
            moved = weight @ total / mass[:, None]
        nodes = torch.where(mass[:, None] > 0, moved, nodes.double()).to(nodes)
    return nodes, owner


def falling(first: float, last: float, rounds: int) -> list[float]:
    """`rounds` radii from `first` to `last` in equal steps."""
    return torch.linspace(first, last, rounds, dtype=torch.float64).tolist()

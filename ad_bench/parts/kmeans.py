"""k-means by Lloyd's rounds, on any device, in blocks of rows; its two steps serve other clusterings too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ad_bench.parts.exact import exact_products

CELLS = 1 << 22  # of the table rows x centres that is held at a time: 16 MB
CELLS_GPU = 1 << 26


@torch.no_grad()
def kmeans(
    rows: Tensor,
    centres: Tensor,
    rounds: int,
    shift: float,
    owners: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Centres (K, D) of rows (N, D), from the given ones (K, D), after at most `rounds` rounds.

    It ends once all centres together move by less than `shift`. A centre that owns no row stays where it is.
    `owners` takes the place of `closest`.
    """
    for _ in range(rounds):
        total, count = totals(rows, (owners or closest)(rows, centres), len(centres))
        moved = torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), centres).to(centres)
        way = (moved - centres).square().sum(1).sqrt().sum().item()
        centres = moved
        if way < shift:
            break
    return centres


@torch.no_grad()
def closest(rows: Tensor, centres: Tensor) -> Tensor:
    """The nearest of the centres (K, D) to each of the rows (N, D): (N,); of equally near ones the first."""
    found = torch.empty(len(rows), dtype=torch.long, device=rows.device)
    step = max(1, (CELLS if rows.device.type == "cpu" else CELLS_GPU) // len(centres))
    norms = centres.square().sum(1)
    with exact_products(rows.device):
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            # |x - c|^2 without |x|^2, which is the same for all centres
            found[part] = torch.addmm(norms, rows[part], centres.T, alpha=-2).argmin(1)
    return found


@torch.no_grad()
def totals(rows: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums (count, D) in double precision of the rows (N, D) of each owner, and how many (count,)."""
    total = torch.zeros(count, rows.shape[1], dtype=torch.float64, device=rows.device)
    step = max(1, (CELLS if rows.device.type == "cpu" else CELLS_GPU) // rows.shape[1])
    for part, whose in zip(rows.split(step), owner.split(step), strict=True):
        total.index_add_(0, whose, part.double())
    return total, torch.bincount(owner, minlength=count)

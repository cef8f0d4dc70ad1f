"""Layers of a transformer that tell their tokens' places to queries and keys, and may hide near ones.

Vaswani et al., NeurIPS 2017; places as in DETR (Carion et al., ECCV 2020); the norm follows each sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError


class Attention(nn.Module):
    """Tokens (B, N, width) look at `source` (B, M, width): norm(tokens + what they found)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)

    def forward(self, tokens: Tensor, source: Tensor, places: Tensor, hidden: Tensor | None = None) -> Tensor:
        """`places` (N, width) are added to both to compare them; `hidden` (N, M): True where they are not."""
        found, _ = self.attention(
            tokens + places, source + places, source, attn_mask=hidden, need_weights=False
        )
        return self.norm(tokens + self.dropout(found))


class FeedForward(nn.Module):
    """(B, N, width) -> the same: norm(tokens + two linear layers of each)."""

    def __init__(self, width: int, inner: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, inner),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(inner, width),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        return self.norm(tokens + self.layers(tokens))


class LearnedPlaces(nn.Module):
    """() -> (h * w, width): a learnt vector of the column, then one of the row, for each cell of a grid."""

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        if width % 2:
            raise UsageError(f"places are half columns, half rows, an even width; got {width}")
        self.rows, self.columns = nn.Embedding(grid[0], width // 2), nn.Embedding(grid[1], width // 2)
        nn.init.uniform_(self.rows.weight)
        nn.init.uniform_(self.columns.weight)

    def forward(self) -> Tensor:
        """See the class."""
        rows, columns = self.rows.weight[:, None], self.columns.weight[None]
        size = (rows.shape[0], columns.shape[1], -1)
        return torch.cat([columns.expand(size), rows.expand(size)], 2).flatten(0, 1)


def neighbourhood(grid: tuple[int, int], size: int) -> Tensor:
    """(N, N) for the N = h * w cells of a grid: True for the `size` x `size` cells around each, itself too.

    UsageError where that is all there is for some cell: an attention that may look nowhere is NaN.
    """
    if size < 1 or size % 2 == 0:
        raise UsageError(f"a neighbourhood is an odd number of cells wide; got {size}")
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    near = apart <= size // 2
    if near.all(1).any():
        raise UsageError(
            f"a neighbourhood of {size} x {size} covers the whole grid of {grid[0]} x {grid[1]} cells from "
            "some of them: take a smaller one, or larger images"
        )
    return near

"""Squared distances between all of some points and all rows of a bank, as one product in quick numbers.

The points are rounded to what the product takes: float32, bfloat16 or, on a CPU with instructions for them,
bytes. How far this moves every point is told, and how far off the sums may be: they are bounds then.

A table of them is (N, block, W): of each of W blocks of rows only the least counts at first.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

UNIT = 2.0**-24  # most that rounding to float32 changes a number by, as a share of it
MOST = 127  # of a byte
RARE = 1e-3  # share of coordinates too large for a byte
SHARES = 64  # at most so many bytes for one length

Kind = Literal["float32", "bfloat16", "int8"]


class Numbers(Protocol):
    """Coordinates as a product takes them. `unit`: what one of the coordinates' own is in them."""

    unit: float
    half: bool

    def rounded(self, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C) -> places (N, C'), their squared lengths (N,), how far they are from where they were (N,)."""

    def lay_out(self, places: Tensor, lengths: Tensor, block: int) -> None:
        """Take the rows of the bank, in the order (block, W); an infinite length is infinitely far."""

    def table(self, places: Tensor, lengths: Tensor) -> Tensor:
        """(N, C'), (N,) -> (N, block, W): for `least` and `inside`; overwritten by the next."""

    def least(self, table: Tensor, lengths: Tensor) -> Tensor:
        """(N, W): at most the least squared distance to a row of the block, but for `slack`."""

    def inside(self, table: Tensor, lengths: Tensor, query: Tensor, block: Tensor) -> Tensor:
        """(P, block): the squared distances of queries (P,) to the rows of blocks (P,)."""

    def slack(self, lengths: Tensor) -> Tensor:
        """(N,): most that rounding in the sums adds to a squared distance."""


class Floats:
    """float32 or bfloat16, added up in float32: the product of [-2x, |x|^2, 1] and [y, 1, |y|^2]."""

    unit = 1.0

    def __init__(self, half: bool):
        self.half, self.out = half, _Buffer()

    def rounded(self, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.half:
            return near, squares(near), near.new_zeros(len(near))
        rounded = near.bfloat16()
        wide = rounded.float()
        return rounded, squares(wide), squares(wide - near).sqrt() * 1.001

    def lay_out(self, places: Tensor, lengths: Tensor, block: int) -> None:
        real = lengths.isfinite()
        self.right = self._joined(places, lengths.where(real, 0), left=False)
        self.right[~real, -1] = torch.inf
        self.longest, self.block = lengths[real].amax(), block

    def table(self, places: Tensor, lengths: Tensor) -> Tensor:
        left = self._joined(places, lengths, left=True)
        if left.is_cuda and self.half:
            out = torch.mm(left, self.right.T, out_dtype=torch.float32)
        else:
            out = torch.mm(left, self.right.T, out=self.out.of(len(left), len(self.right), left))
        return out.view(len(left), self.block, -1)

    def least(self, table: Tensor, lengths: Tensor) -> Tensor:
        if table.dtype == torch.bfloat16:  # as whole numbers they have the same order, where none is negative
            return table.view(torch.int16).amin(1).view(torch.bfloat16).float()
        return table.amin(1).float()

    def inside(self, table: Tensor, lengths: Tensor, query: Tensor, block: Tensor) -> Tensor:
        return table[query, :, block].float()

    def slack(self, lengths: Tensor) -> Tensor:
        share = 4 * (self.right.shape[1] + 16) * UNIT + (2.0**-15 if self.half else 0)
        return (lengths + self.longest) * share + 1e-30

    def _joined(self, places: Tensor, lengths: Tensor, left: bool) -> Tensor:
        high = lengths[:, None].to(places.dtype)
        low = (lengths[:, None] - high).to(places.dtype)  # what bfloat16 left of them
        parts = [low, high] if self.half else [high]
        ones = torch.ones_like(high).expand(-1, len(parts))
        return torch.cat([places * -2, *parts, ones] if left else [places, ones, *parts], 1)


class Bytes:
    """Whole numbers from -127 to 127, added up without any rounding: |x|^2 + |y|^2 - 2xy.

    The last of the coordinates is a length beside all others, and larger than they are: it becomes some equal
    ones. Blocks are of rows of similar lengths, so that of a block the largest product will do.
    """

    half = False

    def __init__(self, sample: Tensor):
        """`sample` (n, C): rows of the bank, to choose the unit by."""
        along, rest = sample[:, :-1].abs().flatten(), sample[:, -1]
        rare = max(1, int(RARE * len(along)))
        largest = along.topk(rare).values[-1].item() or rest.amax().item() or 1.0
        self.unit = MOST / largest
        self.shares = max(1, min(SHARES, math.ceil((rest.amax().item() / largest) ** 2)))
        self.out = _Buffer()

    def rounded(self, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rest = near[:, -1:].expand(-1, self.shares) / math.sqrt(self.shares)
        exact = torch.cat([near[:, :-1], rest], 1).mul_(self.unit)
        whole = exact.round().clamp_(-MOST, MOST)
        moved = squares(exact.sub_(whole)).sqrt_().mul_(1.001)
        return whole.to(torch.int8), squares(whole), moved

    def lay_out(self, places: Tensor, lengths: Tensor, block: int) -> None:
        self.right, self.block = places.T.contiguous(), block
        self.lengths = lengths.view(block, -1).T.contiguous()
        self.shortest, self.longest = self.lengths.amin(1), lengths[lengths.isfinite()].amax()

    def table(self, places: Tensor, lengths: Tensor) -> Tensor:
        out = self.out.of(len(places), self.right.shape[1], places.new_empty(0, dtype=torch.int32))
        return torch._int_mm(places, self.right, out=out).view(len(places), self.block, -1)

    def least(self, table: Tensor, lengths: Tensor) -> Tensor:
        return torch.add(self.shortest, table.amax(1), alpha=-2).add_(lengths[:, None])

    def inside(self, table: Tensor, lengths: Tensor, query: Tensor, block: Tensor) -> Tensor:
        squared = self.lengths.index_select(0, block).add_(lengths.index_select(0, query)[:, None])
        return squared.sub_(table[query, :, block], alpha=2)

    def slack(self, lengths: Tensor) -> Tensor:
        return (lengths + self.longest) * (8 * UNIT)  # three sums, of numbers that a float32 may not hold


class _Buffer:
    """A table that is written to again and again: new memory each time would cost as much as the sums."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None

    def of(self, rows: int, columns: int, like: Tensor) -> Tensor:
        if self.kept is None or self.kept.shape[1] != columns or len(self.kept) < rows:
            self.kept = like.new_empty(rows, columns)
        return self.kept[:rows]


def numbers(kind: Kind, sample: Tensor) -> Numbers:
    """The numbers of that kind for a bank of which `sample` (n, C) are some rows."""
    return Bytes(sample) if kind == "int8" else Floats(kind == "bfloat16")


def half_is_fast(device: torch.device) -> bool:
    """Whether products in bfloat16, added up in float32, are much faster here than those of float32."""
    if device.type == "cuda":  # before torch 2.8 a sum could be cut to bfloat16 on the way
        recent = TorchVersion(torch.__version__) >= "2.8"
        return recent and torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and bool(supported())


def bytes_are_fast(device: torch.device) -> bool:
    """Whether products of bytes, added up in int32, are faster here than those of floats of any kind."""
    supported = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    known = device.type == "cpu" and hasattr(torch, "_int_mm") and torch.backends.mkldnn.is_available()
    return known and bool(supported())


def squares(points: Tensor) -> Tensor:
    return torch.linalg.vecdot(points, points)

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
    """Coordinates as a product takes them.

    `unit`: what one of the coordinates' own is in them. `rounding`: most that a squared distance in the table,
    or a sum of a few terms in float32, grows by as the result is rounded, as a factor.
    """

    unit: float
    rounding: float

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
        self.rounding = 1 + (2.0**-8 if half else 1e-5)

    def rounded(self, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.half:
            return near, squares(near), near.new_zeros(len(near))
        rounded = near.bfloat16()
        wide = rounded.float()
        return rounded, squares(wide), squares(wide - near).sqrt() * 1.001

    def lay_out(self, places: Tensor, lengths: Tensor, block: int) -> None:
        self.right, self.block = self.of_bank(places, lengths), block
        self.longest = lengths[lengths.isfinite()].amax()

    def table(self, places: Tensor, lengths: Tensor) -> Tensor:
        return self.product(self.of_points(places, lengths), self.right).view(len(places), self.block, -1)

    def least(self, table: Tensor, lengths: Tensor) -> Tensor:
        if table.dtype == torch.bfloat16:  # as whole numbers they have the same order, where none is negative
            return table.view(torch.int16).amin(1).view(torch.bfloat16).float()
        return table.amin(1).float()

    def inside(self, table: Tensor, lengths: Tensor, query: Tensor, block: Tensor) -> Tensor:
        return table[query, :, block].float()

    def slack(self, lengths: Tensor) -> Tensor:
        return self.slack_of(lengths, self.longest, self.right.shape[1])

    def slack_of(self, lengths: Tensor, longest: Tensor, terms: int) -> Tensor:
        """That of sums of so many terms, for rows of which the longest has that squared length."""
        return (lengths + longest) * (4 * (terms + 16) * UNIT + (2.0**-15 if self.half else 0)) + 1e-30

    def of_points(self, places: Tensor, lengths: Tensor) -> Tensor:
        """The left side of a product, (N, C'')."""
        ones = places.new_ones(len(places), 1).expand(-1, 1 + self.half)
        return torch.cat([places * -2, *self._parts(lengths), ones], 1)

    def of_bank(self, places: Tensor, lengths: Tensor) -> Tensor:
        """The right side, (M, C'')."""
        ones = places.new_ones(len(places), 1).expand(-1, 1 + self.half)
        return torch.cat([places, ones, *self._parts(lengths)], 1)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """(N, M) squared distances; on a CPU of the type of the two. Overwritten by the next."""
        if left.is_cuda and self.half:
            return torch.mm(left, right.T, out_dtype=torch.float32)
        return torch.mm(left, right.T, out=self.out.of(len(left), len(right), left))

    def _parts(self, lengths: Tensor) -> list[Tensor]:
        dtype = torch.bfloat16 if self.half else torch.float32
        high = lengths[:, None].to(dtype)
        if not self.half:
            return [high]
        low = (lengths[:, None] - high).where(high.isfinite(), 0)  # what bfloat16 left of them
        return [low.to(dtype), high]


class Bytes:
    """Whole numbers from -127 to 127, added up without any rounding: |x|^2 + |y|^2 - 2xy.

    The last of the coordinates is a length beside all others, and larger than they are: it becomes some equal
    ones. Blocks are of rows of similar lengths, so that of a block the largest product will do.
    """

    rounding = 1 + 1e-5

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
        if self.kept is None or self.kept.numel() < rows * columns:
            self.kept = like.new_empty(rows * columns)
        return self.kept[: rows * columns].view(rows, columns)


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

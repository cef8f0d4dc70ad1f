"""Which pairs of a query and a row of a bank may be among the k nearest: hardly more than those that are.

A lower bound is taken of the distance of every query to every row; only pairs whose bound lies within the
k-th best distance can matter. That none is lost is proven, not hoped:

* The bounds are one matrix product in few coordinates: a point's components along the bank's principal axes,
  and the length of its rest (two rests lie at least as far apart as their lengths differ). On machines with
  fast products of bytes or in bfloat16 the coordinates are rounded to them (`bounds`). How far this and all
  other rounding can have moved a point is measured or bounded: by so much less a distance may be than it
  seems.
* The least bounds of blocks of rows say which few blocks to open. The rows found there are multiplied with
  the query in all dimensions, which leaves hardly more than the nearest ones themselves.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.parts.bounds import UNIT, Kind, bytes_are_fast, half_is_fast, numbers, squares
from ad_bench.parts.exact import squared_distances

PART = 1 << 22  # numbers of a bank that are worked on at a time: 16 MB
PIECE = 1 << 17  # numbers that a step over pairs of rows holds at a time: 1 MB, which a core's cache holds
BLOCK = 16  # rows whose bounds share a minimum
STEP = 256  # terms of a projection that are added up at a time: short sums have small rounding errors
WORTH = 16  # principal axes cost about what 16 D^2 pairs do without them
FAR = 1e16  # times the spread of the bank


class Shortlist:
    """What is learnt of a bank (M, D) for searches of its `k` nearest rows; holds no reference to the bank.

    A level says along how many principal axes the coordinates are (None: all dimensions as they are), and
    in which numbers. The first one is the quickest; the later ones leave fewer pairs.
    """

    def __init__(self, bank: Tensor, k: int):
        self.k, self.asked, self.searched, self.found, self.coarse = k, 0, 0, 0, False
        self.centre = bank.mean(0)
        parts = bank.split(rows_in(PART, bank))
        largest = torch.stack([(part - self.centre).abs().amax() for part in parts]).amax().item()
        if not math.isfinite(largest):
            raise ValueError("a bank has rows of finite numbers; got some that are nan or (nearly) infinite")
        # A power of two rounds nothing, and brings numbers to where squares neither vanish nor overflow.
        self.scale = 2.0 ** -max(-126, min(126, math.frexp(largest)[1])) if largest else 1.0
        # `_squared` multiplies rows as they are: what is between them must not drown in their rounding.
        offset = self.centre.abs().amax().item()
        self.reducible = bank.shape[1] >= 64 and 1e-12 < largest < 1e12 and offset < 16 * largest
        self.levels: list[tuple[int | None, Kind]] = []
        self.rows: Tensor | None = None  # where only these count: see `_without_copies`

    def expect(self, bank: Tensor, queries: int) -> None:
        """Count the queries; take principal axes as soon as they repay their cost."""
        self.asked += queries
        dim = bank.shape[1]
        if self.reducible and self.asked * len(bank) >= WORTH * dim**2:
            self.reducible, half = False, half_is_fast(bank.device)
            quick: Kind = "int8" if bytes_are_fast(bank.device) else "bfloat16" if half else "float32"
            self.levels = [(dim // 4, quick), (dim // 2, quick), (None, "bfloat16"), (None, "float32")]
            self.levels = [level for level in self.levels if half or level[1] != "bfloat16"]
            sample = (bank[:: max(1, len(bank) // (4 * dim))] - self.centre).float()
            self.axes = torch.linalg.eigh(sample.T @ sample).eigenvectors.flip(1)  # the longest first
            self.norms = torch.cat([squares(part - self.centre) for part in bank.split(rows_in(PART, bank))])
            self._lay_out(bank)
        elif not self.levels:
            self.levels = [(None, "float32")]
            self._lay_out(bank)

    def pairs(self, queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (P,) of queries, rising, and (P,) of rows: all pairs that may be among the k nearest."""
        centred = queries - self.centre
        while True:
            query, row, limit = self._open(centred, bank)
            self.searched, self.found = self.searched + len(queries), self.found + len(row)
            few = self.found <= self.searched * (4 * self.k + len(bank) // 64)
            if few or not self._sharpen(bank):
                break
        if not self.coarse:
            return query, row
        keep = (self._squared(centred, bank, query, row) <= limit.index_select(0, query)).nonzero()[:, 0]
        return query.index_select(0, keep), row.index_select(0, keep)

    def _sharpen(self, bank: Tensor) -> bool:
        """Do what leaves fewer pairs; False where nothing is left to do."""
        if self.rows is None:
            self.rows = _without_copies(bank, self.k)
            if len(self.rows) == len(bank):
                return self._sharpen(bank)
        elif len(self.levels) > 1:
            del self.levels[0]
        else:
            return False
        self._lay_out(bank)
        return True

    def _lay_out(self, bank: Tensor) -> None:
        """The rows in the coordinates of the first level, as the right side of the product."""
        self.searched = self.found = 0
        axes, kind = self.levels[0]
        self.coarse, self.projection = kind == "bfloat16" or axes is not None, None
        if axes is not None:
            self._project(axes, kind)
        rows = torch.arange(len(bank), device=bank.device) if self.rows is None else self.rows
        if self.coarse:  # by their lengths: similar rows are moved by similar rounding
            rows = rows[self.norms[rows].sort(stable=True).indices]
        self.block = max(1, min(BLOCK, len(rows) // (4 * self.k)))
        self.width = -(-len(rows) // self.block)
        near = self._near(bank[rows[:: max(1, len(rows) * bank.shape[1] // PART)]] - self.centre)[0]
        self.numbers = numbers(kind, near)
        moved = [self._moved(bank[part] - self.centre) for part in rows.split(rows_in(PART, bank))]
        places, lengths, far = (torch.cat(parts) for parts in zip(*moved, strict=True))
        fill = (0, self.block * self.width - len(rows))  # infinitely far from everything
        order = torch.arange(self.block * self.width, device=bank.device).view(self.width, -1).T.flatten()
        self.count = len(rows)
        self.order = F.pad(rows, fill, value=len(bank))[order]
        lengths = F.pad(lengths, fill, value=torch.inf)[order]
        self.numbers.lay_out(F.pad(places, (0, 0, *fill))[order], lengths, self.block)
        self.moved = F.pad(far, fill).view(self.width, -1)

    def _project(self, axes: int, kind: Kind) -> None:
        self.projection = self.axes[:, :axes].double()
        if kind == "int8":  # turned, so that all coordinates are about as large
            generator = torch.Generator().manual_seed(0)
            turn = torch.randn(axes, axes, dtype=torch.float64, generator=generator)
            self.projection @= torch.linalg.qr(turn).Q.to(self.projection.device)
        self.projection = self.projection.float().contiguous()
        exact = self.projection.double()
        askew = (exact.T @ exact - torch.eye(axes, device=exact.device)).norm().item()
        # Most that a projection errs by, as a share of the length: sums are rounded, axes are askew.
        self.skew = (STEP + len(self.axes) / STEP + 2) * UNIT * math.sqrt(axes) + askew

    def _near(self, centred: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (N, C), how far they may lie from their true place (N,).

        True places lie no farther from each other than the points do.
        """
        near = (centred * self.scale).float()
        norms = squares(near)
        beyond = norms > FAR**2  # so far from the bank that squares may overflow: anywhere, for all we say
        near, length = near.clamp_(-FAR, FAR), norms.clamp_(max=1e38).sqrt()
        moved = (2 * UNIT * length).masked_fill_(beyond, torch.inf)
        if self.projection is not None:
            terms = zip(near.split(STEP, 1), self.projection.split(STEP), strict=True)
            along = sum((part @ axes for part, axes in terms), near.new_zeros(()))
            rest = (norms - squares(along)).clamp_(min=0).sqrt_()
            spill = (2 * self.skew + self.skew**2 + 4 * (near.shape[1] + 16) * UNIT) * norms  # of its square
            moved += self.skew * length + torch.minimum(spill.sqrt(), spill / rest.clamp(min=1e-30))
            near = torch.cat([along, rest[:, None]], 1)
        return near, moved

    def _moved(self, centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates (N, C) as the product takes them, in its unit; their squared lengths (N,) and errors."""
        near, moved = self._near(centred)
        places, lengths, more = self.numbers.rounded(near)
        return places, lengths, moved * self.numbers.unit + more

    def _open(self, centred: Tensor, bank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs that the bounds leave; if coarse, the most (N,) that `_squared` may say of the k nearest."""
        places, lengths, moved = self._moved(centred)
        slack = self.numbers.slack(lengths)
        table = self.numbers.table(places, lengths)
        least = self.numbers.least(table, lengths)
        if self.coarse:  # look at promising rows, k and a spare one, each of another block
            block = least.topk(min(self.k + 1, self.width), largest=False).indices.flatten()
            owner = torch.arange(len(centred), device=centred.device)
            owner = owner.repeat_interleave(len(block) // len(centred))
            place = self.numbers.inside(table, lengths, owner, block).argmin(1)
            guess = self.order[place * self.width + block].clamp(max=len(bank) - 1)
            best = self._squared(centred, bank, owner, guess).view(len(centred), -1)
            best = best.kthvalue(self.k).values
            length = squares(centred)
            error = self._error(length)
            reach = (best + length + error).clamp(min=0).sqrt() * (self.scale * self.numbers.unit) + moved
            best += 2 * error
        else:
            best = least.kthvalue(self.k).values
            reach = (best + slack).clamp(min=0).sqrt() + (2 * moved + self.moved.amax())
        rounding = self.numbers.rounding
        limit = (reach[:, None] + self.moved.amax(1)).square_().add_(slack[:, None]).mul_(rounding)
        query, block = (least <= limit).nonzero(as_tuple=True)
        limit = self.moved.index_select(0, block).add_(reach[query][:, None])
        limit = limit.square_().add_(slack[query][:, None]).mul_(rounding)
        inside = self.numbers.inside(table, lengths, query, block)
        opened, place = (inside <= limit).nonzero(as_tuple=True)
        query = query.index_select(0, opened)
        row = self.order[place.mul_(self.width).add_(block.index_select(0, opened))]
        if len(self.order) > self.count:  # an infinite limit lets in even what fills up the last blocks
            real = row < len(bank)
            query, row = query[real], row[real]
        return query, row, best

    def _squared(self, centred: Tensor, bank: Tensor, query: Tensor, row: Tensor) -> Tensor:
        """Squared distance of each pair less |q|^2, to within `_error` of its query: |b|^2 - 2qb + 2qc."""
        squared = (2 * (centred @ self.centre)).index_select(0, query).add_(self.norms.index_select(0, row))
        return squared.sub_(_products(centred, bank, query, row), alpha=2)

    def _error(self, norms: Tensor) -> Tensor:
        """(N,): most that rounding changes `_squared` by; no sum in it exceeds `total`."""
        farthest = self.norms.amax()
        total = norms + farthest + norms.sqrt() * (farthest.sqrt() + 2 * self.centre.norm())
        return 4 * (len(self.centre) + 16) * torch.finfo(norms.dtype).eps / 2 * total


def rows_in(numbers: int, points: Tensor) -> int:
    """How many rows of `points` are about so many numbers."""
    return max(1, numbers // max(1, points.shape[1]))


def _products(queries: Tensor, bank: Tensor, query: Tensor, row: Tensor) -> Tensor:
    """(P,): the inner products of pairs, given by rising indices of queries and indices of rows."""
    if queries.is_cuda:
        pieces = zip(query.split(size := rows_in(PART, bank)), row.split(size), strict=True)
        return torch.cat([torch.linalg.vecdot(queries[q], bank[r]) for q, r in pieces])
    ends = torch.bincount(query, minlength=len(queries)).cumsum(0)
    with warnings.catch_warnings():  # torch calls all of its sparse tensors a trial
        warnings.simplefilter("ignore", UserWarning)
        pairs = torch.sparse_csr_tensor(
            torch.cat([ends.new_zeros(1), ends]), row, queries.new_zeros(len(row)), (len(queries), len(bank))
        )
        return torch.sparse.sampled_addmm(pairs, queries, bank.T, beta=0.0).values()


def _without_copies(bank: Tensor, k: int) -> Tensor:
    """Indices of the rows that can be among the k nearest at all: not those with k equal ones before them."""
    centre = torch.rand(bank.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centre = centre.to(bank.device)
    key = torch.cat([squared_distances(part, centre) for part in bank.split(rows_in(PIECE, bank))])
    key, order = key.sort(stable=True)
    equal = (key[1:] == key[:-1]).nonzero()[:, 0]
    pieces = equal.split(rows_in(PIECE, bank))
    same = torch.cat([(bank[order[part]] == bank[order[part + 1]]).all(1) for part in pieces])
    first = torch.arange(len(bank), device=bank.device)
    first[equal[same] + 1] = 0
    rank = torch.arange(len(bank), device=bank.device) - first.cummax(0).values
    return order[rank < k].sort().values

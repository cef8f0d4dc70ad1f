"""Which pairs of a query and a row of a bank may be among the k nearest: hardly more than those that are.

A lower bound is taken of the distance of every query to every row; only pairs whose bound lies within the
k-th best distance can matter. That none is lost is proven, not hoped:

* The bounds are one matrix product in few coordinates: a point's components along the bank's principal axes,
  and the length of its rest (two rests lie at least as far apart as their lengths differ). On machines with
  fast products in bfloat16 the coordinates are rounded to it. How far this and all other rounding can have
  moved a point is measured or bounded: by so much less a distance may be than it seems.
* The least bounds of blocks of rows say which few blocks to open. The rows found there are multiplied with
  the query in all dimensions, which leaves hardly more than the nearest ones themselves.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from ad_bench.parts.exact import squared_distances

PART = 1 << 22  # numbers of a bank that are worked on at a time: 16 MB
PIECE = 1 << 17  # numbers that a step over pairs of rows holds at a time: 1 MB, which a core's cache holds
BLOCK = 16  # rows whose bounds share a minimum
STEP = 256  # terms of a projection that are added up at a time: short sums have small rounding errors
WORTH = 16  # principal axes cost about what 16 D^2 pairs do without them
FAR = 1e16  # times the spread of the bank
UNIT = 2.0**-24  # most that rounding to float32 changes a number by, as a share of it


class Shortlist:
    """What is learnt of a bank (M, D) for searches of its `k` nearest rows; holds no reference to the bank.

    A level says along how many principal axes the coordinates are (None: all dimensions as they are), and
    whether they are in bfloat16. The first one is the quickest; the later ones leave fewer pairs.
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
        self.levels: list[tuple[int | None, bool]] = []
        self.rows: Tensor | None = None  # where only these count: see `_without_copies`

    def expect(self, bank: Tensor, queries: int) -> None:
        """Count the queries; take principal axes as soon as they repay their cost."""
        self.asked += queries
        dim = bank.shape[1]
        if self.reducible and self.asked * len(bank) >= WORTH * dim**2:
            self.reducible, half = False, half_is_fast(bank.device)
            self.levels = [(dim // 4, half), (dim // 2, half), *[(None, True)] * half, (None, False)]
            sample = (bank[:: max(1, len(bank) // (4 * dim))] - self.centre).float()
            self.axes = torch.linalg.eigh(sample.T @ sample).eigenvectors.flip(1)  # the longest first
            self.norms = torch.cat([_squares(part - self.centre) for part in bank.split(rows_in(PART, bank))])
            self._lay_out(bank)
        elif not self.levels:
            self.levels = [(None, False)]
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
        axes, self.half = self.levels[0]
        self.coarse, self.projection = self.half or axes is not None, None
        if axes is not None:
            self.projection = self.axes[:, :axes].contiguous()
            exact = self.projection.double()
            askew = (exact.T @ exact - torch.eye(axes, device=exact.device)).norm().item()
            # Most that a projection errs by, as a share of the length: sums are rounded, axes are askew.
            self.skew = (STEP + len(self.axes) / STEP + 2) * UNIT * math.sqrt(axes) + askew
        self.count = rows = len(bank) if self.rows is None else len(self.rows)
        self.block = max(1, min(BLOCK, rows // (4 * self.k)))
        self.width = -(-rows // self.block)
        right, norms, moved = [], [], []
        for part in torch.arange(rows, device=bank.device).split(rows_in(PART, bank)):
            places = self._move(bank[part if self.rows is None else self.rows[part]] - self.centre)
            right.append(self._joined(*places[:2], left=False))
            norms.append(places[1].amax())
            moved.append(places[2].amax())
        fill = right[0].new_zeros(self.block * self.width - rows, right[0].shape[1])
        fill[:, -1] = torch.inf  # what fills up the last blocks is infinitely far from everything
        self.right = torch.cat([*right, fill])
        self.longest, self.moved = torch.stack(norms).amax(), torch.stack(moved).amax()
        # Most that the sum of the product's terms errs by, as a share of both squared lengths.
        self.slack = 4 * (self.right.shape[1] + 16) * UNIT + (2.0**-15 if self.half else 0)

    def _move(self, centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates (N, C), their squared lengths (N,), how far they may lie from their true place (N,).

        True places lie no farther from each other than the points do.
        """
        near = (centred * self.scale).float()
        norms = _squares(near)
        beyond = norms > FAR**2  # so far from the bank that squares may overflow: anywhere, for all we say
        near, length = near.clamp_(-FAR, FAR), norms.clamp_(max=1e38).sqrt()
        moved = (2 * UNIT * length).masked_fill_(beyond, torch.inf)
        if self.projection is not None:
            terms = zip(near.split(STEP, 1), self.projection.split(STEP), strict=True)
            along = sum((part @ axes for part, axes in terms), near.new_zeros(()))
            rest = (norms - _squares(along)).clamp_(min=0).sqrt_()
            spill = (2 * self.skew + self.skew**2 + 4 * (near.shape[1] + 16) * UNIT) * norms  # of its square
            moved += self.skew * length + torch.minimum(spill.sqrt(), spill / rest.clamp(min=1e-30))
            near = torch.cat([along, rest[:, None]], 1)
        if self.half:
            rounded = near.bfloat16()
            moved += _squares(rounded.float() - near).sqrt() * 1.001
            return rounded, _squares(rounded.float()), moved
        return near, _squares(near), moved

    def _joined(self, places: Tensor, norms: Tensor, left: bool) -> Tensor:
        """Rows whose product, a left and a right one, is the squared distance of their places."""
        high = norms[:, None].to(places.dtype)
        low = (norms[:, None] - high).to(places.dtype)  # what bfloat16 left of them
        parts = [low, high] if self.half else [high]
        ones = torch.ones_like(high).expand(-1, len(parts))
        return torch.cat([places * -2, *parts, ones] if left else [places, ones, *parts], 1)

    def _open(self, centred: Tensor, bank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs that the bounds leave; if coarse, the most (N,) that `_squared` may say of the k nearest."""
        places, norms, moved = self._move(centred)
        moved = (moved + self.moved) * (1 + 1e-5)  # of both; the factor is for the rounding in what follows
        slack = (norms + self.longest) * self.slack + 1e-30
        table = _product(self._joined(places, norms, left=True), self.right)
        table = table.view(len(centred), self.block, self.width)
        least = table.amin(1)
        if self.coarse:  # look at promising rows, k and a spare one, each of another block
            block = least.topk(min(self.k + 1, self.width), largest=False).indices
            place = table.gather(2, block[:, None].expand(-1, self.block, -1)).argmin(1)
            guess = self._row((place * self.width + block).clamp(max=self.count - 1)).flatten()
            owner = torch.arange(len(centred), device=centred.device).repeat_interleave(block.shape[1])
            best = self._squared(centred, bank, owner, guess).view(block.shape).kthvalue(self.k).values
            length = _squares(centred)
            error = self._error(length)
            reach = (best + length + error).clamp(min=0).sqrt() * self.scale
            best += 2 * error
        else:
            best = least.float().kthvalue(self.k).values
            reach = (best + slack).clamp(min=0).sqrt() + moved
        limit = ((reach + moved).square() + slack).float() * (1 + (2.0**-7 if self.half else 1e-5))
        limit = limit.to(table.dtype)  # rounding keeps the order, and changes no number of the table
        query, block = (least <= limit[:, None]).nonzero(as_tuple=True)
        opened, place = (table[query, :, block] <= limit[query, None]).nonzero(as_tuple=True)
        query = query.index_select(0, opened)
        place = place.mul_(self.width).add_(block.index_select(0, opened))
        if len(self.right) > self.count:  # an infinite limit lets in even what fills up the last blocks
            real = place < self.count
            query, place = query[real], place[real]
        return query, self._row(place), best

    def _row(self, place: Tensor) -> Tensor:
        """Rows of the bank at places of the product's right side."""
        return place if self.rows is None else self.rows[place]

    def _squared(self, centred: Tensor, bank: Tensor, query: Tensor, row: Tensor) -> Tensor:
        """Squared distance of each pair less |q|^2, to within `_error` of its query: |b|^2 - 2qb + 2qc."""
        squared = (2 * (centred @ self.centre)).index_select(0, query).add_(self.norms.index_select(0, row))
        return squared.sub_(_products(centred, bank, query, row), alpha=2)

    def _error(self, norms: Tensor) -> Tensor:
        """(N,): most that rounding changes `_squared` by; no sum in it exceeds `total`."""
        farthest = self.norms.amax()
        total = norms + farthest + norms.sqrt() * (farthest.sqrt() + 2 * self.centre.norm())
        return 4 * (len(self.centre) + 16) * torch.finfo(norms.dtype).eps / 2 * total


def half_is_fast(device: torch.device) -> bool:
    """Whether products in bfloat16, added up in float32, are much faster here than those of float32."""
    if device.type == "cuda":  # before torch 2.8 a sum could be cut to bfloat16 on the way
        recent = TorchVersion(torch.__version__) >= "2.8"
        return recent and torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and bool(supported())


def rows_in(numbers: int, points: Tensor) -> int:
    """How many rows of `points` are about so many numbers."""
    return max(1, numbers // max(1, points.shape[1]))


def _squares(points: Tensor) -> Tensor:
    return torch.linalg.vecdot(points, points)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """(N, C), (M, C) -> (N, M), added up in float32; on a CPU then of the type of the two."""
    if left.is_cuda and left.dtype == torch.bfloat16:
        return torch.mm(left, right.T, out_dtype=torch.float32)
    return left @ right.T


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

"""The nearest rows of a bank: those of brute force in double precision, in a fraction of its time.

`shortlist` says which pairs of a query and a row may be among the nearest. These few are computed here, from
plain differences, in double precision and in one fixed order: no result depends on how the list was found,
the sizes of pieces or the number of threads.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ad_bench.errors import UsageError
from ad_bench.parts.exact import exact_products, squared_distances
from ad_bench.parts.shortlist import PIECE, Shortlist, rows_in

CELLS = 1 << 23  # of the table queries x bank that are held at a time: at most 32 MB
SPARE = 2  # candidates beyond k that faiss is asked for: its float32 may swap near ties

Backend = Literal["auto", "torch", "faiss"]


def choose_backend(backend: str, device: torch.device | str) -> Literal["torch", "faiss"]:
    """What `backend` means on this machine: "auto" is faiss where it can use the run's GPU."""
    if backend not in ("auto", "torch", "faiss"):
        raise UsageError(f"the backend of neighbours is auto, torch or faiss; got '{backend}'")
    installed = importlib.util.find_spec("faiss") is not None
    if backend == "faiss" and not installed:
        raise UsageError(
            "backend faiss is not installed; `pip install adbench[faiss]`, or take torch or auto"
        )
    if backend == "auto" and installed and torch.device(device).type == "cuda":
        import faiss

        return "faiss" if faiss.get_num_gpus() > 0 else "torch"
    return "faiss" if backend == "faiss" else "torch"


@torch.no_grad()
def nearest(queries: Tensor, bank: Tensor, k: int = 1, backend: str = "torch") -> tuple[Tensor, Tensor]:
    """Squared L2 distances (N, k), rising, and indices (N, k) of the rows of `bank` nearest to each query.

    Of equally near rows the first. k above M counts as M; a query that is not finite is NaN or infinitely far
    from all. What is learnt of a bank is kept while the tensor lives and is not written to: hand over that
    one again. faiss finds its candidates in float32; their distances and order are then taken as above.
    """
    if len(bank) == 0:
        raise ValueError("the bank is empty: fit the method, or load a state, before asking for neighbours")
    if k < 1:
        raise ValueError(f"k is a number of neighbours, at least 1; got {k}")
    k, device, dtype = min(k, len(bank)), queries.device, queries.dtype
    wide = torch.float64 if torch.float64 in (dtype, bank.dtype) else torch.float32
    queries, rows = queries.to(wide), bank.to(wide).contiguous()
    distance = torch.full((len(queries), k), torch.nan, dtype=torch.float64, device=device)
    index = torch.arange(k, device=device).repeat(len(queries), 1)
    with exact_products(device):
        if choose_backend(backend, device) == "faiss":
            found = _faiss_candidates(queries, rows, min(k + SPARE, len(rows)))
            owner = torch.arange(len(queries), device=device).repeat_interleave(found.shape[1])
            _settle(queries, rows, owner, found.flatten(), distance, index)
        else:
            shortlist = _shortlist(bank, rows, k)
            shortlist.expect(rows, len(queries))
            size = max(1, CELLS // len(rows))
            for start in range(0, len(queries), size):
                part = slice(start, start + size)
                pairs = shortlist.pairs(queries[part], rows)
                _settle(queries[part], rows, *pairs, distance[part], index[part])
    return distance.to(dtype), index


def _shortlist(bank: Tensor, rows: Tensor, k: int) -> Shortlist:
    """That of an earlier call with the same tensor, unless it was written to since; `rows` is as `bank`."""
    if bank.is_inference():  # whether it was written to is not known
        return Shortlist(rows, k)
    kept = _KEPT.setdefault(bank, {})
    version, shortlist = kept.get(k, (None, None))
    if version != bank._version:
        shortlist = Shortlist(rows, k)
        kept[k] = (bank._version, shortlist)
    return shortlist


_KEPT = WeakTensorKeyDictionary()  # bank -> {k: (its version, its shortlist)}


def _settle(
    queries: Tensor, bank: Tensor, query: Tensor, row: Tensor, distance: Tensor, index: Tensor
) -> None:
    """Write the k nearest of each query's pairs into its rows of `distance` and `index` (N, k)."""
    order = (query * len(bank) + row).sort().indices
    query, row = query[order], row[order]
    pieces = zip(query.split(size := rows_in(PIECE, bank)), row.split(size), strict=True)
    values = torch.cat(
        [squared_distances(queries.index_select(0, q), bank.index_select(0, r)) for q, r in pieces]
    )
    order = values.sort(stable=True).indices
    order = order[query[order].sort(stable=True).indices]
    count = torch.bincount(query, minlength=len(queries))
    rank = torch.arange(len(query), device=query.device) - (count.cumsum(0) - count)[query]
    near = rank < distance.shape[1]
    place, order = (query[near], rank[near]), order[near]
    distance[place], index[place] = values[order], row[order]


def _faiss_candidates(queries: Tensor, bank: Tensor, count: int) -> Tensor:
    import faiss

    arrays = [rows.detach().float().cpu().contiguous().numpy() for rows in (queries, bank)]
    if queries.is_cuda and faiss.get_num_gpus() > 0:
        _, index = faiss.knn_gpu(
            faiss.StandardGpuResources(), *arrays, count, device=queries.device.index or 0
        )
    else:
        _, index = faiss.knn(*arrays, count)
    return torch.from_numpy(index).long().clamp(min=0).to(queries.device)  # -1: a query that is not finite

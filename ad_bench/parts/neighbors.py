"""The nearest rows of a bank, exact."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor

from ad_bench.errors import UsageError

CELLS = 1 << 24  # of the table queries x bank that are held at a time: 64 MB
SPARE = 2  # candidates beyond k: the quick formula may swap near ties, the exact one settles them

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


def nearest(queries: Tensor, bank: Tensor, k: int = 1, backend: str = "torch") -> tuple[Tensor, Tensor]:
    """Squared L2 distances (N, k), rising, and indices (N, k) of the rows of `bank` nearest to each query.

    Candidates come from the quick formula |q|^2 - 2qb + |b|^2; their distances are then taken from plain
    differences, so a query that is in the bank gets exactly 0. k above M counts as M.
    """
    if len(bank) == 0:
        raise ValueError("the bank is empty: fit the method, or load a state, before asking for neighbours")
    k = min(k, len(bank))
    wanted = min(k + SPARE, len(bank))
    search = _faiss_candidates if choose_backend(backend, queries.device) == "faiss" else _torch_candidates
    candidates = search(queries, bank, wanted)
    distance = torch.empty(candidates.shape, dtype=queries.dtype, device=queries.device)
    rows = max(1, CELLS // (wanted * bank.shape[1]))
    for row in range(0, len(queries), rows):
        span = slice(row, row + rows)
        distance[span] = (queries[span, None] - bank[candidates[span]]).square().sum(2)
    distance, order = distance.sort(dim=1, stable=True)
    return distance[:, :k], candidates.gather(1, order[:, :k])


def _torch_candidates(queries: Tensor, bank: Tensor, count: int) -> Tensor:
    """Indices (N, count), lowest first, so that ties fall to the first row on every path."""
    centre = bank.mean(0)  # far from the origin the quick formula would lose digits
    queries = queries - centre
    columns = min(len(bank), max(count, CELLS // 1024))
    rows = max(1, CELLS // columns)
    out = torch.empty(len(queries), count, dtype=torch.long, device=queries.device)
    best = torch.full((len(queries), count), torch.inf, dtype=queries.dtype, device=queries.device)
    for column in range(0, len(bank), columns):
        part = bank[column : column + columns] - centre
        norms = part.square().sum(1)
        for row in range(0, len(queries), rows):
            span = slice(row, row + rows)
            table = torch.addmm(
                norms, queries[span], part.T, alpha=-2
            )  # less |q|^2, the same for a whole row
            value, index = table.topk(min(count, len(part)), dim=1, largest=False)
            value, index = torch.cat([best[span], value], 1), torch.cat([out[span], index + column], 1)
            best[span], order = value.topk(count, dim=1, largest=False)
            out[span] = index.gather(1, order)
    return out.sort(1).values


def _faiss_candidates(queries: Tensor, bank: Tensor, count: int) -> Tensor:
    import faiss

    arrays = [rows.detach().float().cpu().contiguous().numpy() for rows in (queries, bank)]
    if queries.is_cuda and faiss.get_num_gpus() > 0:
        _, index = faiss.knn_gpu(
            faiss.StandardGpuResources(), *arrays, count, device=queries.device.index or 0
        )
    else:
        _, index = faiss.knn(*arrays, count)
    return torch.from_numpy(index).long().to(queries.device).sort(1).values

"""Nearest rows against plain differences in double precision."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts import neighbors
from ad_bench.parts.neighbors import choose_backend, nearest

BACKENDS = [
    "torch",
    pytest.param(
        "faiss",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("faiss") is None,
            reason="faiss is an extra: pip install adbench[faiss-cpu]",
        ),
    ),
]


def oracle(queries: torch.Tensor, bank: torch.Tensor, k: int) -> torch.Tensor:
    return (queries.double()[:, None] - bank.double()[None]).square().sum(2).sort(1).values[:, :k].float()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_plain_differences(
    backend: str, k: int, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(k)
    queries = torch.randn(50, 16, generator=generator) + offset
    bank = torch.randn(333, 16, generator=generator) + offset
    whole = nearest(queries, bank, k, backend)
    torch.testing.assert_close(whole[0], oracle(queries, bank, k), rtol=1e-5, atol=0)
    assert (whole[0].diff(dim=1) >= 0).all()
    torch.testing.assert_close(
        (queries[:, None] - bank[whole[1]]).square().sum(2), whole[0], rtol=1e-6, atol=0
    )
    monkeypatch.setattr(neighbors, "CELLS", 100)  # many small pieces instead of one
    pieces = nearest(queries, bank, k, backend)
    assert torch.equal(pieces[1], whole[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_is_at_exactly_zero(backend: str) -> None:
    """|q|^2 - 2qb + |b|^2 alone would say about 0.1 here, or even less than 0."""
    bank = torch.rand(200, 64, generator=torch.Generator().manual_seed(0)) + 1000
    distance, index = nearest(bank, bank, 1, backend)
    assert torch.equal(distance, torch.zeros(200, 1))
    assert torch.equal(index[:, 0], torch.arange(200))


def test_of_equal_rows_the_first() -> None:
    bank = torch.tensor([[5.0], [1.0], [1.0], [1.0]])
    assert nearest(torch.tensor([[1.0]]), bank, 2)[1].tolist() == [[1, 2]]


def test_a_small_bank_gives_what_it_has() -> None:
    distance, index = nearest(torch.zeros(2, 1), torch.tensor([[3.0], [2.0]]), 9)
    assert distance.tolist() == [[4, 9], [4, 9]]
    assert index.tolist() == [[1, 0], [1, 0]]


def test_an_empty_bank_is_named() -> None:
    with pytest.raises(ValueError, match="bank is empty"):
        nearest(torch.zeros(1, 2), torch.empty(0, 2))


def test_backends() -> None:
    assert choose_backend("auto", "cpu") == choose_backend("torch", "cuda") == "torch"
    with pytest.raises(UsageError, match="auto, torch or faiss; got 'annoy'"):
        choose_backend("annoy", "cpu")


def test_faiss_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install adbench\[faiss\]"):
        choose_backend("faiss", "cpu")
    assert choose_backend("auto", "cuda") == "torch"

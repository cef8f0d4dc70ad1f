"""Nearest rows against plain differences in double precision, on data that make short cuts fail."""

from __future__ import annotations

import gc
import importlib.util

import pytest
import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts import bounds, neighbors, shortlist
from ad_bench.parts.bounds import Kind
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
NUMBERS = ["float32", "bfloat16", "int8"]
AXES, NO_AXES = 0, 10**9  # values of WORTH: principal axes at once, never


def brute(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    table = torch.stack([(bank.double() - query.double()).square().sum(1) for query in queries])
    distance, index = table.sort(dim=1, stable=True)
    return distance[:, :k], index[:, :k]


def quick(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose products are quickest in numbers of that kind."""
    monkeypatch.setattr(shortlist, "half_is_fast", lambda device: kind != "float32")
    monkeypatch.setattr(shortlist, "bytes_are_fast", lambda device: kind == "int8")


def points(kind: str, count: int, dim: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    x = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    fixed = torch.randn(7, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = {
        "normal": x,
        "rectified": x.relu(),
        "clustered": x * 1e-5 + fixed[torch.arange(count) % 7],
        "copies": x.round()[torch.randint(0, max(1, count // 20), (count,), generator=generator)],
        "grid": torch.randint(0, 3, (count, dim), generator=generator).double(),
        "flat": x[:, : min(3, dim)] @ fixed[: min(3, dim)],
        "offset": x + 1e4,
        "tiny": x * 1e-25,
        "huge": x * 1e15,
        "constant": torch.full_like(x, 0.3),
    }
    return made[kind].to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "dim", "k"), [(40, 2, 3), (1500, 64, 1), (700, 130, 5), (300, 70, 50)])
@pytest.mark.parametrize(
    "kind",
    ["normal", "rectified", "clustered", "copies", "grid", "flat", "offset", "tiny", "huge", "constant"],
)
def test_is_brute_force(
    kind: str, count: int, dim: int, k: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the coordinates, their type and the pieces: the same rows, and distances to the last bit."""
    generator = torch.Generator().manual_seed(dim)
    bank = points(kind, count, dim, generator, dtype)
    strangers = points("normal", 3, dim, generator, dtype)
    queries = torch.cat([points(kind, 30, dim, generator, dtype), bank[:4], strangers, strangers[:1] * 1e19])
    wanted, rows = brute(queries, bank, k)
    first: Tensor | None = None
    for worth in (AXES, NO_AXES):
        for kind_of_number in NUMBERS:
            quick(kind_of_number, monkeypatch)
            for cells in (1 << 23, 7 * count):  # all queries at once, seven at a time
                monkeypatch.setattr(shortlist, "WORTH", worth)
                monkeypatch.setattr(neighbors, "CELLS", cells)
                distance, index = nearest(queries, bank.clone(), k)
                first = distance if first is None else first
                assert torch.equal(distance, first)
                torch.testing.assert_close(distance, wanted.to(dtype), rtol=1e-6, atol=0)
                assert torch.equal(index[:-1], rows[:-1])  # to the last query all are equally far


def test_bounds_hold_and_are_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20,000 rows few are opened for a query, hardly more than the nearest are left, and these all are."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -2, 128)
    bank, queries = (torch.randn(n, 128, generator=generator) * scale for n in (20_000, 64))
    for kind in NUMBERS:
        quick(kind, monkeypatch)
        short = shortlist.Shortlist(bank, 3)
        short.expect(bank, 1000)
        query, row = short.pairs(queries, bank)
        assert short.coarse
        assert 3 * 64 <= len(row) < 9 * 64
        assert short.found < 300 * 64
        kept = set(zip(query.tolist(), row.tolist(), strict=True))
        wanted = brute(queries, bank, 3)[1]
        assert all((q, r) in kept for q, found in enumerate(wanted.tolist()) for r in found)


@pytest.mark.parametrize(
    ("axes", "kind"), [(32, "float32"), (32, "bfloat16"), (32, "int8"), (None, "float32"), (None, "bfloat16")]
)
def test_points_lie_no_farther_apart_than_they_are_and_were_moved(axes: int | None, kind: Kind) -> None:
    """Pairs from 1e-6 of their length to all of it apart, some within the axes and some beside them."""
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(4000, 128, generator=generator) * torch.logspace(0, -3, 128)
    short = shortlist.Shortlist(bank, 1)
    short.reducible, short.levels = False, [(axes, kind)]
    short.axes = torch.linalg.svd(bank, full_matrices=False).Vh.T.contiguous()
    short.norms = bounds.squares(bank - short.centre)
    short._lay_out(bank)
    step = torch.logspace(-6, 0, 2000)[:, None]
    along = torch.arange(2000)[:, None] % 2 * (torch.arange(128) < 20)
    queries = bank[:2000] + torch.randn(2000, 128, generator=generator) * bank[:2000] * step * (1 - along)
    places, lengths, moved = short._moved(queries - short.centre)
    others, _, moved_too = short._moved(bank - short.centre)
    apart = (places.double() - others[:2000].double()).norm(dim=1)
    true = (queries.double() - bank[:2000].double()).norm(dim=1) * (short.scale * short.numbers.unit)
    assert (apart <= true + moved + moved_too[:2000]).all()
    if kind != "float32":
        assert (apart > true + 0.1 * (moved + moved_too[:2000])).any()  # it is needed
    assert (moved.median() < (0.05 if kind == "int8" else 0.02) * lengths.sqrt()).all()

    rows = short.order.clamp(max=len(bank) - 1)
    kept = short.moved.T.flatten()  # of every row, in the product's order
    assert torch.allclose(kept[short.order < len(bank)], moved_too[short.order[short.order < len(bank)]])
    for count in (1, 3, 2000):  # the product is of these places, to within its slack, at all sizes
        table = short.numbers.table(places[:count], lengths[:count])
        query = torch.arange(count).repeat_interleave(short.width)
        block = torch.arange(short.width).repeat(count)
        inside = short.numbers.inside(table, lengths[:count], query, block)
        exact = torch.cdist(
            places[:count].double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist"
        ).square()[:, rows]
        exact = exact.view(count, short.block, short.width).transpose(1, 2)
        slack = short.numbers.slack(lengths[:count])[:, None, None].double()
        most = slack + exact * (short.numbers.rounding - 1)
        found = inside.view(count, short.width, short.block).double()
        real = (short.order < len(bank)).view(short.block, short.width).T.expand_as(found)
        assert (((found - exact).abs() <= most) | ~real).all()
        assert (found[~real] == torch.inf).all()
        least = short.numbers.least(table, lengths[:count]).double()
        assert (least <= (exact + most).masked_fill(~real, torch.inf).amin(2)).all()


@pytest.mark.parametrize("kind", NUMBERS)
def test_scale_and_offset_open_no_more_pairs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(kind, monkeypatch)
    monkeypatch.setattr(shortlist, "WORTH", AXES)
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 64, generator=generator) for n in (2000, 50))
    for scale, offset in ((1.0, 0.0), (2.0**-90, 0.0), (2.0**60, 0.0), (1.0, 1e4)):
        short = shortlist.Shortlist(bank * scale + offset, 1)
        short.expect(bank * scale + offset, 50)
        assert len(short.pairs(queries * scale + offset, bank * scale + offset)[1]) < 70
        assert short.found < 30 * 50


def test_threads_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(3000, 96, generator=generator), torch.randn(200, 96, generator=generator)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(nearest(queries, bank.clone(), 4))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_plain_differences(backend: str, k: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(k)
    queries = torch.randn(50, 16, generator=generator) + offset
    bank = torch.randn(333, 16, generator=generator) + offset
    distance, index = nearest(queries, bank, k, backend)
    wanted, rows = brute(queries, bank, k)
    torch.testing.assert_close(distance, wanted.float(), rtol=1e-6, atol=0)
    assert torch.equal(index, rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_is_at_exactly_zero(backend: str) -> None:
    """|q|^2 - 2qb + |b|^2 alone would say about 0.1 here, or even less than 0."""
    bank = torch.rand(200, 64, generator=torch.Generator().manual_seed(0)) + 1000
    distance, index = nearest(bank, bank, 1, backend)
    assert torch.equal(distance, torch.zeros(200, 1))
    assert torch.equal(index[:, 0], torch.arange(200))


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_equal_rows_the_first(backend: str) -> None:
    bank = torch.tensor([[5.0], [1.0], [1.0], [1.0]])
    assert nearest(torch.tensor([[1.0]]), bank, 2, backend)[1].tolist() == [[1, 2]]


def test_many_equal_rows_are_set_aside() -> None:
    """Every row is a candidate for every query, until only k of each kind are left."""
    bank = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))[torch.arange(4000) % 5]
    short = shortlist.Shortlist(bank, 2)
    short.expect(bank, 10)
    query, row = short.pairs(bank[:5], bank)
    assert row.tolist() == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]
    assert query.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_small_bank_gives_what_it_has() -> None:
    distance, index = nearest(torch.zeros(2, 1), torch.tensor([[3.0], [2.0]]), 9)
    assert distance.tolist() == [[4, 9], [4, 9]]
    assert index.tolist() == [[1, 0], [1, 0]]


def test_a_bank_written_to_is_learnt_anew() -> None:
    bank = torch.tensor([[3.0], [2.0]])
    assert nearest(torch.zeros(1, 1), bank)[1].item() == 1
    bank[0] = 1
    assert nearest(torch.zeros(1, 1), bank)[1].item() == 0


def test_a_bank_is_learnt_once_and_forgotten_with_it() -> None:
    bank = torch.rand(20, 4)
    nearest(bank, bank)
    learnt = neighbors._KEPT[bank][1][1]
    nearest(bank, bank)
    assert neighbors._KEPT[bank][1][1] is learnt
    count = len(neighbors._KEPT)
    del bank
    gc.collect()
    assert len(neighbors._KEPT) == count - 1


@pytest.mark.parametrize("worth", [AXES, NO_AXES])
@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_that_are_not_finite_are_nan(
    backend: str, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlist, "WORTH", worth)
    bank = torch.rand(500, 80)
    queries = torch.stack([bank[7], torch.full((80,), torch.nan)])
    distance, index = nearest(queries, bank, 2, backend)
    assert distance[0, 0] == 0
    assert index[0, 0] == 7
    assert distance[1].isnan().all()
    assert nearest(queries[1:], bank, 1, backend)[0].isnan().all()
    assert nearest(queries[:0], bank, 2, backend)[0].shape == (0, 2)


def test_products_of_lower_precision_are_not_used_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    quick("float32", monkeypatch)
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(900, 80, generator=generator), torch.randn(99, 80, generator=generator)
    wanted = nearest(queries, bank.clone(), 2)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = nearest(queries, bank.clone(), 2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


def test_half_precision_is_taken_as_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 70, generator=generator).bfloat16() for n in (300, 9))
    distance, index = nearest(queries, bank, 3)
    wanted, rows = brute(queries, bank, 3)
    assert torch.equal(index, rows)
    assert torch.equal(distance, wanted.bfloat16())


def test_an_empty_bank_is_named() -> None:
    with pytest.raises(ValueError, match="bank is empty"):
        nearest(torch.zeros(1, 2), torch.empty(0, 2))


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        nearest(torch.zeros(1, 2), torch.zeros(1, 2), 0)
    with pytest.raises(ValueError, match="finite numbers"):
        nearest(torch.zeros(1, 2), torch.tensor([[0.0, torch.nan]]))


def test_backends() -> None:
    assert choose_backend("auto", "cpu") == choose_backend("torch", "cuda") == "torch"
    with pytest.raises(UsageError, match="auto, torch or faiss; got 'annoy'"):
        choose_backend("annoy", "cpu")


def test_faiss_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install adbench\[faiss\]"):
        choose_backend("faiss", "cpu")
    assert choose_backend("auto", "cuda") == "torch"

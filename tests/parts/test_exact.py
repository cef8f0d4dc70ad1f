"""Full precision where it is asked for, and the caller's settings back afterwards."""

from __future__ import annotations

import pytest
import torch

from ad_bench.parts.exact import exact_products, squared_distances, sums_of_rows


def test_autocast_is_off_inside_and_on_again_behind() -> None:
    x = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with exact_products(x.device):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def fail_inside() -> None:
    with exact_products(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"
        raise RuntimeError("inside")


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
def test_the_allowed_precision_comes_back_even_after_an_error(allowed: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 1001])
def test_a_row_has_the_same_sum_alone_and_among_others(width: int) -> None:
    rows = torch.randn(50, width, generator=torch.Generator().manual_seed(1))
    together = sums_of_rows(rows.clone())
    alone = torch.cat([sums_of_rows(rows[i : i + 1].clone()) for i in range(len(rows))])
    assert torch.equal(together, alone)
    torch.testing.assert_close(together, rows.sum(1), rtol=1e-5, atol=1e-5)


def test_distances_of_near_points_far_from_zero_keep_their_digits() -> None:
    x = torch.full((3, 16), 1000.0)
    y = x + torch.tensor([0.0, 2.0**-10, 1.0])[:, None]
    assert squared_distances(x, y).tolist() == [0.0, 16 * 2.0**-20, 16.0]
    assert torch.equal(x, torch.full((3, 16), 1000.0))  # nothing of the caller's is overwritten

"""Products, sums and distances at full precision, whatever precision the run allows its networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T", Tensor, NDArray[np.float64])


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Inside, float32 products on `device` are of float32: no autocast, no TF32, no bfloat16.

    Statistics need the digits: TF32 keeps 3 of them, and a Cholesky factor in it may not exist at all.
    """
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(allowed)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(P, D), (P, D) or (D,) -> squared distances (P,) from plain differences, in double precision."""
    return sums_of_rows(x.to(torch.float64, copy=True).sub_(y).square_())


def sums_of_rows(rows: T) -> T:
    """(P, D) -> sums (P,); overwrites `rows`.

    By halves, elementwise: a built-in sum may add in another order for another P, and equals differ.
    """
    while (width := rows.shape[1]) > 1:
        half = width // 2
        left = rows[:, :half]
        left += rows[:, width - half :]
        rows = rows[:, : width - half]
    return rows[:, 0]

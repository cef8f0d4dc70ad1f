"""Products of matrices at full precision, whatever precision the run allows its networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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

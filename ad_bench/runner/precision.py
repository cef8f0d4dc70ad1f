"""What the networks of a run compute in (runtime.precision)."""

from __future__ import annotations

import torch
from torch import nn

from ad_bench.errors import UsageError

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def allow(precision: str, device: torch.device) -> None:
    """Let a GPU use tf32 in matrix products and convolutions, or keep it from that.

    torch's own default is tf32 in convolutions alone. Raises UsageError for tf32 where there is no GPU.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    elif precision == "tf32":
        raise UsageError(
            f"runtime.precision=tf32 is a mode of NVIDIA's GPUs, and this run is on {device}: take float32,"
            " or bfloat16"
        )


def apply(precision: str, method: nn.Module) -> None:
    """Let the frozen backbones of a method compute in `precision`; what the method trains stays float32.

    Their features are float32 again, so distances, statistics and maps keep all their digits, and no
    gradient needs scaling.
    """
    for module in method.modules():
        if isinstance(getattr(module, "precision", None), torch.dtype):
            module.precision = HALF.get(precision, torch.float32)  # type: ignore[assignment]

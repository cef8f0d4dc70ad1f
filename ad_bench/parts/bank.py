"""A tensor that a method learns and whose length is known only then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Bank(nn.Module):
    """Holds `points`, empty at first; keeps its length through save and load, and moves with its host.

    Loading into a method that was never fitted works: the tensor takes the length of what is loaded.
    """

    points: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("points", torch.empty(0))

    def __len__(self) -> int:
        return len(self.points)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}points" in state_dict:
            self.points = torch.empty_like(state_dict[f"{prefix}points"], device=self.points.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

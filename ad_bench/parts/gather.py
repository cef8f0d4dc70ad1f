"""Features of all training images in memory, held once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ad_bench.contract import Run, TrainSet


@torch.no_grad()
def gather(train: TrainSet, run: Run, embed: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
    """What `embed` gives for images (B, 3, H, W), some tensors (B, ...), for all N images: (N, ...) each."""
    tables: list[Tensor] = []
    filled = 0
    for batch in run.track(train.batches(), text="features"):
        found = embed(batch.images)
        if not tables:  # whole tables at once: gathered and joined later they would be held twice
            tables = [part.new_empty(len(train), *part.shape[1:]) for part in found]
        end = filled + len(batch.images)
        for table, part in zip(tables, found, strict=True):
            table[filled:end] = part
        filled = end
    if filled == 0 or filled != len(train):
        raise ValueError(f"the training set says {len(train)} images and gave {filled}")
    return tables

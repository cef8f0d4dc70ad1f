"""Features of the training images, computed once: for trainings that see them again and again, unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ad_bench.contract import Run, TrainSet
from ad_bench.parts.gather import gather


class Extracted:
    """What `embed` gives for images (B, 3, H, W), some tensors (B, ...), for all, in the host's memory.

    To be made before the loop over the epochs: a generator of the run draws the order of shuffled passes.
    """

    def __init__(self, train: TrainSet, run: Run, embed: Callable[[Tensor], Sequence[Tensor]]):
        self.device, self.order = run.device, run.generator("order of the features")
        self.tables = gather(train, run, lambda images: [one.cpu() for one in embed(images)])

    def __len__(self) -> int:
        return len(self.tables[0])

    def batches(self, batch_size: int | None = None, shuffle: bool = False) -> Iterator[list[Tensor]]:
        """One pass: lists of (B, ...) on the run's device; all at once without `batch_size`."""
        count = len(self)
        order = torch.randperm(count, generator=self.order) if shuffle else torch.arange(count)
        for chosen in order.split(batch_size or count):
            yield [table[chosen].to(self.device, non_blocking=True) for table in self.tables]

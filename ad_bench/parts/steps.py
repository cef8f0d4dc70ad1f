"""Trainings whose length is counted in steps: their batches, and a rate that warms up and falls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ad_bench.contract import Batch, Run, Stateful, TrainSet
from ad_bench.errors import UsageError


def batches_of_steps(
    count: int, train: TrainSet, run: Run, batch_size: int, state: Mapping[str, Stateful]
) -> Iterator[Batch]:
    """`count` batches from shuffled passes, each pass an epoch of the run, the last one cut short.

    state: as `Run.epochs`.
    """
    if count < 1 or batch_size < 1:
        raise UsageError(f"steps and batch_size are at least 1; got {count} and {batch_size}")
    each = math.ceil(len(train) / batch_size)
    for epoch in run.epochs(math.ceil(count / each), state):
        left = count - epoch * each
        for _, batch in zip(range(left), train.batches(batch_size, shuffle=True), strict=False):
            yield batch


def warm_cosine(optimizer: Optimizer, steps: int, warmup: float, last: float) -> LambdaLR:
    """Up from the rate `last` to the optimiser's in a line, in `warmup` of the steps; down as a cosine."""
    lowest = last / optimizer.defaults["lr"]

    def share(step: int) -> float:
        done = step / steps
        if done < warmup:
            return lowest + (1 - lowest) * done / warmup
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2

    return LambdaLR(optimizer, share)

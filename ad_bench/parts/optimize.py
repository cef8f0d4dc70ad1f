"""The plain training loop: batches, a loss, steps. What is not plain writes its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ad_bench.contract import Run, Stateful

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Passes(Protocol[T_co]):
    """What is trained on: a TrainSet gives a `Batch` at a time, `Extracted` its features."""

    def batches(self, batch_size: int | None = None, shuffle: bool = False) -> Iterator[T_co]:
        """One pass."""
        ...


def optimize(
    loss: Callable[[T], Tensor],
    parameters: Iterable[nn.Parameter],
    train: Passes[T],
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Callable[[list[nn.Parameter]], Optimizer],
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    clip: float | None = None,
    state: Mapping[str, Stateful] | None = None,
    ready: Callable[[], object] | None = None,
) -> None:
    """Minimise `loss` over `epochs` shuffled passes.

    optimizer and schedule: `_partial_` targets of the YAML; the schedule steps once an epoch. clip: the
    largest norm of the gradient. state, ready: as `Run.epochs`. The last incomplete batch counts.
    """
    trained = [one for one in parameters if one.requires_grad]
    steps = optimizer(trained)
    held: dict[str, Stateful] = {"optimizer": steps, **(state or {})}
    rate = schedule(steps) if schedule is not None else None
    if rate is not None:
        held["schedule"] = rate
    for _ in run.epochs(epochs, held, ready):
        for batch in train.batches(batch_size, shuffle=True):
            steps.zero_grad(set_to_none=True)
            run.loss(loss(batch)).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(trained, clip)
            steps.step()
        if rate is not None:
            rate.step()

"""What a flow takes normal data to: the standard normal distribution, or one that is learnt with it.

Learnt, and moved in turns with the flow: AltUB (Kim et al., arXiv:2210.14913). As the authors published no
code, the turns are those of a public reading on FastFlow: alext1995/VisionAD at 3271be3, algos/altub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError

BASES = ("standard", "learnt")


class Base(nn.Module):
    """A normal distribution of every channel for itself: `standard`, or its mean and variance `learnt`."""

    def __init__(self, channels: int, kind: str):
        if kind not in BASES:
            raise UsageError(f"base is one of {', '.join(BASES)}; got {kind!r}")
        super().__init__()
        self.learnt = kind == "learnt"
        if self.learnt:
            self.mean = Moved(torch.zeros(channels))
            self.log_variance = Moved(torch.zeros(channels))

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, ...) -> of each number minus the logarithm of its density, without 0.5 log(2 pi)."""
        if not self.learnt:
            return 0.5 * z.square()
        shape = (1, -1, *[1] * (z.ndim - 2))
        mean, log_variance = self.mean.view(shape), self.log_variance.view(shape)
        return 0.5 * ((z - mean).square() * (-log_variance).exp() + log_variance)


class Moved(nn.Parameter):
    """A parameter of a learnt base: how `Alternating` knows it from those of the flow."""


@dataclass(frozen=True)
class Alternating:
    """Makes Adam of a flow and its base: the first step and every `interval`-th from it move the base alone.

    `base_lr` is the base's learning rate in those steps, `base_between` its share of that in the others.
    The base knows no weight decay.
    """

    lr: float
    weight_decay: float
    base_lr: float
    base_between: float
    interval: int

    def __call__(self, parameters: Iterable[nn.Parameter]) -> InTurns:
        """The optimiser of these parameters; UsageError where no base is learnt."""
        if self.interval < 1 or not 0 <= self.base_between <= 1:
            raise UsageError(
                "interval is at least 1, base_between a share from 0 to 1; "
                f"got {self.interval}, {self.base_between}"
            )
        given = list(parameters)
        moved = [one for one in given if isinstance(one, Moved)]
        if not moved:
            raise UsageError("Alternating moves a flow and its learnt base in turns; none is learnt here")
        flow = [one for one in given if not isinstance(one, Moved)]
        groups: list[dict[str, Any]] = [
            {"params": flow, "lr": self.lr, "weight_decay": self.weight_decay, "steps": 0},
            {"params": moved, "lr": self.base_lr, "weight_decay": 0.0},
        ]
        return InTurns(groups, self.base_between, self.interval)


class InTurns(torch.optim.Adam):
    """Adam of two groups, a flow and its base; how many steps were taken is part of the state."""

    def __init__(self, groups: list[dict[str, Any]], between: float, interval: int):
        super().__init__(groups)
        self.between, self.interval = between, interval

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As Adam's, of those whose turn it is."""
        flow, base = self.param_groups
        turn, rate = flow["steps"] % self.interval == 0, base["lr"]
        gradients = [one.grad for one in flow["params"]]
        if turn:
            for one in flow["params"]:
                one.grad = None
        else:
            base["lr"] = rate * self.between
        found = super().step(closure)
        base["lr"] = rate
        for one, gradient in zip(flow["params"], gradients, strict=True):
            one.grad = gradient
        flow["steps"] += 1
        return found

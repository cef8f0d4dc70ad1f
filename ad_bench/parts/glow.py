"""Two-sided affine couplings, which transform both halves of the channels in one step (Glow-like).

As DifferNet, CS-Flow and AST have them (Rudolph et al., WACV 2021, 2022, 2023: marco-rudolph/differnet at
9bdf026, cs-flow at 88a13b8, AST at 8c243ad, all MIT; a test of each method compares), for one map or for
several scales at once. One-sided couplings with a global affine are in `flow`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError

# Channels in and out -> a network from the one halves of all scales to scale and shift of the others: of one
# map it takes a tensor and gives one, of several it takes as many and gives a sequence of them.
Subnet = Callable[[int, int], nn.Module]
ARCTAN = 0.636  # about 2 / pi: the log-scale lies within +-clamp
Affine = tuple[Tensor, Tensor]  # log-scale and shift
LIMIT = 1e6  # what leaves a block is cut off here, as the authors do


class GlowBlock(nn.Module):
    """Channels are shuffled; the second half scales and shifts the first; what that is now, the second.

    Maps are (B, C, ...), one for each of `scales`; a condition (B, condition, ...) of the same places is told
    to the subnets of a single map. The shuffling is that of numpy's RandomState(seed), as the authors'.
    """

    shuffled: Tensor

    def __init__(self, channels: int, subnet: Subnet, clamp: float, seed: int, condition: int, scales: int):
        if channels < 2:
            raise UsageError(f"a coupling splits the channels in two: it needs at least 2, got {channels}")
        if not clamp > 0:
            raise UsageError(f"clamp bounds the log-scale and is above 0; got {clamp}")
        super().__init__()
        self.clamp, self.halves = clamp, [channels // 2, channels - channels // 2]
        self.by_first = subnet(self.halves[0] + condition, 2 * self.halves[1])
        self.by_second = subnet(self.halves[1] + condition, 2 * self.halves[0])
        draws = np.random.RandomState(seed)
        orders = torch.stack([torch.from_numpy(draws.permutation(channels)) for _ in range(scales)])
        self.register_buffer("shuffled", orders, persistent=False)  # (scales, C)

    def forward(
        self, maps: Sequence[Tensor], condition: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of each scale y of x's shape, and log |det dy/dx| of every place (B, ...), channels added up."""
        maps = [one[:, order] for one, order in zip(maps, self.shuffled, strict=True)]
        first, second = zip(*(one.split(self.halves, 1) for one in maps), strict=True)
        said = self._say(self.by_second, second, condition)
        first = _moved(first, said)
        told = self._say(self.by_first, first, condition)
        second = _moved(second, told)
        log_det = [a.sum(1) + b.sum(1) for (a, _), (b, _) in zip(said, told, strict=True)]
        joined = [torch.cat(pair, 1).clamp(-LIMIT, LIMIT) for pair in zip(first, second, strict=True)]
        return joined, log_det

    def inverse(self, maps: Sequence[Tensor], condition: Tensor | None = None) -> list[Tensor]:
        """The maps whose forward is these, where nothing was cut off."""
        first, second = zip(*(one.split(self.halves, 1) for one in maps), strict=True)
        second = _moved_back(second, self._say(self.by_first, first, condition))
        first = _moved_back(first, self._say(self.by_second, second, condition))
        joined = [torch.cat(pair, 1) for pair in zip(first, second, strict=True)]
        return [one[:, order.argsort()] for one, order in zip(joined, self.shuffled, strict=True)]

    def _say(self, subnet: nn.Module, halves: Sequence[Tensor], condition: Tensor | None) -> list[Affine]:
        """Of each scale the log-scale and the shift of the other half."""
        told = halves if condition is None else [torch.cat([one, condition], 1) for one in halves]
        answers = subnet(*told)
        raw = [one.chunk(2, 1) for one in ([answers] if isinstance(answers, Tensor) else answers)]
        return [(self.clamp * ARCTAN * torch.atan(scale / self.clamp), shift) for scale, shift in raw]


class GlowFlow(nn.Module):
    """Blocks in a row, one for each of `subnets`, seeded 0, 1, 2, ...; maps and answers as of one block."""

    def __init__(
        self, channels: int, subnets: Sequence[Subnet], clamp: float, condition: int = 0, scales: int = 1
    ):
        if not subnets:
            raise UsageError("a flow has at least one step; got none")
        super().__init__()
        self.blocks = nn.ModuleList(
            GlowBlock(channels, subnet, clamp, seed, condition, scales) for seed, subnet in enumerate(subnets)
        )

    def forward(
        self, maps: Sequence[Tensor], condition: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of each scale z of x's shape, and log |det dz/dx| of every place (B, ...), channels added up."""
        found, totals = list(maps), [one.new_zeros(()) for one in maps]
        for block in self.blocks:
            found, log_det = block(found, condition)
            totals = [total + one for total, one in zip(totals, log_det, strict=True)]
        return found, totals

    def inverse(self, maps: Sequence[Tensor], condition: Tensor | None = None) -> list[Tensor]:
        """The maps whose forward is these."""
        for block in reversed(self.blocks):
            maps = block.inverse(maps, condition)  # type: ignore[operator]
        return list(maps)


def _moved(halves: Sequence[Tensor], said: list[Affine]) -> tuple[Tensor, ...]:
    return tuple(x * log_scale.exp() + shift for x, (log_scale, shift) in zip(halves, said, strict=True))


def _moved_back(halves: Sequence[Tensor], said: list[Affine]) -> tuple[Tensor, ...]:
    return tuple((y - shift) * (-log_scale).exp() for y, (log_scale, shift) in zip(halves, said, strict=True))

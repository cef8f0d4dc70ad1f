"""Normalising flows: invertible networks with an exact log-determinant, made of affine coupling blocks.

The block is FrEIA's AllInOneBlock as the papers that use it had it (vislearn/FrEIA at 1779d1f and cc5cf5e,
MIT; a test compares). Our own, because FrEIA's last release is of 2022, its releases disagree on the clamp
(tanh(a) there, tanh(a / clamp) since), its permutations come from numpy's global generator, and a hard one
is a dense convolution: C times the work of picking channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError

Subnet = Callable[[int, int], nn.Module]  # channels in and out -> the network that gives scale and shift
PERMUTATIONS = ("hard", "soft")
DAMPING = 0.1  # of what the subnet says: a fresh block changes its input little
UNIT = 2 * math.log(math.exp(5) - 1)  # the global scale's raw value that means 1


class CouplingBlock(nn.Module):
    """One half of the channels scales and shifts the other; then all are scaled, shifted and mixed.

    x is (B, C) or (B, C, h, w); a condition (B, condition, ...) of the same places is told to the subnet.
    The log-scale lies within +-clamp. Mixed by a random permutation of the channels (`hard`) or a random
    orthogonal matrix (`soft`), drawn from torch's global generator and never trained.
    """

    mixing: Tensor

    def __init__(self, channels: int, subnet: Subnet, clamp: float, permutation: str, condition: int = 0):
        if channels < 2:
            raise UsageError(f"a coupling splits the channels in two: it needs at least 2, got {channels}")
        if not clamp > 0:
            raise UsageError(f"clamp bounds the log-scale and is above 0; got {clamp}")
        if permutation not in PERMUTATIONS:
            raise UsageError(f"permutation is one of {', '.join(PERMUTATIONS)}; got {permutation!r}")
        super().__init__()
        self.clamp, self.hard = clamp, permutation == "hard"
        self.halves = [channels - channels // 2, channels // 2]
        self.subnet = subnet(self.halves[0] + condition, 2 * self.halves[1])
        self.scale = nn.Parameter(torch.full((channels,), UNIT))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mixing", torch.randperm(channels) if self.hard else _orthogonal(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y of x's shape, and log |det dy/dx| (B,)."""
        guide, moved = x.split(self.halves, 1)
        log_scale, shift = self._coefficients(guide, condition)
        x = torch.cat([guide, moved * log_scale.exp() + shift], 1)
        scale = _over(self._scale(), x)
        log_det = log_scale.flatten(1).sum(1) + scale.log().sum() * x[0, 0].numel()
        return self._mixed(x * scale + _over(self.shift, x)), log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """The x whose forward is y."""
        x = (self._unmixed(y) - _over(self.shift, y)) / _over(self._scale(), y)
        guide, moved = x.split(self.halves, 1)
        log_scale, shift = self._coefficients(guide, condition)
        return torch.cat([guide, (moved - shift) * (-log_scale).exp()], 1)

    def _coefficients(self, guide: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        told = guide if condition is None else torch.cat([guide, condition], 1)
        raw, shift = (DAMPING * self.subnet(told)).chunk(2, 1)
        return self.clamp * torch.tanh(raw), shift

    def _scale(self) -> Tensor:
        return 0.1 * F.softplus(self.scale, beta=0.5)

    def _mixed(self, x: Tensor) -> Tensor:
        return x[:, self.mixing] if self.hard else torch.einsum("oc,bc...->bo...", self.mixing, x)

    def _unmixed(self, y: Tensor) -> Tensor:
        return y[:, self.mixing.argsort()] if self.hard else torch.einsum("oc,bo...->bc...", self.mixing, y)


class Flow(nn.Module):
    """Coupling blocks in a row, one for each of `subnets`; x, condition and answers as of one block."""

    def __init__(
        self, channels: int, subnets: Sequence[Subnet], clamp: float, permutation: str, condition: int = 0
    ):
        if not subnets:
            raise UsageError("a flow has at least one step; got none")
        super().__init__()
        self.blocks = nn.ModuleList(
            CouplingBlock(channels, subnet, clamp, permutation, condition) for subnet in subnets
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z of x's shape, and log |det dz/dx| (B,)."""
        total = x.new_zeros(len(x))
        for block in self.blocks:
            x, log_det = block(x, condition)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The x whose forward is z."""
        for block in reversed(self.blocks):
            z = block.inverse(z, condition)  # type: ignore[operator]
        return z


def _over(values: Tensor, x: Tensor) -> Tensor:
    """(C,) shaped to meet the channels of x."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def _orthogonal(size: int) -> Tensor:
    """A random (size, size) orthogonal matrix, every one equally likely."""
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()

"""Two-dimensional flows over the levels of a network, and the map of what is unlikely (FastFlow)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.parts.base import Base
from ad_bench.parts.flow import Flow, Subnet
from ad_bench.parts.maps import upsample


class FlowMaps(nn.Module):
    """For each level, of so many `channels`: a norm, a flow of a step for each of `subnets`, and its base."""

    def __init__(self, channels: Sequence[int], subnets: Sequence[Subnet], clamp: float, base: str):
        super().__init__()
        self.norms = nn.ModuleList(CellNorm() for _ in channels)
        self.flows = nn.ModuleList(Flow(count, subnets, clamp, "hard") for count in channels)
        self.bases = nn.ModuleList(Base(count, base) for count in channels)

    def take_shapes(self, levels: Sequence[Tensor]) -> None:
        """Let the norms begin anew with the shapes of these levels (B, C, h, w)."""
        for norm, level in zip(self.norms, levels, strict=True):
            cast(CellNorm, norm).take_shape(level[0])

    def loss(self, levels: Sequence[Tensor]) -> Tensor:
        """Negative log-likelihood up to a constant, 0.5 |z|^2 - log det: mean of images, sum of levels."""
        likelihoods = [
            (base(z).flatten(1).sum(1) - log_det).mean()
            for base, (z, log_det) in zip(self.bases, self.latents(levels), strict=True)
        ]
        return torch.stack(likelihoods).sum()

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, *size): minus the likelihood exp(-0.5 |z|^2 / C) of each cell, mean over levels."""
        maps = [
            upsample(-torch.exp(-base(z).mean(1)), size)
            for base, (z, _) in zip(self.bases, self.latents(levels), strict=True)
        ]
        return torch.stack(maps).mean(0)

    def latents(self, levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Of each level (B, C, h, w) the latent of that shape and the log-determinant (B,)."""
        triples = zip(self.flows, self.norms, levels, strict=True)
        return [flow(norm(level)) for flow, norm, level in triples]


class CellNorm(nn.Module):
    """LayerNorm over a whole (C, h, w), with a weight and a bias of its own for every cell and channel.

    Its shape is that of the training images' features, or of the state that is loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(0))

    def take_shape(self, features: Tensor) -> None:
        """Begin anew with the shape of `features`, unless it is that already."""
        if self.weight.shape != features.shape:
            self.weight = nn.Parameter(torch.ones_like(features))
            self.bias = nn.Parameter(torch.zeros_like(features))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w), normalised; ValueError where it is not of the trained shape."""
        if features.shape[1:] != self.weight.shape:
            raise ValueError(
                f"the features are {tuple(features.shape[1:])}, the norm is for {tuple(self.weight.shape)}: "
                "fit the method, and predict at the size it was fitted with"
            )
        return F.layer_norm(features, self.weight.shape, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}weight" in state_dict:
            self.take_shape(torch.empty_like(state_dict[f"{prefix}weight"], device=self.weight.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

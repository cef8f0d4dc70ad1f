"""Flows over levels: the loss is a density's, the map a likelihood, the norms have a shape."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ad_bench.parts.flowmaps import CellNorm, FlowMaps


def convolution(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def made(base: str, levels: list[Tensor]) -> FlowMaps:
    """Every parameter moved by noise."""
    torch.manual_seed(0)
    maps = FlowMaps([level.shape[1] for level in levels], [convolution] * 2, 2.0, base)
    maps.take_shapes(levels)
    with torch.no_grad():
        for parameter in maps.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return maps


@pytest.mark.parametrize("base", ["standard", "learnt"])
def test_the_loss_is_minus_the_log_density_up_to_a_constant(base: str) -> None:
    """Of each level: the base's density of z times the Jacobian's determinant, by autograd."""
    levels = [torch.randn(2, 4, 2, 2), torch.randn(2, 3, 1, 2)]
    maps = made(base, levels)
    total = torch.zeros(())
    for level, norm, flow, its in zip(levels, maps.norms, maps.flows, maps.bases, strict=True):
        mean = its.mean.view(-1, 1, 1) if its.learnt else torch.zeros(())
        spread = (its.log_variance / 2).exp().view(-1, 1, 1) if its.learnt else torch.ones(())
        for one in norm(level):
            z = flow(one[None])[0][0]
            matrix = torch.autograd.functional.jacobian(lambda x, flow=flow: flow(x[None])[0][0], one)
            log_det = torch.linalg.slogdet(matrix.reshape(one.numel(), one.numel()))[1]
            density = torch.distributions.Normal(mean, spread).log_prob(z).sum() + log_det
            total = total - (density + one.numel() / 2 * math.log(2 * math.pi)) / len(level)
    torch.testing.assert_close(maps.loss(levels), total, rtol=1e-4, atol=1e-4)


def test_a_map_is_minus_the_mean_likelihood() -> None:
    levels = [torch.randn(2, 4, 4, 4), torch.randn(2, 3, 2, 2)]
    maps = made("standard", levels)
    likely = [torch.exp(-0.5 * z.square().mean(1, keepdim=True)) for z, _ in maps.latents(levels)]
    wide = [nn.functional.interpolate(one, size=(8, 8), mode="bilinear")[:, 0] for one in likely]
    torch.testing.assert_close(maps(levels, (8, 8)), -(wide[0] + wide[1]) / 2)


def test_a_norm_has_the_shape_of_the_training_features() -> None:
    norm, other = CellNorm(), CellNorm()
    norm.take_shape(torch.zeros(3, 4, 5))
    with torch.no_grad():
        norm.weight.mul_(2).add_(torch.randn(3, 4, 5))
    other.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(other(x), norm(x))
    with pytest.raises(ValueError, match="at the size it was fitted with"):
        norm(torch.randn(2, 3, 4, 6))

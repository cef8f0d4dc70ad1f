"""Two-sided couplings: inverse, and log-determinant against autograd, far from the start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.glow import LIMIT, GlowBlock, GlowFlow, Subnet


def dense(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 7), nn.ReLU(), nn.Linear(7, channels_out))


def convolution(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class Crossed(nn.Module):
    """Two scales, (h, w) and half of it, that hear each other."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.convs = nn.ModuleList(convolution(channels_in, channels_out) for _ in range(4))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        wide = nn.functional.interpolate(coarse, scale_factor=2)
        narrow = nn.functional.avg_pool2d(fine, 2)
        a, b, c, d = self.convs
        return a(fine) + b(wide), c(coarse) + d(narrow)


def flow(channels: int, subnet: Subnet, steps: int = 3, condition: int = 0, scales: int = 1) -> GlowFlow:
    torch.manual_seed(channels)
    made = GlowFlow(channels, [subnet] * steps, 1.9, condition, scales).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.7 * torch.randn_like(parameter)
    return made


def log_det_of(made: GlowFlow, maps: list[Tensor], condition: Tensor | None = None) -> Tensor:
    """By autograd, of one image: all numbers of all scales in one row."""
    shapes = [one.shape for one in maps]

    def function(row: Tensor) -> Tensor:
        parts = row.split([one.numel() for one in maps])
        z, _ = made([part.view(shape) for part, shape in zip(parts, shapes, strict=True)], condition)
        return torch.cat([one.flatten() for one in z])

    matrix = torch.autograd.functional.jacobian(function, torch.cat([one.flatten() for one in maps]))
    return torch.linalg.slogdet(matrix)[1]


@settings(max_examples=15, deadline=None)
@given(channels=st.integers(2, 7), condition=st.sampled_from([0, 4]), b=st.integers(1, 3))
def test_dense_flows(channels: int, condition: int, b: int) -> None:
    made = flow(channels, dense, condition=condition)
    x = 2 * torch.randn(b, channels, dtype=torch.float64)
    told = torch.randn(b, condition, dtype=torch.float64) if condition else None
    (z,), (log_det,) = made([x], told)
    torch.testing.assert_close(made.inverse([z], told)[0], x, rtol=1e-7, atol=1e-7)
    assert log_det.shape == (b,)
    for i in range(b):
        alone = None if told is None else told[i : i + 1]
        torch.testing.assert_close(log_det[i], log_det_of(made, [x[i : i + 1]], alone), rtol=1e-7, atol=1e-7)


def test_log_determinants_of_the_places_add_up_to_the_whole() -> None:
    """The card's toy: two channels of 3 x 3."""
    made, x = flow(2, convolution, condition=4), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    told = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    (z,), (log_det,) = made([x], told)
    assert log_det.shape == (2, 3, 3)
    torch.testing.assert_close(made.inverse([z], told)[0], x, rtol=1e-7, atol=1e-7)
    for i in range(2):
        wanted = log_det_of(made, [x[i : i + 1]], told[i : i + 1])
        torch.testing.assert_close(log_det[i].sum(), wanted, rtol=1e-7, atol=1e-7)
    (other,), _ = made([x], told + 1)
    assert not torch.allclose(other, z)


def test_scales_are_inverted_together() -> None:
    made = flow(5, Crossed, scales=2)
    maps = [torch.randn(2, 5, 4, 4, dtype=torch.float64), torch.randn(2, 5, 2, 2, dtype=torch.float64)]
    z, log_det = made(maps)
    for back, one in zip(made.inverse(z), maps, strict=True):
        torch.testing.assert_close(back, one, rtol=1e-5, atol=1e-5)  # exponentials of large log-scales
    for i in range(2):
        wanted = log_det_of(made, [one[i : i + 1] for one in maps])
        total = sum(one[i].sum() for one in log_det)
        torch.testing.assert_close(total, wanted, rtol=1e-7, atol=1e-7)
    changed, _ = made([maps[0], maps[1] + 1])
    assert not torch.allclose(changed[0], z[0]), "the fine scale does not hear the coarse one"


def test_one_block_by_hand() -> None:
    """First half from the second, then the second from the new first; the log-scale is an arc tangent."""

    class Says(nn.Module):
        def __init__(self, factor: float):
            super().__init__()
            self.factor = factor

        def forward(self, told: Tensor) -> Tensor:
            return torch.cat([self.factor * told, told + 1], 1)

    block = GlowBlock(2, lambda channels_in, channels_out: Says(3.0), 1.5, 0, 0, 1)
    block.by_second.factor = -2.0  # type: ignore[assignment]
    block.shuffled.copy_(torch.tensor([[1, 0]]))
    (y,), (log_det,) = block([torch.tensor([[0.4, 2.0]])])

    def log_scale(raw: float) -> float:
        return 1.5 * 0.636 * math.atan(raw / 1.5)

    a = log_scale(-2.0 * 0.4)
    first = 2.0 * math.exp(a) + 1.4
    b = log_scale(3.0 * first)
    torch.testing.assert_close(y, torch.tensor([[first, 0.4 * math.exp(b) + first + 1]]))
    assert log_det.item() == pytest.approx(a + b, rel=1e-5)


def test_shuffles_are_numpys_and_silent_subnets_leave_only_them() -> None:
    """Of the seeds 0 and 1; the scales draw one after the other."""

    def silent(channels_in: int, channels_out: int) -> nn.Module:
        class Nothing(nn.Module):
            def forward(self, *told: Tensor) -> list[Tensor]:
                return [one.new_zeros(len(one), channels_out, *one.shape[2:]) for one in told]

        return Nothing()

    x = [torch.randn(2, 6), torch.randn(2, 6)]
    z, log_det = GlowFlow(6, [silent] * 2, 2.0, 0, 2)(x)
    wanted = [one.numpy() for one in x]
    for seed in range(2):
        draws = np.random.RandomState(seed)
        wanted = [one[:, draws.permutation(6)] for one in wanted]
    for one, two, det in zip(z, wanted, log_det, strict=True):
        np.testing.assert_array_equal(one, two)
        assert torch.equal(det, torch.zeros(2))


def test_what_runs_away_is_cut_off() -> None:
    block = GlowBlock(2, lambda a, b: nn.Linear(a, b), 1.0, 0, 0, 1)
    (y,), _ = block([torch.full((1, 2), 1e9)])
    assert y.abs().max() == LIMIT


def test_fitting_lowers_the_negative_log_likelihood_of_normal_data() -> None:
    torch.manual_seed(0)
    x = 1.5 * torch.randn(512, 4) + 0.5
    made = GlowFlow(4, [dense] * 4, 3.0)
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    losses = []
    for _ in range(200):
        (z,), (log_det,) = made([x])
        loss = (0.5 * z.square().sum(1) - log_det).mean() / 4 + 0.5 * math.log(2 * math.pi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    entropy = math.log(1.5) + 0.5 * (1 + math.log(2 * math.pi))  # the best there is
    assert losses[0] > entropy + 0.3
    assert losses[-1] == pytest.approx(entropy, abs=0.1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"channels": 1}, "at least 2, got 1"),
        ({"clamp": 0.0}, "clamp"),
        ({"subnets": []}, "at least one step"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    wanted = {"channels": 4, "subnets": [dense], "clamp": 1.0, **changed}
    with pytest.raises(UsageError, match=said):
        GlowFlow(**wanted)  # type: ignore[arg-type]

"""Invertibility and log-determinant against autograd, for parameters far from the start."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.flow import CouplingBlock, Flow


def dense(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels_in, 2 * channels_in), nn.ReLU(), nn.Linear(2 * channels_in, channels_out)
    )


def convolutions(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, channels_out, 3, padding=1)
    )


def flow(
    channels: int,
    subnet: Callable[[int, int], nn.Module],
    permutation: str,
    seed: int = 0,
    condition: int = 0,
    steps: int = 4,
    spread: float = 0.7,
) -> Flow:
    """In double precision, every parameter moved by noise."""
    torch.manual_seed(seed)
    made = Flow(channels, [subnet] * steps, 1.9, permutation, condition).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += spread * torch.randn_like(parameter)
        for block in made.blocks:  # mixings are drawn in float32
            if block.mixing.is_floating_point():
                block.mixing.copy_(torch.linalg.qr(block.mixing)[0])
    return made


def log_det_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """By autograd: log |det| of the Jacobian at one x (C, ...)."""
    matrix = torch.autograd.functional.jacobian(function, x).reshape(x.numel(), x.numel())
    return torch.linalg.slogdet(matrix)[1]


@pytest.mark.parametrize("permutation", ["hard", "soft"])
@settings(max_examples=15, deadline=None)
@given(
    channels=st.integers(2, 7),
    condition=st.sampled_from([0, 4]),
    seed=st.integers(0, 1000),
    b=st.integers(1, 3),
)
def test_dense_flows(permutation: str, channels: int, condition: int, seed: int, b: int) -> None:
    model = flow(channels, dense, permutation, seed, condition)
    x = 2 * torch.randn(b, channels, dtype=torch.float64)
    told = torch.randn(b, condition, dtype=torch.float64) if condition else None
    z, log_det = model(x, told)
    torch.testing.assert_close(model.inverse(z, told), x, rtol=1e-7, atol=1e-7)
    for i in range(b):
        alone = None if told is None else told[i : i + 1]
        wanted = log_det_of(lambda one, alone=alone: model(one[None], alone)[0][0], x[i])  # type: ignore[misc]
        torch.testing.assert_close(log_det[i], wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("permutation", ["hard", "soft"])
@pytest.mark.parametrize("channels", [3, 4])
def test_flows_over_maps(permutation: str, channels: int) -> None:
    model = flow(channels, convolutions, permutation, seed=channels)
    x = torch.randn(2, channels, 2, 3, dtype=torch.float64)
    z, log_det = model(x)
    assert z.shape == x.shape
    torch.testing.assert_close(model.inverse(z), x, rtol=1e-7, atol=1e-7)
    for i in range(2):
        torch.testing.assert_close(log_det[i], log_det_of(lambda one: model(one[None])[0][0], x[i]))


@pytest.mark.parametrize("permutation", ["hard", "soft"])
def test_single_precision_inverts_well_enough(permutation: str) -> None:
    torch.manual_seed(0)
    model, x = Flow(64, [dense] * 8, 1.9, permutation), torch.randn(32, 64)
    z, _ = model(x)
    assert (z - x).abs().max() > 0.5
    torch.testing.assert_close(model.inverse(z), x, rtol=1e-4, atol=1e-4)


def test_the_condition_changes_the_output() -> None:
    model, x = flow(4, dense, "soft", condition=3), torch.randn(5, 4, dtype=torch.float64)
    one, two = torch.randn(2, 5, 3, dtype=torch.float64)
    assert not torch.allclose(model(x, one)[0], model(x, two)[0])
    assert not torch.allclose(model(x, one)[1], model(x, two)[1])


def test_a_silent_subnet_leaves_only_the_mixing() -> None:
    def silent(channels_in: int, channels_out: int) -> nn.Module:
        layer = nn.Linear(channels_in, channels_out)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer

    x = torch.randn(6, 5)
    z, log_det = CouplingBlock(5, silent, 2.0, "hard")(x)
    torch.testing.assert_close(z.sort(1).values, x.sort(1).values)
    torch.testing.assert_close(log_det, torch.zeros(6), rtol=0, atol=1e-5)
    z, log_det = CouplingBlock(5, silent, 2.0, "soft")(x)
    torch.testing.assert_close(z.norm(dim=1), x.norm(dim=1))
    assert not torch.allclose(z.sort(1).values, x.sort(1).values)


def test_one_block_by_hand() -> None:
    """y = mixing of (x1, e^(clamp tanh(0.1 a)) x2 + 0.1 b), times the scale, plus the shift."""

    class Says(nn.Module):
        def forward(self, told: Tensor) -> Tensor:
            return torch.stack([20 * told[:, 0], 30 + told[:, 1]], 1)

    block = CouplingBlock(2, lambda channels_in, channels_out: Says(), 1.5, "hard", condition=1)
    block.mixing.copy_(torch.tensor([1, 0]))
    with torch.no_grad():
        block.scale.copy_(torch.tensor([0.0, 2.0]))
        block.shift.copy_(torch.tensor([0.5, -0.25]))
    y, log_det = block(torch.tensor([[0.4, 2.0]]), torch.tensor([[7.0]]))
    log_scale = 1.5 * math.tanh(0.1 * 20 * 0.4)
    scales = [0.2 * math.log(2), 0.2 * math.log1p(math.e)]  # 0.1 softplus(s / 2) / (1 / 2)
    first, second = 0.4, math.exp(log_scale) * 2.0 + 0.1 * (30 + 7)
    wanted = torch.tensor([[second * scales[1] - 0.25, first * scales[0] + 0.5]])
    torch.testing.assert_close(y, wanted)
    assert log_det.item() == pytest.approx(log_scale + sum(math.log(one) for one in scales), rel=1e-5)


def test_the_log_scale_is_bounded_by_the_clamp() -> None:
    block = CouplingBlock(4, lambda a, b: nn.Linear(a, b), 0.5, "hard")
    with torch.no_grad():
        block.subnet.bias.fill_(1e4)  # type: ignore[union-attr, operator]
    assert block(torch.randn(3, 4))[1].max() <= 2 * 0.5 + 1e-5


def test_fitting_lowers_the_negative_log_likelihood_of_correlated_data() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 4) @ torch.tensor([[1.0, 0.9, 0, 0], [0, 0.3, 0, 0], [0, 0, 2, 1], [0, 0, 0, 0.5]])
    model = Flow(4, [dense] * 4, 1.9, "soft")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        z, log_det = model(x)
        loss = (0.5 * z.square().sum(1) - log_det).mean() + 2 * math.log(2 * math.pi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    covariance = x.T.cov()
    entropy = 0.5 * torch.logdet(covariance).item() + 2 * (1 + math.log(2 * math.pi))  # the best there is
    assert losses[0] > entropy + 0.5
    assert losses[-1] == pytest.approx(entropy, abs=0.15)


def test_mixings_are_random_and_travel_with_the_state() -> None:
    torch.manual_seed(1)
    one, two = Flow(6, [dense], 2.0, "soft"), Flow(6, [dense], 2.0, "soft")
    assert not torch.allclose(one.blocks[0].mixing, two.blocks[0].mixing)
    identity = one.blocks[0].mixing @ one.blocks[0].mixing.T
    torch.testing.assert_close(identity, torch.eye(6), rtol=0, atol=1e-5)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(one(x)[0], two(x)[0])
    assert not any(name.endswith("mixing") for name, _ in one.named_parameters()), "a mixing is not trained"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"channels": 1}, "at least 2, got 1"),
        ({"clamp": 0.0}, "clamp"),
        ({"permutation": "medium"}, "hard, soft; got 'medium'"),
        ({"subnets": []}, "at least one step"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    wanted = {"channels": 4, "subnets": [dense], "clamp": 1.0, "permutation": "hard", **changed}
    with pytest.raises(UsageError, match=said):
        Flow(**wanted)  # type: ignore[arg-type]

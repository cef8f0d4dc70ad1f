"""A learnt base against torch.distributions and closed forms, and the turns in which it is moved."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ad_bench.errors import UsageError
from ad_bench.parts.base import Alternating, Base, InTurns, Moved


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)])
def test_densities_are_those_of_a_normal_distribution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    z, base = torch.randn(shape), Base(3, "learnt")
    torch.testing.assert_close(base(z), Base(3, "standard")(z))
    with torch.no_grad():
        base.mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
        base.log_variance.copy_(torch.tensor([0.3, -2.0, 0.0]))
    across = (1, 3, *[1] * (len(shape) - 2))
    normal = torch.distributions.Normal(base.mean.view(across), (base.log_variance / 2).exp().view(across))
    torch.testing.assert_close(base(z), -normal.log_prob(z) - 0.5 * math.log(2 * math.pi))


def optimizer(parameters: list[nn.Parameter], interval: int = 5, between: float = 0.02) -> InTurns:
    return Alternating(1e-3, 0.0, 0.05, between, interval)(parameters)


def test_on_a_frozen_flow_the_base_becomes_the_samples_distribution() -> None:
    torch.manual_seed(0)
    z, base = 2.0 * torch.randn(400, 3) + torch.tensor([1.0, -1.0, 0.5]), Base(3, "learnt")
    steps = optimizer(list(base.parameters()), interval=1)
    for _ in range(400):
        steps.zero_grad()
        base(z).sum(1).mean().backward()
        steps.step()
    torch.testing.assert_close(base.mean.data, z.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(base.log_variance.data.exp(), z.var(0, correction=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("between", [0.02, 0.0])
def test_every_fifth_step_moves_the_base_alone(between: float) -> None:
    flow, base = nn.Linear(3, 3), Base(3, "learnt")
    steps = optimizer([*flow.parameters(), *base.parameters()], between=between)
    for step in range(11):
        before = [one.detach().clone() for one in (flow.weight, base.mean)]
        steps.zero_grad()
        base(flow(torch.ones(2, 3)) + 1).sum().backward()
        steps.step()
        moved = [
            float((one - old).abs().max()) for one, old in zip((flow.weight, base.mean), before, strict=True)
        ]
        if step % 5 == 0:
            assert moved[0] == 0
            assert moved[1] > 0.01
        else:
            assert moved[0] > 0
            assert (0 < moved[1] < 0.01) if between else moved[1] == 0
        assert flow.weight.grad is not None, "the gradient is put back"
        assert [group["lr"] for group in steps.param_groups] == [1e-3, 0.05]


def test_turns_go_on_from_a_state() -> None:
    flow, base = nn.Linear(3, 3), Base(3, "learnt")
    steps = optimizer([*flow.parameters(), *base.parameters()])
    for _ in range(3):
        steps.zero_grad()
        base(flow(torch.ones(2, 3))).sum().backward()
        steps.step()
    flow2, base2 = copy.deepcopy(flow), copy.deepcopy(base)
    other = optimizer([*flow2.parameters(), *base2.parameters()])
    other.load_state_dict(copy.deepcopy(steps.state_dict()))
    for _ in range(4):
        for one, net, its in ((steps, flow, base), (other, flow2, base2)):
            one.zero_grad()
            its(net(torch.ones(2, 3))).sum().backward()
            one.step()
    assert torch.equal(flow.weight, flow2.weight)
    assert torch.equal(base.mean, base2.mean)
    assert isinstance(base2.mean, Moved)


def test_settings_that_mean_nothing_are_refused() -> None:
    learnt = list(Base(3, "learnt").parameters())
    with pytest.raises(UsageError, match="standard, learnt; got 'free'"):
        Base(3, "free")
    with pytest.raises(UsageError, match=r"at least 1.* got 0"):
        optimizer(learnt, interval=0)
    with pytest.raises(UsageError, match="none is learnt here"):
        optimizer(list(nn.Linear(2, 2).parameters()))

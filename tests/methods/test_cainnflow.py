"""CAINNFlow: attention within the couplings, and what it must not break."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ad_bench.methods.fastflow import FastFlow
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.cbam import CBAM

ADAM = partial(torch.optim.Adam, lr=1e-3, weight_decay=1e-5)


def model(steps: int = 4, attend: int = 2) -> FastFlow:
    """Every `attend`-th coupling has attention."""
    torch.manual_seed(0)
    backbone = Backbone("test_resnet.r160_in1k", [2, 3], "random")
    attention = [None] * (attend - 1) + [partial(CBAM, reduction=4, window=7)]
    return FastFlow(backbone, steps, [3], 1.0, attention, 2.0, "standard", 1, 4, ADAM)


def test_attention_is_taken_in_turn() -> None:
    for flow in model(steps=5).maps.flows:
        attends = [any(isinstance(one, CBAM) for one in block.modules()) for block in flow.blocks]  # type: ignore[union-attr, operator]
        assert attends == [False, True, False, True, False]
    assert not any(isinstance(one, CBAM) for one in model(steps=2, attend=3).modules())


def test_attention_leaves_the_flow_invertible_and_its_determinant_right() -> None:
    """Autograd's determinant is that of a function that looks at all cells at once."""
    flow = model(steps=2).maps.flows[0].double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    x = torch.randn(2, 48, 2, 1, dtype=torch.float64)
    z, log_det = flow(x)
    torch.testing.assert_close(flow.inverse(z), x, rtol=1e-7, atol=1e-7)  # type: ignore[operator]
    matrix = torch.autograd.functional.jacobian(lambda one: flow(one[None])[0][0], x[0]).reshape(96, 96)
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(matrix)[1])


def test_silent_last_convolutions_make_a_coupling_the_identity() -> None:
    method = model()
    for net in (one for one in method.modules() if isinstance(one, nn.Sequential) and len(one) in (3, 4)):
        if isinstance(net[-1], nn.Conv2d) and net[-1].kernel_size == (3, 3):
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)  # type: ignore[arg-type]
    x = torch.randn(2, 48, 4, 4)
    z, log_det = method.maps.flows[0](x)
    torch.testing.assert_close(z.sort(1).values, x.sort(1).values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det, torch.zeros(2), rtol=0, atol=1e-3)

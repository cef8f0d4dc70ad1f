"""The training loop against one written out, and with what it may be given."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ad_bench.contract import Run
from ad_bench.parts.optimize import optimize
from tests import tiny


def made() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 1, 3)


def train_set() -> tiny.TensorTrainSet:
    return tiny.TensorTrainSet(tiny.textures(10))


def test_it_is_the_loop_that_one_would_write():
    net, own, train = made(), made(), train_set()
    optimize(
        lambda batch: net(batch.images).square().mean(),
        net.parameters(),
        train,
        Run(),
        epochs=3,
        batch_size=4,
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        schedule=partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1),
        clip=0.5,
    )
    steps, train, sizes = torch.optim.SGD(own.parameters(), 0.05, momentum=0.9), train_set(), []
    for epoch in range(3):
        for group in steps.param_groups:
            group["lr"] = 0.05 * (0.1 if epoch >= 2 else 1)
        for batch in train.batches(4, shuffle=True):
            sizes.append(len(batch.images))
            steps.zero_grad()
            own(batch.images).square().mean().backward()
            nn.utils.clip_grad_norm_(own.parameters(), 0.5)
            steps.step()
    assert sizes == [4, 4, 2] * 3
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), own.parameters(), strict=True))
    assert not torch.equal(net.weight, made().weight)


def test_frozen_parameters_are_left_alone():
    net = made()
    net.bias.requires_grad_(False)
    before = net.bias.clone()
    optimize(
        lambda batch: net(batch.images).square().mean(),
        net.parameters(),
        train_set(),
        Run(),
        epochs=1,
        batch_size=4,
        optimizer=partial(torch.optim.SGD, lr=0.05, weight_decay=0.5),
    )
    assert torch.equal(net.bias, before)

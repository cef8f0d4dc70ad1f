"""A bank keeps what it holds, however long, through save, load and moves."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ad_bench.parts.bank import Bank


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bank, self.layer = Bank(), nn.Linear(2, 1)


def test_a_bank_that_was_never_filled_takes_what_is_loaded() -> None:
    full, empty = Host(), Host()
    full.bank.points = torch.rand(5, 3, dtype=torch.float64)
    empty.load_state_dict(full.state_dict())
    assert len(empty.bank) == 5
    assert torch.equal(empty.bank.points, full.bank.points)
    assert empty.bank.points.dtype == torch.float64
    empty.bank.points[0] = 7  # a copy, not the same memory
    assert not (full.bank.points[0] == 7).any()


def test_a_shorter_one_replaces_a_longer() -> None:
    long, short = Host(), Host()
    long.bank.points, short.bank.points = torch.rand(9, 2), torch.rand(4, 2)
    long.load_state_dict(short.state_dict())
    assert torch.equal(long.bank.points, short.bank.points)


def test_it_is_empty_at_first_and_moves_with_its_host() -> None:
    host = Host()
    assert len(host.bank) == 0
    host.bank.points = torch.rand(2, 2)
    assert copy.deepcopy(host).to(torch.float64).bank.points.dtype == torch.float64
    assert not any(name.startswith("bank") for name, _ in host.named_parameters())

"""What a cell costs."""

from __future__ import annotations

import math

import torch

from ad_bench.runner.timing import latency


def test_the_calls_that_warm_up_are_not_timed() -> None:
    calls: list[int] = []
    median, tail = latency(lambda: calls.append(1), torch.device("cpu"), 5)
    assert len(calls) == 3 + 5
    assert 0 <= median <= tail


def test_without_repeats_nothing_is_called_and_there_is_no_figure() -> None:
    calls: list[int] = []
    assert all(map(math.isnan, latency(lambda: calls.append(1), torch.device("cpu"), 0)))
    assert not calls

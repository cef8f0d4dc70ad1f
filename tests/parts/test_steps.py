"""Steps: how many batches, of which passes; the rate by hand."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from ad_bench.contract import Run
from ad_bench.errors import UsageError
from ad_bench.parts.steps import batches_of_steps, warm_cosine
from tests.tiny import TensorTrainSet


class Counting(Run):
    """Knows how many epochs it was asked for; `first` is where a resumed training begins."""

    first = 0

    def epochs(self, count, state=None, ready=None):  # type: ignore[no-untyped-def]
        self.asked, self.state = count, state
        yield from range(self.first, count)


def numbered(count: int) -> TensorTrainSet:
    return TensorTrainSet(torch.arange(count).float().view(count, 1, 1, 1).expand(count, 3, 2, 2))


def test_passes_follow_each_other_and_the_last_is_cut_short() -> None:
    train, run = numbered(7), Counting()
    batches = [one.images[:, 0, 0, 0].tolist() for one in batches_of_steps(8, train, run, 3, {})]
    assert run.asked == 3
    assert [len(one) for one in batches] == [3, 3, 1, 3, 3, 1, 3, 3]
    for first in (0, 3):
        assert sorted(chain(*batches[first : first + 3])) == list(range(7))
    assert batches[:3] != batches[3:6]


def test_a_resumed_training_has_only_the_steps_that_are_left() -> None:
    run = Counting()
    run.first = 2
    assert len(list(batches_of_steps(8, numbered(7), run, 3, {}))) == 2


def test_a_training_without_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="0 and 3"):
        next(batches_of_steps(0, numbered(7), Run(), 3, {}))


def test_the_rate_warms_up_and_falls() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = warm_cosine(optimizer, steps=100, warmup=0.1, last=0.01)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.01)
    assert [rates[5], rates[55]] == pytest.approx([(0.3 + 0.01) / 2] * 2)
    assert max(rates) == rates[10] == pytest.approx(0.3)
    assert rates[100] == pytest.approx(0.01)

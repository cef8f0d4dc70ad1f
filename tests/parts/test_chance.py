"""Single draws: their ends, their frequencies, and that a generator alone decides them."""

from __future__ import annotations

import pytest
import torch

from ad_bench.parts.chance import happens, uniform, whole


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_fills_its_range() -> None:
    generator = draws()
    found = torch.tensor([uniform(generator, -2.0, 6.0) for _ in range(4000)])
    assert found.min() >= -2
    assert found.max() < 6
    counts = torch.histc(found, 8, -2, 6)
    assert (counts - 500).abs().max() < 100  # 4.8 deviations


def test_whole_reaches_both_ends() -> None:
    generator = draws()
    found = [whole(generator, 3, 5) for _ in range(300)]
    assert set(found) == {3, 4, 5}
    assert whole(generator, 7, 7) == 7


@pytest.mark.parametrize(("probability", "times"), [(0.0, 0), (1.0, 2000)])
def test_what_is_sure_happens_always(probability: float, times: int) -> None:
    generator = draws()
    assert sum(happens(generator, probability) for _ in range(2000)) == times


def test_happens_as_often_as_its_probability() -> None:
    generator = draws()
    assert abs(sum(happens(generator, 0.3) for _ in range(4000)) - 1200) < 150  # 5 deviations


def test_the_generator_alone_decides() -> None:
    before = torch.get_rng_state()
    one, other = draws(3), draws(3)
    assert (uniform(one), whole(one, 0, 1 << 30)) == (uniform(other), whole(other, 0, 1 << 30))
    assert torch.equal(torch.get_rng_state(), before)

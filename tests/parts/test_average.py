"""Averages of weights by their closed form, and against AnoDDPM's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ad_bench.parts.average import follow
from tests.written_down import fill

REFERENCE = np.load(Path(__file__).parents[1] / "methods" / "fixtures" / "anoddpm.npz")


def test_agrees_with_the_authors_code() -> None:
    source, average = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    fill(source, 1)
    fill(average, 2)
    follow(average, source, 0.9)
    np.testing.assert_allclose(average.weight.detach(), REFERENCE["average"], rtol=1e-12)


def test_what_is_left_of_the_start_falls_with_the_steps() -> None:
    source, average = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.init.constant_(source.weight, 1.0)
    nn.init.constant_(average.weight, 3.0)
    for _ in range(5):
        follow(average, source, 0.8)
    torch.testing.assert_close(average.weight.detach(), torch.full((2, 2), 1 + 2 * 0.8**5))
    assert source.weight.detach().unique().tolist() == [1.0]

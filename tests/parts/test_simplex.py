"""Simplex noise against the authors' of AnoDDPM, and what it is for: smooth, bounded, of a known seed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts import simplex
from ad_bench.parts.simplex import random_tables, simplex_noise, simplex_octaves

REFERENCE = np.load(Path(__file__).parents[1] / "methods" / "fixtures" / "anoddpm.npz")


def places(count: int, seed: int = 0) -> Tensor:
    return 40 * torch.rand(3, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 9


def tables(count: int, seed: int = 0) -> Tensor:
    return random_tables(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("index", "depth"), [(0, 0), (1, 123)])
def test_agrees_with_the_authors_code(index: int, depth: int) -> None:
    """But for what their sum leaves out: little, and in few places."""
    table = torch.from_numpy(REFERENCE["table"]).long()[None]
    ours = simplex_octaves(table, depth, (24, 40), 6, 0.8, 64)[0]
    apart = np.abs(ours.numpy() - REFERENCE["noise"][index])
    assert apart.max() < 2e-4
    assert np.median(apart) < 1e-6


def test_all_points_within_reach_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    given, ours = places(500), simplex_noise(places(500), tables(2))
    monkeypatch.setattr(simplex, "_NEAR", list(itertools.product(range(-3, 5), repeat=3)))
    torch.testing.assert_close(simplex_noise(given, tables(2)), ours)


def test_the_permutation_decides() -> None:
    fields = simplex_noise(places(300), tables(3))
    torch.testing.assert_close(fields, simplex_noise(places(300), tables(3)), rtol=0, atol=0)
    torch.testing.assert_close(fields[1:2], simplex_noise(places(300), tables(3)[1:2]))
    assert fields.corrcoef().triu(1).abs().max() < 0.2
    assert (tables(3).sort(1).values == torch.arange(256)).all()
    assert not torch.equal(tables(3), tables(3, seed=1))


def test_values_are_within_one_and_around_zero() -> None:
    fields = simplex_noise(places(20000), tables(4))
    assert 0.8 < fields.abs().max() < 1
    assert fields.mean().abs() < 0.01
    assert 0.25 < fields.std() < 0.4


def test_the_field_is_smooth() -> None:
    """A small way changes it little: no jumps at the borders of its cells either."""
    along = torch.linspace(0, 30, 60001, dtype=torch.float64)
    line = simplex_noise(torch.stack([along, 0.37 * along + 2, 5 - 0.71 * along]), tables(1))[0]
    slope = line.diff() / (along[1] - along[0])
    assert slope.abs().max() < 5
    assert (slope.diff() / (along[1] - along[0])).abs().max() < 60
    at_corner = torch.zeros(3, 1, dtype=torch.float64)
    assert simplex_noise(at_corner, tables(5)).abs().max() == 0  # as all gradient noise on its lattice


def test_fine_octaves_add_fine_detail() -> None:
    """Power beyond a wave of 16 pixels: none with the first two octaves alone, more with each further one."""

    def fine(octaves: int) -> float:
        field = simplex_octaves(tables(3), 0, (128, 128), octaves, 0.8, 64)
        field = field * torch.hann_window(128, dtype=field.dtype) * torch.hann_window(128).double()[:, None]
        power = torch.fft.fft2(field).abs().square().mean(0)
        rate = torch.fft.fftfreq(128)
        return float(power[(rate**2 + rate[:, None] ** 2).sqrt() > 1 / 16].sum() / power.sum())

    shares = [fine(octaves) for octaves in (1, 2, 4, 6)]
    assert shares[0] < 0.002
    assert shares[1] < 0.01
    assert shares[1] < shares[2] < shares[3]
    assert shares[3] > 0.1


def test_octaves_are_added_with_falling_shares() -> None:
    one = simplex_octaves(tables(2), 7, (9, 13), 1, 0.5, 10)
    finer = simplex_octaves(tables(2), 7, (9, 13), 1, 0.5, 5)
    torch.testing.assert_close(simplex_octaves(tables(2), 7, (9, 13), 2, 0.5, 10), one + 0.5 * finer)
    assert one.shape == (2, 9, 13)
    assert not torch.allclose(one, simplex_octaves(tables(2), 8, (9, 13), 1, 0.5, 10))


def test_no_octaves_are_refused() -> None:
    with pytest.raises(UsageError, match="above 0; got 0, 64"):
        simplex_octaves(tables(1), 0, (8, 8), 0, 0.8, 64)

"""Perlin noise by its definition, and masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.perlin import PerlinMasks, noise, random_noise


def by_definition(angles: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.empty(size)
    for row, column in np.ndindex(*size):
        y, x = row * (len(angles) - 1) / size[0], column * (len(angles[0]) - 1) / size[1]
        top, left = int(y), int(x)
        total = 0.0
        for corner in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            away = (y - corner[0], x - corner[1])
            weight = math.prod(1 - abs(d) ** 3 * (6 * abs(d) ** 2 - 15 * abs(d) + 10) for d in away)
            total += weight * (math.cos(angles[corner]) * away[0] + math.sin(angles[corner]) * away[1])
        out[row, column] = math.sqrt(2) * total
    return out


@pytest.mark.parametrize(("cells", "size"), [((2, 4), (16, 16)), ((3, 5), (16, 22)), ((1, 1), (9, 4))])
def test_noise_by_its_definition(cells: tuple[int, int], size: tuple[int, int]) -> None:
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    found = noise(torch.from_numpy(angles), size)
    np.testing.assert_allclose(found, by_definition(angles, size), atol=1e-12)


def test_noise_is_zero_at_the_corners_and_stays_within_one() -> None:
    fields = random_noise((64, 64), (8, 4), torch.Generator().manual_seed(0), count=50)
    assert fields.shape == (50, 64, 64)
    assert fields[:, ::8, ::16].abs().max() < 1e-6
    assert 0.8 < fields.abs().max() <= 1
    assert not torch.equal(fields[0], fields[1])


def test_masks_follow_the_generator_and_the_threshold() -> None:
    def masks(threshold: float, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([PerlinMasks((0, 5), 90, threshold).draw((64, 48), generator) for _ in range(100)])

    low, high = masks(0.2), masks(0.5)
    assert low.dtype == torch.bool
    assert low.shape == (100, 64, 48)
    assert torch.equal(high, masks(0.5))
    assert not torch.equal(high, masks(0.5, seed=1))
    assert (low | ~high).all(), "a higher threshold gives a part of the mask"
    assert 0.02 < high.float().mean() < 0.2
    assert (high.flatten(1).any(1)).float().mean() > 0.5


def test_unturned_masks_are_the_noise() -> None:
    found = PerlinMasks((2, 2), 0, 0.1).draw((32, 32), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    torch.randint(2, 3, (2, 1), generator=generator)  # u and v
    torch.testing.assert_close(found, random_noise((32, 32), (4, 4), generator)[0] > 0.1)
    assert found.any()
    assert not found.all()


def test_impossible_octaves_are_named() -> None:
    with pytest.raises(UsageError, match=r"\[3, 1\]"):
        PerlinMasks((3, 1), 90, 0.5)

"""Patches: where they lie, what a pixel gets of their scores, which neighbours are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts import windows


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread_by_hand(scores: Tensor, size: int, stride: int, shape: tuple[int, int]) -> Tensor:
    """Patch by patch, as Patch SVDD's `distribute_scores` says; NaN where no patch lies."""
    total, count = torch.zeros(len(scores), *shape), torch.zeros(shape)
    for row in range(scores.shape[1]):
        for column in range(scores.shape[2]):
            place = slice(row * stride, row * stride + size), slice(column * stride, column * stride + size)
            total[:, *place] += scores[:, row, column, None, None]
            count[place] += 1
    return total / count


def test_a_grid_holds_the_patches_and_copies_nothing() -> None:
    images = torch.rand(2, 3, 20, 26, generator=draws())
    patches = windows.grid(images, 8, 3)
    assert patches.shape == (2, 5, 7, 3, 8, 8)
    assert patches.data_ptr() == images.data_ptr()
    for row, column in ((0, 0), (4, 6), (2, 5)):
        expected = images[:, :, 3 * row : 3 * row + 8, 3 * column : 3 * column + 8]
        assert torch.equal(patches[:, row, column], expected)


@pytest.mark.parametrize(("size", "stride", "shape"), [(8, 4, (24, 32)), (16, 4, (64, 64)), (5, 1, (9, 7))])
def test_a_pixel_gets_the_mean_of_the_patches_over_it(size: int, stride: int, shape: tuple[int, int]) -> None:
    counts = [(length - size) // stride + 1 for length in shape]
    scores = torch.rand(3, *counts, generator=draws())
    maps = windows.spread(scores, size, stride, shape)
    torch.testing.assert_close(maps, spread_by_hand(scores, size, stride, shape))
    constant = windows.spread(torch.full_like(scores, 0.7), size, stride, shape)
    torch.testing.assert_close(constant, torch.full((3, *shape), 0.7))


@pytest.mark.parametrize(("size", "stride", "shape"), [(8, 4, (27, 33)), (2, 5, (15, 12))])
def test_a_pixel_that_no_patch_covers_gets_the_nearest_ones(
    size: int, stride: int, shape: tuple[int, int]
) -> None:
    counts = [(length - size) // stride + 1 for length in shape]
    scores = torch.rand(1, *counts, generator=draws())
    maps = windows.spread(scores, size, stride, shape)[0]
    known = spread_by_hand(scores, size, stride, shape)[0]
    covered = known.isfinite().nonzero()
    assert 0 < len(covered) < known.numel()
    for row in range(shape[0]):
        for column in range(shape[1]):
            away = (covered - torch.tensor([row, column])).abs().sum(1)
            nearest = {round(float(known[tuple(at)]), 5) for at in covered[away == away.min()]}
            assert round(float(maps[row, column]), 5) in nearest


def test_scores_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="patches"):
        windows.spread(torch.zeros(1, 3, 3), 8, 4, (24, 24))


@pytest.mark.parametrize(
    ("count", "opposite"), [(8, lambda label: 7 - label), (12, lambda label: (label + 6) % 12)]
)
def test_opposite_labels_negate(count: int, opposite) -> None:
    ways = windows.DIRECTIONS[count]
    for label in range(count):
        torch.testing.assert_close(ways[label], -ways[opposite(label)], atol=1e-12, rtol=0)


def test_twelve_directions_are_thirty_degrees_apart() -> None:
    down, right = windows.DIRECTIONS[12].T
    degrees = torch.rad2deg(torch.atan2(right, down)) % 360
    torch.testing.assert_close(degrees, torch.arange(12).double() * 30, atol=1e-5, rtol=0)


@pytest.mark.parametrize("directions", [8, 12])
def test_labels_are_balanced_and_say_where_the_neighbour_lies(directions: int) -> None:
    size, shape, count = 16, (400, 400), 24_000
    start, end, label = windows.neighbours(draws(), count, size, shape, directions)
    share = torch.bincount(label, minlength=directions) / count
    assert (share - 1 / directions).abs().max() < 4 * math.sqrt(1 / directions / count)
    inside = ((start >= 20) & (start <= 364)).all(1)  # none of these neighbours was held back
    way = (end - start)[inside]
    for number, direction in enumerate(windows.DIRECTIONS[directions].numpy()):
        # Every step that the release can draw, 3K/4 and up to K/4 - 1 more on either axis, and no other.
        steps = [{round(part * (12 + more)) for more in range(4)} for part in direction]
        found = way[label[inside] == number]
        assert {(int(a), int(b)) for a, b in found} == {(a, b) for a in steps[0] for b in steps[1]}


def test_neighbours_stay_inside_and_are_drawn_from_the_generator_alone() -> None:
    first = windows.neighbours(draws(3), 500, 32, (64, 80), 12)
    again = windows.neighbours(draws(3), 500, 32, (64, 80), 12)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    for place in first[:2]:
        assert place.min() >= 0
        assert (place <= torch.tensor([32, 48])).all()
    assert not torch.equal(first[2], windows.neighbours(draws(4), 500, 32, (64, 80), 12)[2])


def test_a_jitter_is_never_nothing_and_every_other_alike() -> None:
    found, counts = np.unique(windows.jitters(draws(), 24_000, 2).numpy(), axis=0, return_counts=True)
    expected = {(row, column) for row in range(-2, 3) for column in range(-2, 3)} - {(0, 0)}
    assert {tuple(way) for way in found.tolist()} == expected
    assert counts.min() > 850
    assert counts.max() < 1150


def test_cut_takes_each_image_at_its_own_place() -> None:
    images = torch.rand(4, 3, 30, 40, generator=draws())
    place = torch.tensor([[0, 0], [22, 32], [5, 7], [11, 0]])
    patches = windows.cut(images, place, 8)
    for image, (row, column), patch in zip(images, place.tolist(), patches, strict=True):
        assert torch.equal(patch, image[:, row : row + 8, column : column + 8])


def test_a_disturbed_patch_has_a_shift_of_each_channel_and_noise_of_each_pixel() -> None:
    noise = windows.disturbed(torch.zeros(2000, 3, 6, 6), 0.02, draws())
    shift = noise.mean((2, 3))
    assert float(shift.std()) == pytest.approx(0.02 * math.sqrt(1 + 1 / 36), rel=0.05)
    assert float((noise - shift[:, :, None, None]).std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: windows.grid(torch.zeros(1, 3, 16, 32), 32, 4), "32 pixels.*16x32"),
        (lambda: windows.places(draws(), 1, 40, (32, 64)), "32x64"),
        (lambda: windows.offsets(draws(), 1, 16, 6), "8 or 12; got 6"),
        (lambda: windows.offsets(draws(), 1, 3, 8), "got 3"),
        (lambda: windows.jitters(draws(), 1, 0), "got 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        call()

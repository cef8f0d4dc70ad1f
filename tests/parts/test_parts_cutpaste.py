"""Pasted patches and scars: where they lie, how large they are, what they are made of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.cutpaste import cut_paste, jitter, scar

AREA, ASPECT, WIDTH, LENGTH = (0.02, 0.15), 0.3, (2, 16), (10, 25)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(height: int, width: int) -> Tensor:
    """(3, H, W): each pixel says where it lies: its row, its column, a third of their sum."""
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return torch.stack([rows, columns, (rows + columns) / 3])


def box(mask: Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of what holds the mask."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def test_outside_the_mask_the_image_is_unchanged() -> None:
    generator, image = draws(), torch.rand(3, 64, 80, generator=draws(1))
    before = image.clone()
    for _ in range(20):
        for pasted, mask in (
            cut_paste(image, generator, AREA, ASPECT, 0.1),
            scar(image, generator, WIDTH, LENGTH, 45, 0.1),
        ):
            assert torch.equal(pasted[:, ~mask], image[:, ~mask])
            assert not torch.equal(pasted[:, mask], image[:, mask])
            assert pasted.min() >= 0
            assert pasted.max() <= 1
    assert torch.equal(image, before)


def test_a_patch_is_a_rectangle_of_the_image_itself() -> None:
    image, generator = numbered(100, 100), draws(2)
    moved = set()
    for _ in range(50):
        pasted, mask = cut_paste(image, generator, AREA, ASPECT, 0.0)
        top, left, height, width = box(mask)
        assert int(mask.sum()) == height * width
        piece = pasted[:, top : top + height, left : left + width]
        row, column = (round(float(piece[axis, 0, 0]) * 100) for axis in (0, 1))
        assert torch.equal(piece, image[:, row : row + height, column : column + width])
        moved.add((top - row, left - column))
    assert len(moved) > 40


def test_areas_and_aspects_of_patches_fill_the_papers_ranges() -> None:
    image, generator = torch.zeros(3, 256, 256), draws(3)
    areas, ratios, centres = [], [], []
    for _ in range(400):
        top, left, height, width = box(cut_paste(image, generator, AREA, ASPECT, 0.0)[1])
        areas.append(height * width / 256**2)
        ratios.append(math.log(width / height) / math.log(1 / ASPECT))
        centres.append((top / (256 - height), left / (256 - width)))
    assert 0.018 < min(areas) < 0.03
    assert 0.14 < max(areas) < 0.155
    assert abs(sum(areas) / 400 - 0.085) < 0.006  # evenly drawn
    assert -1.06 < min(ratios) < -0.95
    assert 0.95 < max(ratios) < 1.06
    assert abs(sum(ratios) / 400) < 0.1  # as often upright as lying
    for lower, upper in ((0, 0.25), (0.75, 1)):
        for axis in (0, 1):
            share = sum(lower <= centre[axis] <= upper for centre in centres) / 400
            assert 0.17 < share < 0.33


def test_scars_have_the_papers_sizes_and_turn() -> None:
    image, generator = torch.zeros(3, 256, 256), draws(4)
    straight = [box(scar(image, generator, WIDTH, LENGTH, 0, 0.0)[1]) for _ in range(300)]
    assert {width for *_, width in straight} == set(range(2, 17))
    assert {height for *_, height, _ in straight} == set(range(10, 26))
    turned = [scar(image, generator, (4, 4), (20, 20), 45, 0.0)[1] for _ in range(100)]
    assert all(60 <= int(mask.sum()) <= 100 for mask in turned)  # of 80 pixels, turned by nearest ones
    widths = [box(mask)[3] for mask in turned]
    assert min(widths) < 8
    assert 15 < max(widths) <= 20  # at 45 degrees 17
    both = [float(mask.nonzero().double().T.corrcoef()[0, 1]) for mask in turned]
    assert min(both) < -0.7  # both ways
    assert max(both) > 0.7


def test_a_scar_is_made_of_the_image() -> None:
    image = numbered(64, 64)
    known = set(map(tuple, image.flatten(1).T.tolist()))
    pasted, mask = scar(image, draws(5), WIDTH, LENGTH, 45, 0.0)
    assert set(map(tuple, pasted[:, mask].T.tolist())) <= known


def test_the_generator_decides() -> None:
    image = torch.rand(3, 64, 64, generator=draws(1))
    for seed in (1, 2):
        one, other = (cut_paste(image, draws(seed), AREA, ASPECT, 0.1)[0] for _ in range(2))
        assert torch.equal(one, other)
    assert not torch.equal(one, cut_paste(image, draws(1), AREA, ASPECT, 0.1)[0])
    torch.manual_seed(0)  # the global one does not
    first = scar(image, draws(3), WIDTH, LENGTH, 45, 0.1)[0]
    torch.manual_seed(1)
    assert torch.equal(first, scar(image, draws(3), WIDTH, LENGTH, 45, 0.1)[0])


def test_jitter_is_small_and_in_range() -> None:
    image = torch.rand(3, 16, 16, generator=draws(6)) * 0.8 + 0.1
    assert jitter(image, 0.0, draws()) is image
    changed = jitter(image, 0.1, draws())
    assert 0 < float((changed - image).abs().mean()) < 0.2
    grey = torch.full((3, 8, 8), 0.5)  # has no hue, no saturation, no contrast: brightness alone
    for seed in range(20):
        bright = jitter(grey, 0.1, draws(seed))
        assert bright.unique().numel() <= 3
        assert bright.min() >= 0.45 - 1e-4
        assert bright.max() <= 0.55 + 1e-4


def test_images_that_are_long_or_small() -> None:
    pasted, mask = cut_paste(torch.rand(3, 8, 400, generator=draws()), draws(7), (0.15, 0.15), 0.3, 0.1)
    assert pasted.shape == (3, 8, 400)
    assert mask.any()
    with pytest.raises(UsageError, match="at least 31 pixels a side; these have 24x64"):
        scar(torch.zeros(3, 24, 64), draws(), WIDTH, LENGTH, 45, 0.1)
    with pytest.raises(UsageError, match=r"rising shares .* got \[0.2, 0.1\]"):
        cut_paste(torch.zeros(3, 64, 64), draws(), (0.2, 0.1), 0.3, 0.1)
    for wrong in (0.7, [0.1, 0.1, 0.1, 0.7], [0.1, 0.1]):
        with pytest.raises(UsageError, match=r"0 to 0\.5, or four of them; got"):
            jitter(torch.zeros(3, 8, 8), wrong, draws())


def test_each_of_four_strengths_moves_its_own() -> None:
    image = torch.rand(3, 16, 16, generator=draws(5))
    assert torch.equal(jitter(image, 0.2, draws(1)), jitter(image, [0.2] * 4, draws(1)))
    bright = jitter(image, [0.4, 0, 0, 0], draws(2)) / image
    assert (bright - bright.median()).abs()[image < 0.6].max() < 1e-4  # one factor, where nothing is clipped
    assert (bright.median() - 1).abs() > 0.01

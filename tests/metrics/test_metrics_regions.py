"""Regions, found from the defect pixels alone, are those that SciPy's labelling of the whole mask finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import CORNERS
from scipy.ndimage import label

from ad_bench.metrics.truth import PixelTruth, number_regions


def assert_same_regions(masks):
    numbers = number_regions([np.flatnonzero(m) for m in masks], [m.shape for m in masks])
    wanted, top = [], 0
    for mask in masks:
        found, count = label(mask, structure=CORNERS)
        wanted.append(found[mask] + top)
        top += count
    wanted = np.concatenate(wanted) if wanted else np.empty(0, int)
    assert len(numbers) == len(wanted)
    pairs = set(zip(numbers.tolist(), wanted.tolist(), strict=True))
    # as many pairs as numbers on either side: one name for one region
    assert len(pairs) == top == len({a for a, _ in pairs})
    assert {a for a, _ in pairs} == set(range(top))
    return numbers


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5),
    density=st.sampled_from([0.02, 0.1, 0.3, 0.45, 0.6, 0.9, 0.98, 1.0]),
)
@settings(max_examples=400, deadline=None)
def test_any_masks(seed, shapes, density):
    rng = np.random.default_rng(seed)
    assert_same_regions([rng.random(shape) < density for shape in shapes])


@pytest.mark.parametrize("density", [0.01, 0.1, 0.25, 0.4, 0.41, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("shape", [(97, 131), (1, 999), (999, 1), (400, 2), (2, 400), (300, 3)])
def test_larger_masks_of_many_densities(density, shape):
    rng = np.random.default_rng(7)
    assert_same_regions([rng.random(shape) < density for _ in range(3)])


def checkerboard(h, w):
    return np.add.outer(np.arange(h), np.arange(w)) % 2 == 0


def comb(h, w):  # teeth that meet in the last row only
    mask = np.zeros((h, w), bool)
    mask[:, ::2] = mask[-1] = True
    return mask


def spiral(size):
    mask, ring = np.zeros((size, size), bool), 0
    while size - 2 * ring > 2:
        mask[ring, max(0, ring - 2) : size - ring] = mask[ring : size - ring, size - 1 - ring] = True
        mask[size - 1 - ring, ring : size - ring] = mask[ring + 2 : size - ring, ring] = True
        ring += 2
    return mask


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (np.ones((5, 7), bool), 1),
        (np.zeros((5, 7), bool), 0),
        (np.ones((1, 1), bool), 1),
        (checkerboard(6, 7), 1),  # all touch by their corners
        (checkerboard(1, 9), 5),
        (comb(9, 9), 1),
        (comb(9, 9)[::-1], 1),
        (comb(9, 9)[:-1], 5),
        (spiral(15), 1),
        # the last pixel of a row and the first of the next are neighbours in memory only
        (np.array([[0, 0, 0, 1], [1, 0, 0, 0]], bool), 2),
        (np.array([[0, 0, 1, 1], [1, 1, 0, 0]], bool), 1 + 0),
        (np.array([[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool), 2),
        (np.array([[1, 0, 0, 1], [1, 0, 0, 1]], bool), 2),
        (np.array([[1, 0, 0, 0], [0, 0, 0, 1]], bool), 2),
        (np.array([[1, 0, 1], [0, 1, 0]], bool), 1),
        (np.array([[1, 0], [0, 1]], bool), 1),
    ],
)
def test_shapes_that_are_easily_got_wrong(mask, count):
    assert len(set(assert_same_regions([mask]).tolist())) == count


def test_no_region_spans_two_images():
    # The last row of one image and the first of the next, at any width: also where they follow in memory.
    for width in range(1, 5):
        for other in range(1, 5):
            masks = [np.ones((2, width), bool), np.ones((1, other), bool), np.ones((3, width), bool)]
            assert len(set(assert_same_regions(masks).tolist())) == 3
    assert len(number_regions([], [])) == 0
    assert len(number_regions([np.empty(0, int)], [None])) == 0
    assert number_regions([np.empty(0, int), np.array([0, 1])], [None, (1, 2)]).tolist() == [0, 0]


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    density=st.sampled_from([0.1, 0.4, 0.8, 1.0]),
    hidden=st.sampled_from([0.05, 0.3, 0.7, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_what_is_ignored_cuts_no_region(seed, shapes, density, hidden):
    rng = np.random.default_rng(seed)
    masks = [rng.random(shape) < density for shape in shapes]
    ignore = [rng.random(shape) < hidden if rng.random() < 0.7 else None for shape in shapes]
    wanted = []
    for mask, left_out in zip(masks, ignore, strict=True):
        numbered, _ = label(mask, structure=CORNERS)
        keep = mask if left_out is None else mask & ~left_out
        wanted.append(1 / np.bincount(numbered[keep])[numbered[keep]] if keep.any() else np.empty(0))
    truth = PixelTruth.of(masks, ignore)
    assert np.array_equal(truth.gain, np.concatenate(wanted))
    # some of the images, in another order: their regions weigh the same
    order = rng.permutation(len(masks))[: max(1, len(masks) - 1)]
    assert np.array_equal(truth.subset(order.tolist()).gain, np.concatenate([wanted[i] for i in order]))
    parts = truth.per_image(truth.gain)
    assert all(np.array_equal(a, b) for a, b in zip(parts, wanted, strict=True))

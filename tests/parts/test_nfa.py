"""Regions and their number of false alarms against growing them one by one, and against chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from ad_bench.parts.nfa import log_nfa, region_log_nfa


def grown(planes: np.ndarray, threshold: float, independent: float) -> np.ndarray:
    """The slow way: from every pixel to its neighbours."""
    found, used = np.zeros(planes.shape), np.zeros(planes.shape, dtype=bool)
    for start in zip(*np.nonzero(planes >= threshold), strict=True):
        if used[start]:
            continue
        region, used[start] = [start], True
        for plane, row, column in region:
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                near = (plane, row + down, column + right)
                inside = 0 <= near[1] < planes.shape[1] and 0 <= near[2] < planes.shape[2]
                if inside and planes[near] >= threshold and not used[near]:
                    used[near] = True
                    region.append(near)
        places = tuple(np.array(region).T)
        n, total = len(region) / independent, planes[places].sum() / independent
        tests = planes[0].size / independent * 0.316915 * 4.062570**n / n
        found[places] = np.log(tests) + np.log(max(1 - chi2.cdf(total, n), np.finfo(float).eps))
    found[~used] = found.max()
    return found.min(0)


@pytest.mark.parametrize("threshold", [0.5, 1.0, 3.0])
def test_regions_are_those_that_grow_from_pixel_to_pixel(threshold: float) -> None:
    planes = np.random.RandomState(0).standard_normal((3, 24, 30)) ** 2
    planes[:, 5:9, 6:12] += 4
    found = region_log_nfa(planes, threshold, 9.0)
    np.testing.assert_allclose(found, grown(planes, threshold, 9.0), rtol=1e-9)


def test_chance_is_believed_about_once_an_image() -> None:
    """In pure noise, every pixel independent, the mean number of regions with NFA < 1 is at most 1."""
    noise = np.random.RandomState(1)
    images = [region_log_nfa(noise.standard_normal((1, 64, 64)) ** 2, 2.0, 1.0) for _ in range(40)]
    regions = [len(np.unique(one[one < 0])) for one in images]
    assert 0.1 < np.mean(regions) <= 1


def test_a_planted_square_stands_out() -> None:
    plane = np.random.RandomState(1).standard_normal((1, 64, 64)) ** 2
    plane[0, 20:30, 20:30] += 8
    found = region_log_nfa(plane, 2.0, 9.0)
    assert found[25, 25] == found.min() < -15
    assert (found[50:] > 0).all()


def test_nothing_above_the_threshold_is_no_region() -> None:
    assert (region_log_nfa(np.zeros((2, 5, 5)), 0.5, 4.0) == 0).all()


def test_larger_sums_are_rarer_down_to_what_is_known() -> None:
    values = log_nfa(np.array([10.0, 20, 40, 400, 4000]), np.full(5, 10), 100, 1.0)
    assert (np.diff(values[:4]) < 0).all()
    assert values[4] == values[3]

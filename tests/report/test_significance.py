"""The tests behind rankings, comparisons and claims: by hand, against SciPy, against every sign pattern."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from ad_bench.report.significance import (
    DECIMALS,
    bootstrap_p,
    chi_squared_tail,
    delong,
    friedman,
    groups,
    holm,
    ranks,
    signed_rank,
    smallest_p,
)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_ranks_by_hand() -> None:
    assert ranks([0.9, 0.7, 0.9, 0.95, 0.1]).tolist() == [2.5, 4, 2.5, 1, 5]
    assert ranks([0.5, 0.5, 0.5]).tolist() == [2, 2, 2]


def test_a_last_digit_is_a_tie() -> None:
    assert ranks([0.1 + 0.2, 0.3]).tolist() == [1.5, 1.5]
    assert signed_rank([0.1 + 0.2 - 0.3]).zeros == 1


@pytest.mark.parametrize("digits", [1, 8], ids=["ties", "no-ties"])
def test_friedman_as_scipy(digits: int, random: np.random.Generator) -> None:
    for blocks, methods in ((5, 3), (12, 5), (30, 10)):
        table = np.round(random.normal(size=(blocks, methods)) + np.linspace(0, 1, methods), digits)
        chi, p = friedman(table)
        expected = stats.friedmanchisquare(*table.T)
        assert chi == pytest.approx(expected.statistic)
        assert p == pytest.approx(expected.pvalue)


def test_friedman_of_equal_methods_finds_nothing() -> None:
    assert friedman(np.full((4, 3), 0.9)) == (0.0, 1.0)
    with pytest.raises(ValueError, match="at least 3 methods, got 2"):
        friedman([[1, 2], [2, 1]])


def test_chi_squared_as_scipy() -> None:
    for freedom in range(1, 12):
        for value in (0.0, 0.3, 4.0, 25.0):
            assert chi_squared_tail(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), rel=1e-9)


@pytest.mark.parametrize("n", [1, 5, 6, 15, 50])
def test_signed_rank_without_ties_as_scipy(n: int, random: np.random.Generator) -> None:
    for shift in (0.0, 0.5, -1.0):
        differences = random.normal(shift, 1, n)
        found = signed_rank(differences)
        expected = stats.wilcoxon(differences, zero_method="wilcox", method="exact")
        assert (found.n, found.exact) == (n, True)
        assert found.p == pytest.approx(expected.pvalue)


def test_signed_rank_beyond_the_exact_as_scipy(random: np.random.Generator) -> None:
    differences = np.concatenate([np.round(random.normal(0.2, 1, 70), 1), [0, 0]])
    found = signed_rank(differences)
    expected = stats.wilcoxon(differences, zero_method="wilcox", method="approx", correction=False)
    assert found.zeros >= 2
    assert not found.exact
    assert found.p == pytest.approx(expected.pvalue)


def test_signed_rank_with_ties_counts_every_sign_pattern(random: np.random.Generator) -> None:
    for _ in range(20):
        sizes = random.integers(1, 4, 8) / 4
        differences = sizes * random.choice([-1, 1], 8)
        placed = stats.rankdata(sizes)
        own = abs(placed[differences > 0].sum() - placed.sum() / 2)
        patterns = [
            abs(sum(rank for rank, sign in zip(placed, signs, strict=True) if sign) - placed.sum() / 2)
            for signs in product((0, 1), repeat=8)
        ]
        expected = np.mean([far >= own - 1e-9 for far in patterns])
        assert signed_rank(differences).p == pytest.approx(expected)


def test_signed_rank_knows_its_direction() -> None:
    assert [signed_rank(d).sign for d in ([1, 2, -0.5], [-1, -2, 0.5], [1, -1], [0, 0])] == [1, -1, 0, 0]
    assert signed_rank([0, 0]).p == 1


def test_six_differences_are_the_fewest_that_can_be_significant() -> None:
    for n in range(1, 8):
        assert signed_rank(np.arange(1, n + 1)).p == pytest.approx(smallest_p(n))
    assert smallest_p(5) > 0.05 > smallest_p(6) == 0.03125


def test_holm_by_hand() -> None:
    # sorted: .01 x 4, .02 x 3, .03 x 2 = .06 (as large as the one before), .04 x 1 is raised to .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_groups_by_hand() -> None:
    assert groups(3, set()) == [(0, 1, 2)]
    assert groups(3, {(0, 1), (0, 2), (1, 2)}) == []
    # 0 and 3 differ, 0 and 2 differ: two groups overlap, none is inside another
    assert groups(4, {(0, 3), (0, 2)}) == [(0, 1), (1, 2, 3)]
    # a method between two others need not belong to their group
    assert groups(3, {(0, 1), (1, 2)}) == [(0, 2)]


def test_groups_are_whole_and_largest(random: np.random.Generator) -> None:
    for _ in range(10):
        different = {pair for pair in combinations(range(7), 2) if random.random() < 0.4}
        found = groups(7, different)
        for group in found:
            assert different.isdisjoint(combinations(group, 2))
            for other in set(range(7)) - set(group):
                assert not different.isdisjoint(combinations(sorted([*group, other]), 2))
        same = set(combinations(range(7), 2)) - different
        assert same == {pair for group in found for pair in combinations(group, 2)}


def test_delong_by_hand() -> None:
    # First: anomalous 3, 2, normal 1, 2: placements (1, .75) of the anomalous, (1, .75) of the normal: AUROC
    # .875. Second: 3, 1 and 2, 0 -> (1, .5) and (.5, 1): .75. Differences (0, .25) and (.5, -.25): variances
    # .03125 and .28125, each over two images: .015625 + .140625 = .15625.
    found = delong([3, 2, 1, 2], [3, 1, 2, 0], [1, 1, 0, 0])
    assert (found.first, found.second) == (0.875, 0.75)
    assert found.error == pytest.approx(0.15625**0.5)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.125 / 0.15625**0.5))


def test_delong_as_the_slow_definition(random: np.random.Generator) -> None:
    labels = np.array([1] * 15 + [0] * 25)
    pair = [np.round(random.normal(labels * size, 1), 1) for size in (1.0, 1.5)]
    found = delong(*pair, labels)
    kernel = [
        (s[labels == 1][:, None] > s[labels == 0]) + 0.5 * (s[labels == 1][:, None] == s[labels == 0])
        for s in pair
    ]
    assert [found.first, found.second] == pytest.approx([k.mean() for k in kernel])
    by_found, by_passed = np.cov([k.mean(1) for k in kernel]), np.cov([k.mean(0) for k in kernel])
    whole = by_found / 15 + by_passed / 25
    assert found.error == pytest.approx((whole[0, 0] + whole[1, 1] - 2 * whole[0, 1]) ** 0.5)


def test_delong_agrees_with_a_bootstrap(random: np.random.Generator) -> None:
    labels = np.array([1] * 80 + [0] * 60)
    shared = random.normal(size=140)
    pair = [labels * size + shared + random.normal(0, 0.7, 140) for size in (1.2, 0.9)]

    def area(scores: np.ndarray, drawn: np.ndarray) -> float:
        placed = stats.rankdata(scores[drawn])[:80].sum()
        return (placed - 80 * 81 / 2) / (80 * 60)

    scatter = []
    for _ in range(2000):
        drawn = np.concatenate([random.integers(0, 80, 80), random.integers(80, 140, 60)])
        scatter.append(area(pair[0], drawn) - area(pair[1], drawn))
    assert delong(*pair, labels).error == pytest.approx(np.std(scatter), rel=0.1)


def test_delong_of_seeds_is_of_their_mean(random: np.random.Generator) -> None:
    labels = [1, 1, 1, 0, 0, 0]
    first, second, other = random.normal(size=(3, 6))
    once, twice = delong(first, other, labels), delong([first, first], [other, other], labels)
    assert (twice.p, twice.error) == pytest.approx((once.p, once.error))
    both = delong([first, second], [other, other], labels)
    assert both.first == pytest.approx(
        (delong(first, other, labels).first + delong(second, other, labels).first) / 2
    )


def test_delong_without_room_for_chance() -> None:
    labels = [1, 1, 0, 0]
    assert delong([2, 2, 1, 1], [4, 3, 2, 1], labels).p == 1  # both perfect
    assert delong([2, 2, 1, 1], [1, 1, 1, 1], labels).p is None  # 1 and 0.5, without any scatter
    assert delong([2, 2, 1, 1], [1, 1, 1, 1], labels).interval() is None
    with pytest.raises(ValueError, match="2 images of each class"):
        delong([1, 2, 3], [1, 2, 3], [1, 0, 0])


def test_bootstrap_p() -> None:
    assert bootstrap_p([0.1] * 999) == pytest.approx(2 / 1000)
    assert bootstrap_p([0.0] * 10) == 1
    assert bootstrap_p([-0.1] * 4 + [0.1] * 95) == pytest.approx(10 / 100)
    assert bootstrap_p([10**-DECIMALS / 4] * 9) == 1

"""Is a difference more than chance? Tests for figures that come in pairs.

NumPy alone: SciPy's statistics take half a second to import, for every report. The tests hold each function
against SciPy's, against every sign pattern, or against a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
EXACT = 50  # differences up to which every sign pattern is counted
DECIMALS = 10  # figures that agree this far are tied: means over seeds differ in their last digits

Array = NDArray[np.float64]


def ranks(values: ArrayLike) -> Array:
    """(N,) 1 for the highest; ties share their average rank."""
    _, place, counts = np.unique(-np.round(_row(values), DECIMALS), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def _row(values: ArrayLike) -> Array:
    return np.asarray(values, np.float64)


def friedman(table: ArrayLike) -> tuple[float, float]:
    """(chi squared, p) that the columns of (blocks, methods) differ in rank; corrected for ties.

    Friedman, "The use of ranks to avoid the assumption of normality", 1937; p by chi squared with methods - 1
    degrees of freedom. Takes at least three methods.
    """
    placed = np.array([ranks(row) for row in np.asarray(table)])
    blocks, methods = placed.shape
    if methods < 3:
        raise ValueError(
            f"Friedman's test compares at least 3 methods, got {methods}; two are a signed-rank test"
        )
    tied = sum(count**3 - count for row in placed for count in np.unique(row, return_counts=True)[1])
    correction = 1 - float(tied) / (blocks * methods * (methods**2 - 1))
    if correction == 0:  # every block tied throughout
        return 0.0, 1.0
    squares = float(np.sum(placed.sum(axis=0) ** 2))
    chi = (12 * squares / (blocks * methods * (methods + 1)) - 3 * blocks * (methods + 1)) / correction
    return chi, chi_squared_tail(chi, methods - 1)


def chi_squared_tail(value: float, freedom: int) -> float:
    """The chance of more than `value` by chi squared with a whole number of degrees of freedom."""
    half = max(0.0, value) / 2
    tail = math.exp(-half) if freedom % 2 == 0 else math.erfc(math.sqrt(half))
    for k in range(2 - freedom % 2, freedom, 2):
        tail += half ** (k / 2) * math.exp(-half) / math.gamma(k / 2 + 1)
    return min(1.0, tail)


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test of n differences without the `zeros`; two-sided."""

    n: int
    zeros: int
    p: float
    exact: bool
    sign: int  # 1 where the positive ranks outweigh the negative ones, -1 the other way round


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Are the differences spread about zero? Wilcoxon, "Individual comparisons by ranking methods", 1945.

    Zero differences are dropped (SciPy's zero_method="wilcox"). Up to EXACT differences p counts every sign
    pattern of the ranks at hand, which is exact with ties too; beyond, the normal approximation with its
    correction for ties. Without any difference p is 1.
    """
    rounded = np.round(_row(differences), DECIMALS)
    left = rounded[rounded != 0]
    n, zeros = len(left), len(rounded) - len(left)
    if not n:
        return SignedRank(0, zeros, 1.0, True, 0)
    placed = ranks(-np.abs(left))
    total = n * (n + 1) / 2
    rise = float(placed[left > 0].sum())
    low, sign = min(rise, total - rise), int(np.sign(2 * rise - total))
    if n <= EXACT:
        ways = np.zeros(int(2 * total) + 1)  # sign patterns by twice the sum of their ranks: ties have halves
        ways[0] = 1
        for rank in np.rint(2 * placed).astype(int):
            ways[rank:] += ways[:-rank].copy()
        return SignedRank(n, zeros, min(1.0, 2 * float(ways[: round(2 * low) + 1].sum()) / 2**n), True, sign)
    counts = np.unique(placed, return_counts=True)[1]
    variance = n * (n + 1) * (2 * n + 1) / 24 - float(np.sum(counts**3 - counts)) / 48
    return SignedRank(n, zeros, two_sided((low - total / 2) / math.sqrt(variance)), False, sign)


def two_sided(z: float) -> float:
    """The chance of a standard normal at least this far from 0 on either side."""
    return math.erfc(abs(z) / math.sqrt(2))


def smallest_p(n: int) -> float:
    """The lowest p that `signed_rank` can give for n differences that are not zero: all of one sign."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p corrected for having tested all of them: Holm, "A simple sequentially rejective ...", 1979."""
    adjusted, worst = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for step, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - step) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def groups(count: int, different: set[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The largest groups of at least two of `count` things of which no pair (i < j) is `different`.

    For at most a dozen things: tries every subset.
    """
    found: list[tuple[int, ...]] = []
    for size in range(count, 1, -1):
        for group in combinations(range(count), size):
            held = any(set(group) <= set(larger) for larger in found)
            if not held and different.isdisjoint(combinations(group, 2)):
                found.append(group)
    return sorted(found)


@dataclass(frozen=True)
class Areas:
    """Two AUROCs over the same images; p and error are None where the images leave no room for chance."""

    first: float
    second: float
    error: float | None  # standard error of first - second
    p: float | None

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float] | None:
        """Where first - second lies with probability `level`."""
        if self.error is None:
            return None
        reach = NormalDist().inv_cdf((1 + level) / 2) * self.error
        return self.first - self.second - reach, self.first - self.second + reach


def delong(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> Areas:
    """Are two correlated AUROCs different? first, second: (N,) or (seeds, N) scores; labels: (N,) of 0 and 1.

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves", 1988, by
    the midranks of Sun and Xu, 2014. The AUROC of several seeds is their mean, and so is what each image adds
    to it: more seeds do not make more test images. Raises ValueError for fewer than two images of a class.
    """
    classes = np.asarray(labels)
    anomalous = classes == 1
    if min(np.count_nonzero(anomalous), np.count_nonzero(~anomalous)) < 2:
        raise ValueError(
            f"DeLong's test takes 2 images of each class, got labels {np.bincount(classes, minlength=2)}"
        )
    parts = [_placements(scores, anomalous) for scores in (first, second)]
    (a, a_found, a_passed), (b, b_found, b_passed) = parts
    found, passed = a_found - b_found, a_passed - b_passed
    variance = float(np.var(found, ddof=1) / len(found) + np.var(passed, ddof=1) / len(passed))
    if round(variance, 2 * DECIMALS) == 0:
        return Areas(a, b, None, 1.0 if round(a - b, DECIMALS) == 0 else None)
    error = math.sqrt(variance)
    return Areas(a, b, error, two_sided((a - b) / error))


def _placements(scores: ArrayLike, anomalous: NDArray[Any]) -> tuple[float, Array, Array]:
    """AUROC; of each anomalous image the share of normals below, of each normal one of anomalous above."""
    found, passed = [], []
    for row in np.atleast_2d(_row(scores)):
        high, low = row[anomalous], row[~anomalous]
        found.append((_midranks(row)[anomalous] - _midranks(high)) / len(low))
        passed.append(1 - (_midranks(row)[~anomalous] - _midranks(low)) / len(high))
    by_found, by_passed = np.mean(found, axis=0), np.mean(passed, axis=0)
    return float(by_found.mean()), by_found, by_passed


def _midranks(values: Array) -> Array:
    """(N,) 1 for the lowest; scores are taken as they are, however close."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def bootstrap_p(differences: ArrayLike) -> float:
    """Two-sided p that paired replicates of a difference scatter about zero; at least 2 / (replicates + 1).

    Twice the smaller tail beyond zero, a replicate of exactly zero counting in both.
    """
    found = np.round(_row(differences), DECIMALS)
    tail = min(np.count_nonzero(found <= 0), np.count_nonzero(found >= 0))
    return min(1.0, 2 * (int(tail) + 1) / (len(found) + 1))

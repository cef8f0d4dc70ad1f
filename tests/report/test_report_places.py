"""Best and second of a column, against the definition written out: every row against every other."""

from __future__ import annotations

import random
from itertools import product

from ad_bench.report.tables import BEST, SECOND, _places

Ends = tuple[float, float]


def by_definition(ends: list[Ends]) -> list[int | None]:
    """Best: none may be above. Second: all that may be above surely are, and they are one or all alike."""
    places: list[int | None] = []
    for i, (low, high) in enumerate(ends):
        above = [other for j, other in enumerate(ends) if j != i and other[1] > low]
        always = all(other[0] > high for other in above)
        alike = len(above) == 1 or len({end for other in above for end in other}) == 1
        places.append(BEST if not above else SECOND if always and alike else None)
    return places


def test_marks_follow_the_definition() -> None:
    some = [(a / 4, b / 4) for a in range(4) for b in range(a, 4)]
    cases = [list(ends) for count in (2, 3) for ends in product(some, repeat=count)]
    draws = random.Random(0)
    cases += [[draws.choice(some) for _ in range(draws.randrange(2, 9))] for _ in range(3000)]
    for ends in cases:
        assert _places(ends) == by_definition(ends), ends

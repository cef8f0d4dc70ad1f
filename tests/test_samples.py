"""What a function of samples gave is remembered for the very tuple, and no longer than for the last few."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ad_bench import samples
from ad_bench.samples import Sample, remembered


def test_a_function_is_asked_once_for_a_tuple_and_again_for_an_equal_one() -> None:
    asked = 0

    @remembered
    def names(given: Iterable[Sample]) -> list[str]:
        """Said of names."""
        nonlocal asked
        asked += 1
        return [sample.name for sample in given]

    one = tuple(Sample(Path(name), name, "c", "train", 0) for name in "ab")
    assert names(one) == names(one) == ["a", "b"]
    assert asked == 1
    assert names((*one, *one)[:2]) == ["a", "b"]
    assert asked == 2
    assert names.__doc__ == "Said of names."


def test_a_list_may_change_and_is_never_remembered() -> None:
    count = remembered(lambda given: sum(1 for _ in given))
    given = [Sample(Path("a"), "a", "c", "train", 0)]
    assert count(given) == 1
    given *= 2
    assert count(given) == 2


def test_many_tuples_neither_pile_up_nor_are_mistaken_for_another() -> None:
    """An identity is used again as soon as nobody holds the tuple."""
    label = remembered(lambda given: next(iter(given)).name)
    for number in range(20 * samples.REMEMBERED):
        name = str(number)
        assert label((Sample(Path(name), name, "c", "train", 0),)) == name
    cells = [cell.cell_contents for cell in label.__closure__ or ()]
    (known,) = (one for one in cells if isinstance(one, dict))
    assert len(known) == samples.REMEMBERED

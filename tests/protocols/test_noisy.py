"""The noisy protocol: how many anomalies train, which, and what is left to test."""

from __future__ import annotations

import pytest

from ad_bench.errors import UsageError
from ad_bench.protocols.full import full
from ad_bench.protocols.noisy import noisy
from ad_bench.samples import NORMAL, Group
from tests.protocols import made

NUT = {"nut": made.category("nut", train=40)}  # 15 anomalies


def one(seed: int = 0, samples: made.Samples = NUT, **settings: object) -> Group:
    [group] = noisy(samples, seed, **settings)  # type: ignore[arg-type]
    return group


def injected(group: Group) -> list[str]:
    return [sample.name for sample in group.train if "/test/" in sample.name]


def left(group: Group) -> set[str]:
    return {sample.name for sample in group.tests["nut"]}


def test_injected_anomalies_look_normal_and_are_not_tested() -> None:
    group = one(ratio=0.1)
    assert len(group.train) == 44
    names = injected(group)
    assert len(names) == 4
    assert group.notes == {
        "ratio": 0.1,
        "overlap": False,
        "reserve": None,
        "injected": names,
        "realised_ratio": 0.1,
        "capped": False,
    }
    for sample in group.train:
        assert (sample.split, sample.label, sample.defect, sample.mask) == ("train", NORMAL, "good", None)
    whole = {sample.name for sample in NUT["nut"] if sample.split == "test"}
    assert left(group) == whole - set(names)


def test_overlap_tests_them_too() -> None:
    apart, both = one(ratio=0.1), one(ratio=0.1, overlap=True)
    assert both.train == apart.train
    assert left(both) == left(apart) | set(injected(apart))
    assert sum(sample.label for sample in both.tests["nut"]) == 15


@pytest.mark.parametrize(("ratio", "count"), [(0, 0), (0.02, 0), (0.05, 2), (0.19, 7), (0.25, 10), (0.3, 11)])
def test_the_count_is_cut_and_capped(ratio: float, count: int) -> None:
    group = one(ratio=ratio)  # int(ratio * 40), at most int(0.75 * 15) = 11
    assert len(injected(group)) == count
    assert group.notes["realised_ratio"] == count / 40
    assert group.notes["capped"] == (ratio == 0.3)


def test_no_noise_is_full() -> None:
    [plain] = full(NUT, 0)
    assert one(ratio=0).train == plain.train
    assert one(ratio=0).tests == plain.tests


def test_a_larger_ratio_holds_the_smaller_ones_draw() -> None:
    for seed in range(10):
        small, middle, large = (set(injected(one(seed, ratio=r))) for r in (0.05, 0.1, 0.2))
        assert small < middle < large


def test_reserve_makes_test_sets_equal_across_ratios() -> None:
    groups = [one(3, ratio=ratio, reserve=0.2) for ratio in (0, 0.05, 0.1, 0.2)]
    assert len({frozenset(left(group)) for group in groups}) == 1
    assert [len(injected(group)) for group in groups] == [0, 2, 4, 8]
    assert left(groups[0]) == left(one(3, ratio=0.2))
    for group in groups:
        assert injected(group) == injected(one(3, ratio=group.notes["ratio"]))


def test_other_views_of_an_injected_object_are_not_tested() -> None:
    samples = {"nut": made.category("nut", train=40, kinds={"cut": 12}, views=3)}
    group = one(ratio=0.05, samples=samples)
    known = {sample.group for sample in group.train} - {None}
    assert len(injected(group)) == 2
    assert known
    assert not known & {sample.group for sample in group.tests["nut"]}


def test_nothing_to_inject_is_skipped() -> None:
    assert one(ratio=0.1, samples={"nut": made.category("nut", kinds={})}).skipped == (
        "'nut' has 0 anomalous test images: too few to inject any"
    )
    assert one(ratio=0, samples={"nut": made.category("nut", kinds={})}).skipped is None
    assert one(ratio=0.1, samples={"nut": made.category("nut", train=0)}).skipped == (
        "'nut' has no normal training images"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ratio": 1}, r"protocol\.ratio"),
        ({"ratio": -0.1}, r"protocol\.ratio"),
        ({"ratio": "0.1"}, r"protocol\.ratio"),
        ({"ratio": float("nan")}, r"protocol\.ratio"),
        ({"ratio": True}, r"protocol\.ratio"),
        ({"ratio": 0.1, "overlap": "no"}, r"protocol\.overlap is true or false"),
        ({"ratio": 0.1, "reserve": 2}, r"protocol\.reserve"),
        ({"ratio": 0.2, "reserve": 0.1}, "reserve the largest ratio"),
        ({"ratio": 0.1, "reserve": 0.2, "overlap": True}, "set one"),
    ],
)
def test_wrong_settings(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        one(**settings)

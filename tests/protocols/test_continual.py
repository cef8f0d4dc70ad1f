"""The continual protocol: one task a category, in order."""

from __future__ import annotations

import pytest

from ad_bench.errors import UsageError
from ad_bench.protocols.continual import continual
from ad_bench.protocols.full import full
from tests.protocols import made

SAMPLES = {name: made.category(name, train=count) for name, count in (("nut", 3), ("cap", 5), ("tile", 4))}


def test_one_stage_a_category_in_alphabetical_order() -> None:
    [group] = continual(SAMPLES, 0)
    assert [stage[0].category for stage in group.stages] == ["cap", "nut", "tile"]
    assert group.train == ()
    assert group.notes == {"order": ["cap", "nut", "tile"]}
    by_category = {alone.name: alone for alone in full(SAMPLES, 0)}
    for stage in group.stages:
        assert stage == by_category[stage[0].category].train
    assert group.tests == {name: alone.tests[name] for name, alone in by_category.items()}


def test_another_order() -> None:
    [group] = continual(SAMPLES, 0, order=["tile", "cap", "nut"])
    assert [len(stage) for stage in group.stages] == [4, 5, 3]
    assert group.notes["order"] == ["tile", "cap", "nut"]


@pytest.mark.parametrize(
    "order", [["tile"], ["tile", "cap", "nut", "nit"], ["tile", "cap", "cap"], "tile", 3]
)
def test_a_wrong_order_is_refused(order: object) -> None:
    with pytest.raises(UsageError, match=r"protocol\.order"):
        list(continual(SAMPLES, 0, order))  # type: ignore[arg-type]


def test_what_makes_no_tasks_is_skipped() -> None:
    [alone] = continual({"nut": SAMPLES["nut"]}, 0)
    assert alone.skipped == "protocol=continual needs two categories and more, there is nut: use full"
    [bare] = continual({**SAMPLES, "gap": made.category("gap", train=0)}, 0)
    assert bare.skipped == (
        "'gap' has no normal training images, and every task of protocol=continual needs some"
    )

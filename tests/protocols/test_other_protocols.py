"""leave_one_out, zero_shot, logical, cross, and the support's changed copies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ad_bench.errors import UsageError
from ad_bench.protocols.cross import cross
from ad_bench.protocols.few_shot import few_shot
from ad_bench.protocols.full import full
from ad_bench.protocols.leave_one_out import leave_one_out
from ad_bench.protocols.logical import logical
from ad_bench.protocols.zero_shot import zero_shot
from ad_bench.samples import Group
from tests.protocols import made

SAMPLES = {name: made.category(name, train=count) for name, count in (("nut", 9), ("cap", 5), ("tile", 4))}
KINDS = ["structural_anomalies", "logical_anomalies"]


def test_leave_one_out_trains_on_the_others_and_knows_a_few_of_its_own() -> None:
    groups = {group.name: group for group in leave_one_out(SAMPLES, 0, shots=2)}
    nut = groups["nut"]
    assert [sample.category for sample in nut.train] == ["cap"] * 5 + ["tile"] * 4
    assert {sample.category for sample in nut.support} == {"nut"}
    assert list(nut.tests) == ["nut"]
    assert nut.notes["trained_on"] == ["cap", "tile"]
    assert nut.notes["support"] == [sample.name for sample in nut.support]
    supports = {group.name: group.support for group in few_shot(SAMPLES, 0, shots=2)}
    assert {name: group.support for name, group in groups.items()} == supports


def test_leave_one_out_needs_others() -> None:
    [alone] = leave_one_out({"nut": SAMPLES["nut"]}, 0, shots=2)
    assert alone.skipped == (
        "leave_one_out trains on the other categories, and beside 'nut' there is none: use few_shot"
    )
    bare = {"nut": SAMPLES["nut"], "cap": made.category("cap", train=0)}
    nut, cap = leave_one_out(bare, 0, shots=2)
    assert nut.skipped == (
        "leave_one_out trains on the other categories, and beside 'nut' there is none with normal training "
        "images: use few_shot"
    )
    assert cap.skipped == "'cap' has no normal training images"


@pytest.mark.parametrize("protocol", [few_shot, leave_one_out])
def test_augmentations_are_noted_only_where_there_are_any(protocol) -> None:
    plain, more = (next(iter(protocol(SAMPLES, 0, 2, names))) for names in ([], ["flips", "grey"]))
    assert more.notes == {**plain.notes, "augment": ["flips", "grey"]}
    assert "augment" not in plain.notes
    assert more.train == plain.train  # the runner makes the copies
    for wrong in (["flips", "flips"], [3]):
        with pytest.raises(UsageError, match=r"protocol\.augment"):
            list(protocol(SAMPLES, 0, 2, wrong))


def test_zero_shot_trains_on_nothing_and_tests_all() -> None:
    [group] = zero_shot(SAMPLES, 0)
    assert (group.train, group.support, group.stages) == ((), (), ())
    assert group.tests == {alone.name: alone.tests[alone.name] for alone in full(SAMPLES, 0)}


def test_logical_averages_its_kinds_and_trains_as_full() -> None:
    samples = {"box": made.category("box", kinds=dict.fromkeys(KINDS, 4))}
    [group], [plain] = logical(samples, 0, average=KINDS), full(samples, 0)
    assert (group.train, group.tests) == (plain.train, plain.tests)
    assert group.average == tuple(KINDS)
    assert group.notes == {"averaged": KINDS}


def test_logical_skips_what_lacks_a_kind() -> None:
    [group] = logical({"nut": made.category("nut", kinds={"cut": 2, KINDS[0]: 2})}, 0, average=KINDS)
    assert group.skipped == (
        "'nut' has no logical_anomalies to average over; it has: cut, structural_anomalies. "
        "protocol=logical is for MVTec LOCO AD: use full"
    )


def over(source: made.Samples | None = None, **settings: object) -> Group:
    [group] = cross(SAMPLES, 0, source, "money", **settings)  # type: ignore[arg-type]
    return group


def test_cross_trains_on_one_and_tests_on_the_other() -> None:
    source = {"ring": made.category("ring", train=2), "coin": made.category("coin", train=3)}
    group = over(source)
    assert [sample.category for sample in group.train] == ["coin"] * 3 + ["ring"] * 2
    assert list(group.tests) == list(SAMPLES)
    assert group.notes == {"source": "money", "trained_on": ["coin", "ring"], "labelled": False}
    labelled = over(source, labelled=True)
    assert len(labelled.train) == 5 + 2 * 21  # 6 normal and 15 anomalous test images each, no validation
    assert sum(sample.label for sample in labelled.train) == 30
    assert {sample.split for sample in labelled.train} == {"train"}


def test_cross_never_trains_on_what_it_tests() -> None:
    source = {"nut": SAMPLES["nut"]}
    assert over(source).train == next(full(source, 0)).train
    with pytest.raises(UsageError, match="21 images of money would train and be tested"):
        over(source, labelled=True)
    renamed = {"nut": tuple(replace(sample, name=f"x{sample.name}") for sample in SAMPLES["nut"])}
    with pytest.raises(UsageError, match="would train and be tested"):  # told by their files, not by names
        over(renamed, labelled=True)


def test_cross_without_a_source_is_skipped() -> None:
    assert over().skipped == "money has no normal training images"
    with pytest.raises(UsageError, match=r"protocol\.labelled is true or false"):
        over(labelled="yes")

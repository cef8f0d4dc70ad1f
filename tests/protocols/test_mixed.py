"""The mixed protocol: labels for all, masks for some."""

from __future__ import annotations

import pytest

from ad_bench.errors import UsageError
from ad_bench.protocols.mixed import mixed
from ad_bench.samples import Group
from tests.protocols import made

STEEL = {"steel": made.category("steel", train=12, train_kinds={"hole": 6, "line": 4})}


def one(masks: int | str, seed: int = 0, samples: made.Samples = STEEL) -> Group:
    [group] = mixed(samples, seed, masks)
    return group


def outlined(group: Group) -> set[str]:
    return {sample.name for sample in group.train if sample.mask is not None}


@pytest.mark.parametrize(("masks", "count"), [(0, 0), (3, 3), (10, 10), (99, 10), ("all", 10)])
def test_all_are_labelled_and_some_outlined(masks: int | str, count: int) -> None:
    group = one(masks)
    assert len(group.train) == 22
    assert sum(sample.label for sample in group.train) == 10
    assert len(outlined(group)) == count
    assert group.notes == {"masks": masks, "anomalous": 10, "masks_kept": sorted(outlined(group))}
    assert {sample.split for sample in group.tests["steel"]} == {"test"}
    assert all(sample.mask for sample in group.tests["steel"] if sample.label)


def test_fewer_masks_are_part_of_more_and_depend_on_the_seed() -> None:
    assert outlined(one(2)) < outlined(one(5))
    assert len({frozenset(outlined(one(2, seed))) for seed in range(8)}) > 1


def test_a_positive_without_a_mask_is_never_drawn() -> None:
    bare = made.sample("steel", "train", "rust", 0, outlined=False)
    group = one(10, samples={"steel": (*STEEL["steel"], bare)})
    assert len(outlined(group)) == 10
    assert group.notes["anomalous"] == 11


def test_data_sets_without_labelled_training_images_are_skipped() -> None:
    assert one("all", samples={"steel": made.category("steel")}).skipped == (
        "'steel' has no anomalous training images: protocol=supervised takes some of the test's"
    )


def test_wrong_number() -> None:
    for masks in (-1, "some", True):
        with pytest.raises(UsageError, match=r"protocol\.masks is a number of images"):
            one(masks)

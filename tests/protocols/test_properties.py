"""What every protocol keeps, whatever data set it meets."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ad_bench.protocols.continual import continual
from ad_bench.protocols.cross import cross
from ad_bench.protocols.few_shot import few_shot
from ad_bench.protocols.full import full
from ad_bench.protocols.leave_one_out import leave_one_out
from ad_bench.protocols.logical import logical
from ad_bench.protocols.mixed import mixed
from ad_bench.protocols.noisy import noisy
from ad_bench.protocols.supervised import supervised
from ad_bench.protocols.unified import unified
from ad_bench.protocols.zero_shot import zero_shot
from ad_bench.samples import ANOMALOUS, NORMAL, Group, Sample
from tests.protocols import made

SOURCE = {"coin": made.category("coin", train=4), "ring": made.category("ring", train=3)}
KINDS = ["structural_anomalies", "logical_anomalies"]
Make = Callable[[made.Samples, int], list[Group]]


def of(protocol: Callable, **settings: object) -> Make:
    return lambda samples, seed: list(protocol(samples, seed, **settings))


PROTOCOLS: dict[str, Make] = {
    "full": of(full),
    "few_shot": of(few_shot, shots=3),
    "leave_one_out": of(leave_one_out, shots=3),
    "zero_shot": of(zero_shot),
    "noisy": of(noisy, ratio=0.2),
    "noisy, overlap": of(noisy, ratio=0.2, overlap=True),
    "noisy, reserve": of(noisy, ratio=0.1, reserve=0.3),
    "unified": of(unified),
    "general": of(supervised, anomalies=3, draw="general"),
    "hard": of(supervised, anomalies=3, draw="hard", known="cut"),
    "devnet": of(supervised, anomalies=3, draw="devnet"),
    "spread": of(supervised, anomalies=5, draw="spread"),
    "mixed": of(mixed, masks=2),
    "continual": of(continual),
    "logical": of(logical, average=KINDS),
    "cross": of(cross, source=SOURCE, source_id="money"),
    "cross, labelled": of(cross, source=SOURCE, source_id="money", labelled=True),
}
LABELLED = {"general", "hard", "devnet", "spread", "mixed", "cross, labelled"}
every_protocol = pytest.mark.parametrize("name", PROTOCOLS)


def trained(group: Group) -> list[Sample]:
    return [*group.train, *group.support, *(sample for stage in group.stages for sample in stage)]


@every_protocol
@given(samples=made.data_sets(), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_what_every_group_keeps(name: str, samples: made.Samples, seed: int) -> None:
    groups = PROTOCOLS[name](samples, seed)
    tested = [category for group in groups for category in group.tests]
    assert sorted(tested) == sorted(samples)  # each category once
    for group in groups:
        images = [sample.image for sample in group.train]
        assert len(set(images)) == len(images)
        assert all(sample.split == "train" for sample in trained(group))
        assert name in LABELLED or all(sample.label == NORMAL for sample in trained(group))
        assert not group.skipped or group.skipped.strip()
        for category, test in group.tests.items():
            whole = [sample for sample in samples[category] if sample.split == "test"]
            assert set(test) <= set(whole)
            assert list(test) == sorted(test, key=lambda sample: sample.name)
            normal = [sample for sample in test if sample.label == NORMAL]
            assert len(normal) == sum(sample.label == NORMAL for sample in whole)
            if name != "noisy, overlap":
                assert not {sample.image for sample in trained(group)} & {sample.image for sample in test}
                seen = {sample.group for sample in trained(group)} - {None}
                assert not seen & {sample.group for sample in test}  # no other view of a known object
        if not group.skipped:
            assert group.train or group.stages or name == "zero_shot"
            anomalies = [s for test in group.tests.values() for s in test if s.label == ANOMALOUS]
            assert anomalies or name not in {"general", "hard", "devnet", "spread"}


@every_protocol
@given(samples=made.data_sets(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_groups_depend_on_the_seed_and_not_on_the_order(
    name: str, samples: made.Samples, seed: int, order: random.Random
) -> None:
    groups = PROTOCOLS[name](samples, seed)
    mixed_up = {}
    for category, listed in samples.items():
        mixed_up[category] = tuple(order.sample(listed, len(listed)))
    assert PROTOCOLS[name](mixed_up, seed) == groups
    names = order.sample(list(mixed_up), len(mixed_up))
    again = PROTOCOLS[name]({category: mixed_up[category] for category in names}, seed)
    by_name = {group.name: group for group in again}
    for group in groups:
        other = by_name[group.name]
        assert set(other.train) == set(group.train)
        assert (other.tests, other.stages, other.support) == (group.tests, group.stages, group.support)
        if name != "unified":  # trains in the order of the data set, which the plan keeps
            assert other == group


@every_protocol
def test_what_is_drawn_changes_with_the_seed_alone(name: str) -> None:
    samples = {
        "nut": made.category("nut", 40, kinds={"cut": 9, **dict.fromkeys(KINDS, 9)}, train_kinds={"cut": 9}),
        "cap": made.category("cap", 40, kinds={"cut": 9, **dict.fromkeys(KINDS, 9)}, train_kinds={"cut": 9}),
    }
    first = PROTOCOLS[name](samples, 0)
    assert all(group.skipped is None for group in first)
    assert PROTOCOLS[name](samples, 0) == first
    drawless = {"full", "zero_shot", "unified", "continual", "logical", "cross", "cross, labelled"}
    assert (PROTOCOLS[name](samples, 1) == first) == (name in drawless)

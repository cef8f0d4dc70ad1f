"""The few-shot protocol: a draw that means the same for ever."""

from collections import Counter
from pathlib import Path

import pytest

from ad_bench.draws import shuffled
from ad_bench.errors import UsageError
from ad_bench.protocols.few_shot import few_shot
from ad_bench.samples import Sample


def nuts(count: int = 20) -> dict[str, tuple[Sample, ...]]:
    train = [Sample(Path(f"{i:02}.png"), f"nut/train/{i:02}.png", "nut", "train", 0) for i in range(count)]
    defects = [Sample(Path(f"d{i}"), f"nut/train/d{i}", "nut", "train", 1, "cut") for i in range(5)]
    tests = [Sample(Path(f"t{i}"), f"nut/test/{i}", "nut", "test", i % 2) for i in range(6)]
    return {"nut": (*train, *defects, *tests)}


def drawn(seed: int, shots: int, count: int = 20) -> list[str]:
    [group] = few_shot(nuts(count), seed, shots)
    return [sample.image.stem for sample in group.train]


def test_draw():
    [group] = few_shot(nuts(), seed=0, shots=4)
    assert len(group.train) == len({s.name for s in group.train}) == 4
    assert group.support == group.train
    assert all(s.split == "train" and s.label == 0 for s in group.train)
    assert [s.name for s in group.train] == sorted(s.name for s in group.train)
    assert len(group.tests["nut"]) == 6
    assert group.notes == {"shots": 4, "shots_drawn": 4, "support": [s.name for s in group.train]}


def test_draw_is_pinned():
    # Written down once: records of other years and machines must mean the same images.
    assert drawn(0, 4) == ["03", "06", "10", "17"]
    assert drawn(1, 4) == ["01", "02", "08", "18"]


def test_draw_does_not_depend_on_the_order_of_the_list():
    listed = nuts()["nut"]
    [there], [back] = few_shot({"nut": listed}, 3, 4), few_shot({"nut": listed[::-1]}, 3, 4)
    assert there.train == back.train


def test_draws_are_nested_and_even():
    for seed in range(20):
        assert set(drawn(seed, 2)) < set(drawn(seed, 4)) < set(drawn(seed, 8))
    counts = Counter(name for seed in range(1000) for name in drawn(seed, 4))
    assert len(counts) == 20
    assert max(abs(count - 200) for count in counts.values()) < 65  # five standard deviations of a fair draw


def test_categories_draw_on_their_own():
    samples = nuts()
    samples["cap"] = tuple(Sample(s.image, s.name, "cap", s.split, s.label) for s in samples["nut"])
    first, second = few_shot(samples, 0, 4)
    assert [s.image for s in first.train] != [s.image for s in second.train]


def test_small_category_gives_all_and_says_so():
    [group] = few_shot(nuts(3), seed=0, shots=16)
    assert len(group.train) == 3
    assert (group.notes["shots"], group.notes["shots_drawn"]) == (16, 3)
    assert group.skipped is None


def test_nothing_to_draw_is_skipped():
    [group] = few_shot(nuts(0), seed=0, shots=4)
    assert group.skipped == "'nut' has no normal training images"


@pytest.mark.parametrize("shots", [0, -1, 2.5, True, "4"])
def test_wrong_shots(shots):
    with pytest.raises(UsageError, match=r"protocol\.shots is a number of images"):
        list(few_shot(nuts(), 0, shots))


def test_order_of_the_others_stays_when_a_name_is_added():
    names = [f"{i}.png" for i in range(30)]
    more = shuffled([*names, "new.png"], 0, "test")
    assert [name for name in more if name != "new.png"] == shuffled(names, 0, "test")
    assert shuffled(names, 0, "test") != shuffled(names, 0, "other")

"""The full protocol."""

from pathlib import Path

from ad_bench.protocols.full import full
from ad_bench.samples import Sample


def sample(category: str, split: str, index: int, label: int = 0) -> Sample:
    name = f"{category}/{split}/{label}/{index}.png"
    return Sample(Path(name), name, category, split, label, "cut" if label else "good")


def test_one_group_a_category():
    samples = {
        category: tuple(sample(category, split, i, label) for split, label in SPLITS for i in range(3))
        for category in ("nut", "cap")
    }
    groups = list(full(samples, seed=0))
    assert [group.name for group in groups] == ["nut", "cap"]
    for group in groups:
        assert [s.name for s in group.train] == [f"{group.name}/train/0/{i}.png" for i in range(3)]
        assert list(group.tests) == [group.name]
        assert {(s.split, s.label) for s in group.tests[group.name]} == {("test", 0), ("test", 1)}
        assert len(group.tests[group.name]) == 6
        assert (group.skipped, group.support) == (None, ())


SPLITS = (("train", 0), ("train", 1), ("validation", 0), ("test", 0), ("test", 1))


def test_nothing_to_train_on_is_skipped():
    [group] = full({"nut": (sample("nut", "train", 0, label=1), sample("nut", "test", 0))}, seed=0)
    assert group.train == ()
    assert group.skipped == "'nut' has no normal training images"

"""The unified protocol."""

from pathlib import Path

from ad_bench.protocols.unified import unified
from ad_bench.samples import Sample


def category(name: str, train: int, test: int) -> tuple[Sample, ...]:
    return (
        *(
            Sample(Path(f"{i}"), f"{name}/train/{i}", name, "train", int(i == 99))
            for i in (*range(train), 99)
        ),
        *(Sample(Path(f"{i}"), f"{name}/test/{i}", name, "test", i % 2) for i in range(test)),
    )


def test_one_group_for_all():
    [group] = unified({"nut": category("nut", 3, 4), "cap": category("cap", 2, 5)}, seed=0)
    assert [s.name for s in group.train] == [
        "nut/train/0",
        "nut/train/1",
        "nut/train/2",
        "cap/train/0",
        "cap/train/1",
    ]
    assert {name: len(tests) for name, tests in group.tests.items()} == {"nut": 4, "cap": 5}
    assert all(s.category == name for name, tests in group.tests.items() for s in tests)
    assert group.notes == {"trained_on": ["nut", "cap"]}
    assert group.skipped is None


def test_nothing_to_train_on_is_skipped():
    [group] = unified({"nut": category("nut", 0, 4)}, seed=0)
    assert group.skipped == "no normal training images in nut"

"""The supervised protocol: what each way to draw trains on, and what it leaves to test."""

from __future__ import annotations

from collections import Counter

import pytest

from ad_bench.errors import UsageError
from ad_bench.protocols.supervised import supervised
from ad_bench.samples import ANOMALOUS, Group, Sample
from tests.protocols import made

NUT = {"nut": made.category("nut", kinds={"cut": 6, "dent": 9, "stain": 5})}


def one(
    anomalies: int, draw: str = "general", seed: int = 0, samples: made.Samples = NUT, known=None
) -> Group:
    [group] = supervised(samples, seed, anomalies, draw, known)
    return group


def labelled(group: Group) -> list[Sample]:
    return [sample for sample in group.train if sample.label == ANOMALOUS]


def defects(samples: object) -> Counter[str]:
    return Counter(sample.defect for sample in samples if sample.label == ANOMALOUS)  # type: ignore[attr-defined]


def test_general_draws_over_all_kinds() -> None:
    group = one(10)
    assert len(labelled(group)) == 10
    assert all(sample.mask is not None and sample.split == "train" for sample in labelled(group))
    assert len(group.train) == 30
    assert sum(defects(group.tests["nut"]).values()) == 10
    assert sum(not sample.label for sample in group.tests["nut"]) == 6
    assert group.notes == {
        "draw": "general",
        "known": None,
        "anomalies": 10,
        "anomalies_drawn": [sample.name for sample in labelled(group)],
    }
    assert len({tuple(sorted(defects(labelled(one(3, seed=s))))) for s in range(20)}) > 1
    assert {s.name for s in labelled(one(1))} < {s.name for s in labelled(one(10))}


def test_hard_knows_one_kind_and_tests_the_others() -> None:
    group = one(4, "hard", known="dent")
    assert defects(labelled(group)) == {"dent": 4}
    assert defects(group.tests["nut"]) == {"cut": 6, "stain": 5}
    assert group.tests == one(1, "hard", known="dent").tests  # one test set whatever the number
    assert len(labelled(one(50, "hard", known="dent"))) == 9


def test_hard_says_what_it_cannot_do() -> None:
    assert one(4, "hard", known="hole").skipped == "'nut' has no defects 'hole'; it has: cut, dent, stain"
    alone = {"nut": made.category("nut", kinds={"cut": 4})}
    assert one(2, "hard", samples=alone, known="cut").skipped == (
        "'nut' has no defects beside 'cut': nothing unknown to test"
    )
    with pytest.raises(UsageError, match=r"There are nut: cut, dent, stain"):
        one(4, "hard")
    with pytest.raises(UsageError, match=r"protocol\.known=cut belongs to protocol\.draw=hard"):
        one(4, "general", known="cut")


def test_devnet_takes_at_most_half() -> None:
    assert one(10, "devnet").skipped is None
    assert one(10, "devnet").train == one(10).train
    refused = one(11, "devnet")
    assert refused.skipped == (
        "'nut' has 20 anomalous test images, 11 were asked for; protocol.draw=devnet takes at most half"
    )
    assert one(11).skipped is None


def test_spread_is_even_over_the_kinds() -> None:
    assert defects(labelled(one(9, "spread"))) == {"cut": 3, "dent": 3, "stain": 3}
    for seed in range(10):
        eleven = defects(labelled(one(11, "spread", seed)))
        assert sum(eleven.values()) == 11
        assert min(eleven.values()) >= 3  # 11 // 3, two more at random
    assert len(labelled(one(2, "spread"))) == 2


def test_none_left_to_test_is_skipped() -> None:
    assert one(20).skipped == (
        "'nut' has 20 anomalous test images, and none is left to test: take a smaller protocol.anomalies"
    )
    assert one(19).skipped is None


@pytest.mark.parametrize(
    ("anomalies", "draw", "said"), [(0, "general", "at least 1"), (5, "genral", "general")]
)
def test_wrong_settings(anomalies: int, draw: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        one(anomalies, draw)

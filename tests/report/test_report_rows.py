from __future__ import annotations

import math
from typing import Any

import pytest
from made_records import record

from ad_bench.report.rows import entries, newest_only, over_seeds, summarise, without_folders

AB = ["a", "b"]


def summary(records: list[dict[str, Any]], categories: list[str] = AB) -> Any:
    (entry,) = entries(records, categories)
    return summarise(entry, categories, "image", "image_auroc")


def test_categories_within_a_seed_first() -> None:
    found = summary(
        [
            record(category=c, seed=s, value=v)
            for s, c, v in [(0, "a", 0.9), (0, "b", 0.7), (1, "a", 1.0), (1, "b", 0.8)]
        ]
    )
    # seed 0: 0.8, seed 1: 0.9 -> mean 0.85, deviation sqrt((0.05^2 + 0.05^2) / 1)
    assert found.average.mean == pytest.approx(0.85)
    assert found.average.deviation == pytest.approx(math.sqrt(0.005))
    assert found.cells["a"].mean == pytest.approx(0.95)
    assert found.cells["a"].deviation == pytest.approx(math.sqrt(0.005))
    assert (found.complete, found.covered, found.seeds, found.reasons) == (True, 2, 2, ())


def test_deviation_is_that_of_seeds_not_of_cells() -> None:
    # Both seeds average 0.8 whatever their cells do.
    found = summary(
        [
            record(category=c, seed=s, value=v)
            for s, c, v in [(0, "a", 0.9), (0, "b", 0.7), (1, "a", 0.7), (1, "b", 0.9)]
        ]
    )
    assert found.average.deviation == pytest.approx(0.0, abs=1e-12)
    assert found.cells["a"].deviation == pytest.approx(math.sqrt(0.02))


def test_three_seeds_by_hand() -> None:
    value = over_seeds([0.1, 0.2, 0.6])
    assert (value.mean, value.seeds) == (pytest.approx(0.3), 3)
    assert value.deviation == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert over_seeds([0.4]).deviation is None
    assert over_seeds([]).state == "missing"


def test_missing_category_is_not_averaged_away() -> None:
    found = summary([record(category="a", value=0.9)])
    assert (found.complete, found.covered) == (False, 1)
    assert found.average.mean == pytest.approx(0.9)
    assert found.cells["b"].state == "missing"


def test_an_incomplete_seed_is_left_out_where_another_is_whole() -> None:
    found = summary(
        [
            record(category="a", seed=0, value=0.9),
            record(category="b", seed=0, value=0.7),
            record(category="a", seed=1, value=0.1),
        ]
    )
    assert (found.complete, found.seeds, found.average.mean) == (True, 1, pytest.approx(0.8))
    assert found.cells["a"].mean == pytest.approx(0.9)
    assert found.reasons == ("seed 1 is left out: 1 of 2 categories",)


def test_seeds_of_different_categories_have_no_deviation() -> None:
    found = summary([record(category="a", seed=0, value=0.9), record(category="b", seed=1, value=0.7)])
    assert (found.complete, found.covered, found.average.deviation) == (False, 2, None)
    assert found.average.mean == pytest.approx(0.8)


def test_failed_skipped_and_undefined_say_why() -> None:
    error = {"type": "ValueError", "message": "no mask at /home/someone/data/x.png\nmore", "traceback": ""}
    null = record(category="c", value=None)
    null["undefined"] = {"image.image_auroc": "no defective image"}
    found = summary(
        [
            record(category="a", status="failed", error=error),
            record(category="b", status="skipped", reason="needs captions"),
            null,
            record(category="d", value=0.5),
        ],
        ["a", "b", "c", "d", "e"],
    )
    assert [cell.state for cell in found.cells.values()] == [
        "failed",
        "skipped",
        "undefined",
        "value",
        "missing",
    ]
    assert found.reasons == (
        "failed: ValueError: no mask at …/x.png [a]",
        "skipped: needs captions [b]",
        "not defined: no defective image [c]",
    )
    assert (found.complete, found.covered) == (False, 1)


def test_one_cause_for_all_names_no_category() -> None:
    found = summary([record(category=c, status="skipped", reason="why") for c in AB])
    assert found.reasons == ("skipped: why",)
    assert found.average.state == "skipped"
    assert found.average.mean is None


def test_a_metric_that_was_not_computed_is_said() -> None:
    bare = record()
    bare["metrics"] = {"image": {"image_f1max": 0.5}}
    (entry,) = entries([bare], ["a"])
    assert summarise(entry, ["a"], "image", "image_auroc").reasons == (
        "not computed: the record has no image_auroc",
    )
    assert summarise(entry, ["a"], "paper", "pixel_auroc").reasons == (
        "not computed: the record has no paper metrics",
    )


def test_newest_record_of_a_cell_counts() -> None:
    old = record(value=0.1, date="2026-01-01T00:00:00+00:00")
    new = record(value=0.9, date="2026-02-01T00:00:00+00:00")
    for order in ([old, new], [new, old]):
        (kept,) = newest_only(order)
        assert kept is new


def test_rows_are_told_apart_and_ordered() -> None:
    made = [
        record(variant="k=3"),
        record(protocol="few_shot-4"),
        record(method="padim"),
        record(),
        record(category="elsewhere"),
    ]
    found = entries(made, ["a"])
    assert [(e.method, e.variant, e.protocol) for e in found] == [
        ("padim", "", "full"),
        ("patchcore", "", "full"),
        ("patchcore", "k=3", "full"),
        ("patchcore", "", "few_shot-4"),
    ]


def test_folders_of_the_machine_are_cut() -> None:
    assert without_folders("cannot read '/home/me/x/a.png': bad") == "cannot read '…/a.png': bad"
    assert (
        without_folders("ratio 1/2 and https://example.org/a/b stay")
        == "ratio 1/2 and https://example.org/a/b stay"
    )


def test_protocols_stand_in_the_order_of_their_numbers() -> None:
    labels = ["few_shot-16", "few_shot-2", "noisy-0.05", "few_shot-1", "noisy-0.2", "full", "noisy-0.15"]
    found = entries([record(protocol=label) for label in labels], AB)
    expected = ["full", "few_shot-1", "few_shot-2", "few_shot-16", "noisy-0.05", "noisy-0.15", "noisy-0.2"]
    assert [entry.protocol for entry in found] == expected

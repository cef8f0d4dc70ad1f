"""The costs table and the front: against brute force, with ties, and who is left out and why."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import bounded, record

from ad_bench.report import costs as module
from ad_bench.report.costs import ACCURACIES, Cost, Point, Standing, costs, front
from ad_bench.report.leaderboard import places
from ad_bench.report.rows import entries

IMAGE, PIXEL = (metric for _, metric in ACCURACIES)
HOST = {"cpu": "a processor", "device": "cpu", "threads": 2}


def run(
    method: str, accuracy: float, latency: float, size: int, categories: str = "a", **changes: Any
) -> list[dict[str, Any]]:
    made = []
    for category in categories:
        cell = record(category=category, method=method, value=accuracy, **changes)
        cell["timing"] = cell["timing"] | {"latency_ms_p50": latency}
        cell["model"] = cell["model"] | {"bytes": size}
        made.append(cell)
    return made


def table(*runs: list[dict[str, Any]], categories: str = "a") -> dict[str, Cost]:
    records = [made for cells in runs for made in cells]
    found = costs(places(entries(records, categories), list(categories)))
    return {f"{cost.place.entry.method}{cost.place.entry.variant}": cost for cost in found}


def standing(found: dict[str, Cost], metric: str = IMAGE) -> dict[str, bool | str]:
    """True on the front, else the row that dominates, else why it is left out."""
    told: dict[str, bool | str] = {}
    for name, cost in found.items():
        place = cost.fronts[metric]
        told[name] = place.on or (place.behind.entry.method if place.behind else place.why)
    return told


few = st.integers(0, 4).map(float)
points = st.lists(st.builds(lambda a, w, t, m: Point(a, a + w, t, m), few, st.integers(0, 1), few, few))


@given(points)
def test_front_against_brute_force(found: list[Point]) -> None:
    beaten = front(found)
    for i, point in enumerate(found):
        better = [j for j, other in enumerate(found) if other.beats(point)]
        assert (beaten[i] is None) == (not better)
        if beaten[i] is not None:
            assert beaten[i] == next(j for j in better if beaten[j] is None)


@given(points)
def test_equal_points_share_their_fate(found: list[Point]) -> None:
    beaten = front([*found, *found])
    assert beaten[: len(found)] == beaten[len(found) :]


@given(points.filter(bool))
def test_something_is_on_the_front(found: list[Point]) -> None:
    assert None in front(found)


def test_beating_needs_one_strict_gain_and_no_loss() -> None:
    one = Point(0.9, 0.9, 10, 100)
    assert not one.beats(one)
    assert Point(0.9, 0.9, 9, 100).beats(one)
    assert Point(0.91, 0.91, 10, 100).beats(one)
    assert not Point(0.91, 0.91, 10, 101).beats(one)
    assert not Point(0.9, 0.92, 10, 99).beats(Point(0.9, 0.91, 10, 100))  # the exact order is not known


def test_front_of_rows() -> None:
    found = table(
        run("patchcore", 0.99, 50, 1000),
        run("padim", 0.95, 10, 500),
        run("stfpm", 0.95, 10, 500),  # equal: both on it
        run("spade", 0.94, 60, 1000),
        run("random", 0.5, 1, 1),
    )
    assert standing(found) == {
        "patchcore": True,
        "padim": True,
        "stfpm": True,
        "spade": "patchcore",
        "random": True,
    }
    assert standing(found, PIXEL) == standing(found)


def test_the_accuracies_have_fronts_of_their_own() -> None:
    slow, fast = run("patchcore", 0.9, 50, 1000), run("padim", 0.9, 10, 1000)
    slow[0]["metrics"]["full"]["pixel_aupr"] = 0.95
    found = table(slow, fast)
    assert standing(found) == {"padim": True, "patchcore": "padim"}
    assert standing(found, PIXEL) == {"padim": True, "patchcore": True}


def test_only_rows_that_can_be_compared_are() -> None:
    other = HOST | {"threads": 8}
    two = run("spade", 0.99, 1, 1, "ab")
    two[1]["hardware"] = other
    blank = run("rd4ad", 0.99, 1, 1, "ab")
    for made in blank:
        made["hardware"] = None
    untimed = run("cfa", 0.99, 1, 1, "ab")
    for made in untimed:
        made["timing"]["latency_ms_p50"] = None
        made["model"]["bytes"] = None
    found = table(
        run("patchcore", 0.9, 50, 1000, "ab"),
        run("padim", 0.8, 60, 1000, "ab"),
        run("fastflow", 0.99, 1, 1, "a"),
        run("stfpm", 0.99, 1, 1, "ab", hardware=other),
        run("regad", 0.99, 1, 1, "ab", protocol="few_shot-4"),
        run("cflow_ad", 0.99, 1, 1, "ab", hardware=HOST | {"workers_on_device": 4}),
        run("spade_alone", 0.5, 90, 9000, "ab", hardware=HOST | {"workers_on_device": 1}),
        two,
        blank,
        untimed,
        categories="ab",
    )
    alone = "no other complete row of this protocol on the same hardware"
    assert standing(found) == {
        "patchcore": True,
        "padim": "patchcore",
        "fastflow": "1 of 2 categories",
        "stfpm": alone,
        "regad": alone,
        "cflow_ad": alone,
        "spade_alone": "patchcore",
        "spade": "cells of several machines or numbers of threads",
        "rd4ad": "hardware not recorded",
        "cfa": "no latency and no model bytes",
    }


def test_a_bounded_accuracy_dominates_only_where_it_is_sure() -> None:
    def rows(bound: float) -> dict[str, bool | str]:
        sure, other = run("patchcore", 0.9, 10, 10), run("padim", 0.89, 20, 20)
        for made in (*sure, *other):
            made["bounds"] = {"full": {"pixel_aupr": bound}}
        return standing(table(sure, other), PIXEL)

    assert rows(0.001) == {"patchcore": True, "padim": "patchcore"}
    assert rows(0.006) == {"patchcore": True, "padim": True}


def test_csv() -> None:
    found = list(table(run("patchcore", 0.99, 50, 1000), run("padim", 0.9, 60, 2000)).values())
    one, two = csv.DictReader(io.StringIO(module.costs_csv(found)))
    assert (one["front.image.image_auroc"], two["front.image.image_auroc"]) == ("true", "false")
    assert (one["dominated_by.image.image_auroc"], two["dominated_by.image.image_auroc"]) == ("", "PatchCore")
    assert (one["latency_ms_p50"], one["model_bytes"], one["fit_seconds"]) == ("50.0", "1000", "2.0")
    assert (one["hardware"], one["threads"], one["full.pixel_aupr"]) == ("a processor", "2", "0.99")
    lonely = list(table(run("patchcore", 0.99, 50, 1000)).values())
    (row,) = csv.DictReader(io.StringIO(module.costs_csv(lonely)))
    assert row["front.image.image_auroc"] == ""
    assert row["left_out.image.image_auroc"].startswith("no other complete row")


def test_page_and_latex() -> None:
    gpu = {"cpu": "a processor", "device": "A & B", "threads": 1}
    found = list(
        table(
            run("patchcore", 0.99, 50, 1_000_000),
            run("padim", 0.9, 60, 2_000_000),
            [bounded(made, 1e-5) for made in run("stfpm", 0.9, 1, 1, hardware=gpu)],
        ).values()
    )
    text = module.costs_markdown("Set_1", found)
    assert "front, image AUROC | dominated by" in text
    assert "a processor, 2 threads" in text
    assert "A &amp; B + a processor, 1 thread" in text
    assert "bounded, not exact" in text
    assert "device MB" not in text  # no row has any
    tex = module.costs_latex("Set_1", found)
    assert "dominated by PatchCore." in tex
    assert "not compared: no other complete row" in tex
    assert tex.count(r"\begin{tabular}") == 1


def test_a_standing_is_one_of_three() -> None:
    found = table(run("patchcore", 0.99, 50, 1000), run("padim", 0.9, 60, 2000), run("stfpm", None, 1, 1))  # type: ignore[arg-type]
    for cost in found.values():
        place: Standing = cost.fronts[IMAGE]
        assert [place.on, place.behind is not None, bool(place.why)].count(True) == 1
    assert found["stfpm"].fronts[IMAGE].why == "no image_auroc"


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows(count: int) -> None:
    assert front([Point(1, 1, 1, 1)] * count) == [None] * count

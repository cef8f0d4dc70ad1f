"""Intervals of the test set and bounded values: worked by hand, and shown in every table."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from made_records import bounded, record, sure, write
from rich.console import Console
from test_report_latex import compile_tex

from ad_bench.report import collect, delimited, latex, markdown, show, write_report
from ad_bench.report.leaderboard import metric_text
from ad_bench.report.rows import entries, summarise
from ad_bench.report.tables import BEST, SECOND, SPECS, Table, _places, build
from ad_bench.report.text import bound_note

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution, from a printed table
Z90 = 1.6448536269514722


def summary(records: list[dict[str, Any]], categories: str = "ab") -> Any:
    (entry,) = entries(records, categories)
    return summarise(entry, list(categories), "image", "image_auroc")


def table(records: list[dict[str, Any]], categories: str = "ab", spec: int = 0) -> Table:
    return build(SPECS[spec], "made_up", "made_up", entries(records, categories), list(categories))


def csv_rows(made: Table) -> dict[str, dict[str, str]]:
    return {row["row"]: row for row in csv.DictReader(io.StringIO(delimited.table_csv(made)))}


def leaderboard(folder: Path) -> list[dict[str, str]]:
    with (folder / "leaderboard.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


# --- intervals: the figures


def test_interval_of_an_average_by_hand() -> None:
    found = summary(
        [
            sure(record(category="a", value=0.9), 0.05, 0.02, 0.03),
            sure(record(category="b", value=0.7), 0.07, 0.06, 0.04),
        ]
    )
    # se of the mean: sqrt(0.03^2 + 0.04^2) / 2 = 0.05 / 2 = 0.025
    interval = found.average.interval
    assert interval.error == pytest.approx(0.025, abs=1e-15)
    assert interval.low == pytest.approx(0.8 - Z95 * 0.025, abs=1e-12)
    assert interval.high == pytest.approx(0.8 + Z95 * 0.025, abs=1e-12)
    # A category keeps the percentiles that its record holds.
    assert (found.cells["a"].interval.low, found.cells["a"].interval.high) == (0.85, 0.92)


def test_level_sets_the_width_and_the_unit_interval_ends_it() -> None:
    made = [sure(record(category=c, value=0.99), 0.02, 0.01, 0.01, 0.9) for c in "ab"]
    interval = summary(made).average.interval
    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.99 - Z90 * 0.01 / math.sqrt(2), abs=1e-12)
    low = [sure(record(category=c, value=0.001), 0.0, 0.01, 0.01) for c in "ab"]
    assert summary(low).average.interval.low == 0.0


def test_seeds_do_not_narrow_an_interval() -> None:
    def of(seeds: tuple[float, ...]) -> Any:
        return summary(
            [
                sure(record(category=c, value=0.8 + gain, seed=s), 0.04, 0.02, error + gain)
                for s, gain in enumerate(seeds)
                for c, error in (("a", 0.03), ("b", 0.04))
            ]
        )

    same = of((0.0, 0.0, 0.0, 0.0)).average.interval
    assert same.error == pytest.approx(0.025, abs=1e-15)  # not 0.025 / sqrt(4)
    two = of((0.0, 0.01))
    # errors 0.03 and 0.04 are 0.035, those of b 0.045; the percentiles are averaged too
    assert two.cells["a"].interval.error == pytest.approx(0.035)
    assert two.cells["a"].interval.low == pytest.approx((0.76 + 0.77) / 2)
    assert two.cells["a"].interval.high == pytest.approx((0.82 + 0.83) / 2)
    assert two.average.interval.error == pytest.approx(math.hypot(0.035, 0.045) / 2)
    centre = (two.average.interval.low + two.average.interval.high) / 2
    assert centre == pytest.approx(two.average.mean) == pytest.approx(0.805)


def test_of_one_category_the_interval_is_its_own() -> None:
    made = sure(record(category="a", value=0.9), 0.05, 0.02, 0.03)
    interval = summary([made], "a").average.interval
    assert (interval.low, interval.high) == (0.85, 0.92)


@pytest.mark.parametrize("what", ["no bootstrap", "null", "one category without", "one seed without"])
def test_no_interval_where_one_is_missing(what: str) -> None:
    made = [
        sure(record(category=c, value=0.9, seed=s), 0.05, 0.02, 0.03)
        for s, c in itertools.product((0, 1), "ab")
    ]
    if what == "no bootstrap":
        for each in made:
            each["bootstrap"] = None
    elif what == "null":
        made[0]["intervals"]["image"]["image_auroc"]["low"] = None
    elif what == "one category without":
        del made[1]["intervals"], made[3]["intervals"]
    else:
        del made[3]["intervals"]["image"]["image_auroc"]
    found = summary(made)
    assert found.average.interval is None
    assert found.average.mean == pytest.approx(0.9)
    has = {name: cell.interval is not None for name, cell in found.cells.items()}
    expected = {
        "no bootstrap": (False, False),
        "null": (False, True),
        "one category without": (True, False),
        "one seed without": (True, False),
    }
    assert tuple(has.values()) == expected[what]


def test_intervals_of_different_levels_are_not_mixed() -> None:
    found = summary(
        [
            sure(record(category="a"), 0.05, 0.02, 0.03, 0.9),
            sure(record(category="b"), 0.05, 0.02, 0.03, 0.95),
        ]
    )
    assert [cell.interval for cell in (*found.cells.values(), found.average)] == [None] * 3
    assert found.reasons == ("intervals left out, their levels differ: 90 %, 95 %",)


def test_a_seed_that_does_not_count_has_no_say() -> None:
    made = [sure(record(category=c, value=0.9, seed=0), 0.05, 0.02, 0.03) for c in "ab"]
    made.append(sure(record(category="a", value=0.1, seed=1), 0.05, 0.02, 0.3))
    assert summary(made).cells["a"].interval.error == pytest.approx(0.03)


# --- intervals: in print


def with_intervals() -> list[dict[str, Any]]:
    made = [
        sure(record(category=c, value=v, seed=s), 0.04, 0.03, 0.03)
        for s in (0, 1)
        for c, v in (("a", 0.8), ("b", 0.9))
    ]
    return [*made, *(record(category=c, method="padim", value=0.5) for c in "ab")]


def test_rows_of_the_csv() -> None:
    rows = csv_rows(table([r for r in with_intervals() if r["method"] == "patchcore"]))
    assert list(rows) == ["ours", "deviation", "low", "high"]
    reach = Z95 * math.hypot(0.03, 0.03) / 2
    assert float(rows["low"]["a"]) == pytest.approx(0.76)
    assert float(rows["high"]["b"]) == pytest.approx(0.93)
    assert float(rows["low"]["average"]) == pytest.approx(0.85 - reach)
    assert float(rows["high"]["average"]) == pytest.approx(0.85 + reach)
    assert rows["low"]["note"] == rows["high"]["note"] == "bootstrap over test images, 95 %"
    assert (rows["ours"]["average"], rows["ours"]["note"]) == (repr(0.8500000000000001), "")


def test_intervals_stand_below_the_table_whose_shape_stays() -> None:
    plain = [{k: v for k, v in r.items() if k != "intervals"} for r in with_intervals()]
    with_, without = (markdown.table_markdown(table(r)) for r in (with_intervals(), plain))
    rows = [[line for line in text.splitlines() if line.startswith("|")] for text in (with_, without)]
    assert rows[0] == rows[1]
    assert "ours (2 seeds)" in rows[0][3]
    assert "0.850 ± 0.000" in rows[0][3]
    extra = set(with_.splitlines()) - set(without.splitlines())
    # 0.85 ± 1.96 * 0.0212 is 0.808 to 0.892; PaDiM has none
    assert extra == {
        "Bootstrap over test images, 95 % interval of the average: PatchCore 0.808 to 0.892."
        " Seeds share the test images: more of them do not narrow it."
    }
    tex = latex.table_latex(table(with_intervals()))
    assert r"95 \% interval of the average: PatchCore 0.808 to 0.892." in tex


def test_intervals_of_a_single_category_and_of_two_levels() -> None:
    made = [
        sure(record(category="a", value=0.8), 0.04, 0.03, 0.03),
        sure(record(category="a", value=0.5, method="padim"), 0.01, 0.01, 0.03, 0.9),
    ]
    text = markdown.table_markdown(table(made, "a"))
    assert "Bootstrap over test images, 90 % interval: PaDiM 0.490 to 0.510." in text
    assert "Bootstrap over test images, 95 % interval: PatchCore 0.760 to 0.830." in text
    assert "Seeds share" not in text


def test_intervals_on_the_leaderboard(tmp_path: Path) -> None:
    lopsided = sure(record(category="a", value=0.9), 0.05, 0.02, 0.03)
    write(tmp_path, lopsided, record(category="a", method="padim", value=0.5))
    write_report(tmp_path)
    first, second = leaderboard(tmp_path)
    assert (first["image.image_auroc.low"], first["full.pixel_aupro.high"]) == ("0.85", "0.92")
    assert (first["interval.level"], second["interval.level"]) == ("0.95", "")
    assert second["image.image_auroc.low"] == ""
    assert not [name for name in first if name.endswith(".bound")]
    page = (tmp_path / "leaderboard.md").read_text()
    assert " 0.900 [±.050] |" in page  # the farther end
    assert " 0.500 |" in page
    assert "the 95 % interval of a bootstrap over test images" in page
    place = collect(tmp_path).places["made_up"][0]
    assert metric_text(place, "image.image_auroc") == "0.900"


# --- bounded values


def pixel(method: str, value: float, bound: float = 0.0, category: str = "a") -> dict[str, Any]:
    made = record(category=category, method=method, value=value)
    return bounded(made, bound) if bound else made


def test_bound_of_an_average_is_the_mean() -> None:
    made = [pixel("x", 0.9, 4e-5, "a"), pixel("x", 0.7, 0.0, "b")]
    second = [r | {"seed": 1} for r in made]
    second[1] = bounded(dict(second[1]), 2e-5)
    (entry,) = entries([*made, *second], "ab")
    found = summarise(entry, ["a", "b"], "full", "pixel_auroc")
    assert found.cells["a"].bound == pytest.approx(4e-5)
    assert found.cells["b"].bound == pytest.approx(1e-5)  # one seed of two is exact
    assert found.average.bound == pytest.approx(2.5e-5)
    assert summarise(entry, ["a", "b"], "full", "pixel_aupr").average.bound is None


def test_bounded_values_are_marked_everywhere() -> None:
    made = [pixel("x", 0.9, 2.01e-5, c) for c in "ab"] + [pixel("y", 0.8, 0.0, c) for c in "ab"]
    one = table(made, spec=2)
    rows = csv_rows(build(SPECS[2], "m", "m", entries(made[:2], "ab"), ["a", "b"]))
    assert list(rows) == ["ours", "bound"]
    assert (rows["bound"]["a"], float(rows["bound"]["average"])) == ("2.01e-05", pytest.approx(2.01e-5))
    text = markdown.table_markdown(one)
    assert text.count("**0.900**<sup>a</sup>") == 3
    assert "- <sup>a</sup> bounded, not exact: at most ±2.1e-05" in text  # never rounded down
    assert "<ins>0.800</ins> |" in text
    tex = latex.table_latex(one)
    assert tex.count(r"\textbf{0.900}\textsuperscript{a}") == 3
    assert r"\textsuperscript{a}~bounded, not exact: at most $\pm$2.1e-{}05." in tex
    assert "certain within the bounds" in text
    exact = markdown.table_markdown(table(made, spec=3))
    assert "bound" not in exact
    assert "bound" not in latex.table_latex(table(made, spec=3))


def test_a_difference_is_as_exact_as_ours() -> None:
    made = bounded(record("mtd", "mtd", "patchcore", 0.862), 1e-5)
    one = build(SPECS[2], "mtd", "MTD", entries([made], ["mtd"]), ["mtd"])
    (gap,) = [line for line in one.lines if line.kind == "difference"]
    assert gap.cells["mtd"].bound == 1e-5
    (theirs,) = [line for line in one.lines if line.kind == "published"]
    assert theirs.cells["mtd"].bound is None


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (2.1e-5, "±2.1e-05"),
        (2.11e-5, "±2.2e-05"),
        (9.99e-6, "±1.0e-05"),
        (5e-5, "±5.0e-05"),
        (0.01, "±1.0e-02"),
    ],
)
def test_a_bound_is_never_rounded_down(bound: float, text: str) -> None:
    assert bound_note(bound) == f"bounded, not exact: at most {text}"


def ranks(values: dict[str, tuple[float, float]]) -> dict[str, int | None]:
    made = [pixel(method, mean, bound) for method, (mean, bound) in values.items()]
    return {line.method: line.rank.get("a") for line in table(made, "a", spec=2).lines}


def test_a_bound_that_changes_no_printed_figure_takes_nothing_away() -> None:
    assert ranks({"x": (0.9, 4e-4), "y": (0.8, 0), "z": (0.7, 4e-4)}) == {"x": BEST, "y": SECOND, "z": None}


def test_no_mark_where_the_bound_may_change_the_order() -> None:
    # x prints as 0.900 or 0.901: y is best either way, x best or second, z second or third.
    assert ranks({"x": (0.9004, 2e-4), "y": (0.901, 0), "z": (0.8, 0)}) == {"x": None, "y": BEST, "z": None}
    # Without the bound the same figures are second and third.
    assert ranks({"x": (0.9004, 0), "y": (0.901, 0), "z": (0.8, 0)}) == {"x": SECOND, "y": BEST, "z": None}
    # A bound that reaches no rival does no harm, whatever it prints as.
    assert ranks({"x": (0.9, 2e-2), "y": (0.8, 0)}) == {"x": BEST, "y": SECOND}
    assert ranks({"x": (0.99, 0), "y": (0.8, 2e-2), "z": (0.7, 0)}) == {"x": BEST, "y": SECOND, "z": None}
    # Two that may tie or swap: none of them is marked.
    assert ranks({"x": (0.9, 6e-4), "y": (0.9, 6e-4)}) == {"x": None, "y": None}


def test_marks_hold_for_every_value_within_the_bounds() -> None:
    """Against a loop over all printed values that the bounds allow."""

    def dense(values: tuple[int, ...]) -> list[int]:
        order = sorted(set(values), reverse=True)
        return [order.index(value) + 1 for value in values]

    spans = [(low, high) for low in range(4) for high in range(low, min(low + 2, 4))]
    marked = 0
    for case in itertools.product(spans, repeat=3):
        options = itertools.product(*(range(low, high + 1) for low, high in case))
        worlds = [dense(values) for values in options]
        for i, place in enumerate(_places([(float(low), float(high)) for low, high in case])):
            seen = {world[i] for world in worlds}
            if place is not None:
                assert seen == {place}, (case, i)
                marked += 1
            elif all(low == high for low, high in case):
                assert not seen & {BEST, SECOND}, (case, i)
    assert marked > 300


def test_bounded_values_on_the_leaderboard_and_the_terminal(tmp_path: Path) -> None:
    write(tmp_path, pixel("x", 0.9, 2e-5), pixel("y", 0.8))
    write_report(tmp_path)
    first, second = leaderboard(tmp_path)
    assert (first["full.pixel_auroc.bound"], second["full.pixel_auroc.bound"]) == ("2e-05", "")
    assert "full.pixel_aupr.bound" not in first
    page = (tmp_path / "leaderboard.md").read_text()
    assert page.count("0.900<sup>a</sup>") == 1
    assert "- <sup>a</sup> bounded, not exact: at most ±2.0e-05" in page
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    show(tmp_path, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("0.900~") == 2  # on the leaderboard and in Table 10
    assert "0.987~ is bounded" in " ".join(text.split())


# --- all of it


def test_records_without_such_figures_show_none(tmp_path: Path) -> None:
    """Records of an earlier version, and those that say null or nothing, give the same bytes."""
    for name, extra in (
        ("old", {}),
        (
            "null",
            dict.fromkeys(("intervals", "bootstrap", "bounds", "operating_points", "compat", "by_defect")),
        ),
        ("empty", {key: {} for key in ("intervals", "bounds", "operating_points", "compat", "by_defect")}),
    ):
        write(tmp_path / name, *(record(category=c, seed=s, **extra) for c in "ab" for s in (0, 1)))
        write_report(tmp_path / name)
    trees = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and "cells" not in path.parts
        }
        for name in ("old", "null", "empty")
    ]
    assert trees[0] == trees[1] == trees[2]
    words = ("low", "high", "bound", "Bootstrap", "[±", "threshold", "interval.level")
    ours = re.compile(r"tables/made_up/table.*|leaderboard\.(csv|md)")
    tables = {path: text for path, text in trees[0].items() if ours.fullmatch(path.as_posix())}
    assert len(tables) == 14
    for path, content in tables.items():
        assert not [word for word in words if word in content.decode()], path


def test_latex_with_everything_compiles(tmp_path: Path) -> None:
    made = [
        bounded(sure(record(category=c, method=m, value=v, seed=s), 0.04, 0.03, 0.03), 2e-5)
        for m, v in (("patchcore", 0.9), ("padim", 0.8), ("random", 0.5))
        for c in "ab"
        for s in (0, 1)
    ]
    (tmp_path / "table.tex").write_text(latex.table_latex(table(made, spec=2)), encoding="utf-8")
    log = compile_tex(tmp_path, "table.tex")
    assert "Overfull \\hbox" not in log
    assert "Missing character" not in log


def test_order_of_records_changes_no_byte(tmp_path: Path) -> None:
    made = [
        bounded(
            sure(record(category=c, value=0.1 * s + 0.37, seed=s), 0.01, 0.03, 0.01 + 0.003 * s),
            1e-5 * (s + 1),
        )
        for c in "abc"
        for s in (0, 1, 2)
    ]
    for name, order in (("one", made), ("two", made[::-1])):
        for index, each in enumerate(order):
            path = tmp_path / name / "cells" / "x" / f"{index:02}" / "m" / "p" / "f" / "record.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(each))
        write_report(tmp_path / name)
    names = ["leaderboard.csv", "leaderboard.md", "tables/made_up/table10_pixel_auroc.csv"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

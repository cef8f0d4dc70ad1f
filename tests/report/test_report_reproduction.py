"""Verdicts: what is reproduced, what is off, and every reason why a pair cannot tell."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_records import bounded, record
from rich.console import Console

from ad_bench import reference
from ad_bench.report import comparable, markdown, reproduction, terminal
from ad_bench.report.board import Board
from ad_bench.report.leaderboard import places
from ad_bench.report.reproduction import AVERAGE, NOT_COMPARABLE, OFF, Verdict, verdicts, within
from ad_bench.report.rows import Value, entries
from ad_bench.report.tables import SPECS, build, remarks_of

MVTEC = list(reference.survey_categories())
PATCHCORE = next(r for r in reference.published("mvtec", "image_auroc") if r.method == "patchcore")
CLOSE, ONE, TWO = (word for _, word in reproduction.LIMITS)


def board(
    records: Sequence[dict[str, Any]], dataset: str = "mvtec", categories: Sequence[str] = MVTEC
) -> Board:
    rows = entries(records, categories)
    tables = [build(spec, dataset, dataset, rows, categories) for spec in SPECS]
    return Board(tables={dataset: tables}, places={dataset: places(rows, categories)})


def whole(gap: float = 0.0, method: str = "patchcore", **changes: Any) -> list[dict[str, Any]]:
    """A run of all 15 categories, each `gap` above what is published of PatchCore's image AUROC."""
    return [record("mvtec", c, method, PATCHCORE.values[c] + gap, **changes) for c in MVTEC]


def of(found: Sequence[Verdict], category: str = AVERAGE, metric: str = "image_auroc") -> Verdict:
    (verdict,) = [v for v in found if v.category == category and v.metric == metric]
    return verdict


def single(method: str, value: float, dataset: str = "ksdd2", **changes: Any) -> list[Verdict]:
    return verdicts(board([record(dataset, "x", method, value, **changes)], dataset, ["x"]))


@pytest.mark.parametrize(
    ("gap", "word"),
    [
        (0.0, CLOSE),
        (0.005, CLOSE),  # a tie at the limit counts, whatever floats make of it
        (-0.005, CLOSE),
        (0.987 - 0.982, CLOSE),
        (0.005001, ONE),
        (0.01, ONE),
        (-0.0101, TWO),
        (0.02, TWO),
        (-0.02000001, OFF),
        (0.5, OFF),
    ],
)
def test_limits(gap: float, word: str) -> None:
    assert within(gap) == word


@pytest.mark.parametrize(
    ("gap", "bound", "word"),
    [
        (0.004, 0.001, CLOSE),
        (0.0045, 0.001, ONE),  # the whole of mean ± bound must be within
        (0.0195, 0.001, None),  # neither within 2 nor surely off
        (0.0205, 0.001, None),
        (0.0215, 0.001, OFF),
    ],
)
def test_a_bound_must_fall_within_as_a_whole(gap: float, bound: float, word: str | None) -> None:
    assert within(gap, bound) == word
    assert within(-gap, bound) == word


def test_a_whole_run_gets_a_verdict_for_each_category_and_the_average() -> None:
    found = verdicts(board(whole(0.0)))
    of_metric = [v for v in found if v.metric == "image_auroc"]
    assert [v.category for v in of_metric] == [*MVTEC, AVERAGE]
    assert {v.verdict for v in of_metric} == {CLOSE}
    average = of(found)
    assert (average.published, average.standing, average.published_protocol) == (0.992, "survey", "full")
    assert average.ours == pytest.approx(sum(PATCHCORE.values.values()) / 15)
    assert average.difference == pytest.approx(average.ours - 0.992)
    assert average.weights == "resnet18.tv_in1k"
    assert (average.mask_rule, average.selection, average.tuned) == ("", "last", "not stated")
    assert of(found, metric="pixel_auroc").mask_rule == "not stated"  # the made records hold none


def test_off_says_how_far_and_to_which_side() -> None:
    assert (of(verdicts(board(whole(-0.05)))).verdict, OFF) == (OFF, OFF)
    assert of(verdicts(board(whole(-0.05)))).why == "5.0 points below"


def test_some_categories_make_no_average() -> None:
    found = verdicts(board(whole()[:3]))
    average = of(found)
    assert (average.ours, average.difference, average.verdict) == (None, None, NOT_COMPARABLE)
    assert average.why == "average over 3 of 15 categories"
    assert of(found, MVTEC[0]).verdict == CLOSE
    shown = reproduction.shown([v for v in found if v.metric == "image_auroc"])
    assert [v.category for v in shown] == MVTEC[:3]
    whole_run = reproduction.shown([v for v in verdicts(board(whole())) if v.metric == "image_auroc"])
    assert [v.category for v in whole_run] == [AVERAGE]


OTHER = [{"name": "resnet18.tv_in1k", "source": "folder", "as_paper": False}]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": ["epochs=15"], "variant": "short"}, "settings changed: epochs=15"),
        ({"variant": "short"}, "settings changed: those of variant short are in its config.yaml"),
        ({"variant": "epochs=2,input={size: [1, 2]}"}, "settings changed: epochs=2, input={size: [1, 2]}"),
        ({"weights": OTHER}, "backbone resnet18.tv_in1k, not the method's own"),
        ({"marks": ["backbone r (the method's own: w)"]}, "backbone r (the method's own: w)"),
        ({"marks": ["random backbone weights"]}, "random backbone weights"),
        ({"marks": ["weights of unknown tag"]}, "weights of unknown tag: may be others than the paper's"),
        ({"marks": ["geometry of the data set"]}, "geometry of the data set, not of the paper"),
        ({"notes": {"textures": "procedural"}}, "made textures stand in for the paper's pictures"),
        ({"fidelity": "reinterpretation"}, "fidelity reinterpretation: cannot speak for the paper"),
        ({"fidelity": None}, "fidelity not stated: cannot speak for the paper"),
        (
            {"fidelity": None, "marks": ["maps of another program, original geometry"]},
            "maps of another program, original geometry",
        ),
        ({"protocol": "few_shot-4"}, "ours under few_shot-4, published under full"),
    ],
)
def test_each_reason_by_itself(changes: dict[str, Any], why: str) -> None:
    found = of(verdicts(board(whole(**changes))))
    assert (found.verdict, found.why) == (NOT_COMPARABLE, why)


def test_all_reasons_are_given_and_none_twice() -> None:
    changes = {
        "variant": "backbone=resnet18,coreset_ratio=0.01",
        "settings": ["backbone=resnet18", "coreset_ratio=0.01"],
        "marks": ["backbone resnet18 (the method's own: wide)", "geometry of the data set"],
    }
    found = of(verdicts(board(whole(**changes)[:2])))
    assert found.why.split("; ") == [
        "settings changed: coreset_ratio=0.01",
        "backbone resnet18 (the method's own: wide)",
        "geometry of the data set, not of the paper",
        "average over 2 of 15 categories",
    ]


@pytest.mark.parametrize(
    "changes", [{"settings": []}, {"variant": "again", "settings": []}, {"marks": ["x"]}]
)
def test_what_changes_nothing_is_no_reason(changes: dict[str, Any]) -> None:
    assert of(verdicts(board(whole(**changes)))).verdict == CLOSE


def test_settings_of_other_protocols_are_never_subtracted() -> None:
    found = of(verdicts(board(whole(protocol="few_shot-4"))))
    assert found.ours is not None
    assert found.difference is None


def test_suspect_figures_are_only_shown() -> None:
    rows = [record("mvtec", c, "somad", 0.979) for c in MVTEC]
    found = of(verdicts(board(rows)))
    assert (found.standing, found.verdict) == ("suspect", NOT_COMPARABLE)
    assert found.why.startswith("published value suspect: ")


def test_details_of_a_protocol_must_be_stated() -> None:
    """SoftPatch's source says 10 % noise; DevNet's row only that it is supervised."""
    for protocol, word in (("noisy-0.1", CLOSE), ("noisy-0.2", NOT_COMPARABLE)):
        run = [record("mvtec", c, "softpatch", 0.9865, protocol=protocol) for c in MVTEC]
        assert of(verdicts(board(run))).verdict == word
    rows = [record("mvtec", c, "devnet", 0.918, protocol="supervised-devnet-10") for c in MVTEC]
    found = of(verdicts(board(rows)), metric="pixel_auroc")
    assert "published as supervised without its details" in found.why


def test_one_model_for_all_needs_all() -> None:
    some = [record("mvtec", c, "uniad", 0.967, protocol="unified") for c in MVTEC[:2]]
    assert "one model for all categories: 2 of 15 here" in of(verdicts(board(some))).why
    every = [record("mvtec", c, "uniad", 0.967, protocol="unified") for c in MVTEC]
    assert of(verdicts(board(every))).verdict == CLOSE


def chosen_on_test(gap: float, best: float | None) -> Verdict:
    """A run `gap` from the published figure, of a paper that chose its epoch by the test images."""
    records = whole(gap, paper={"arxiv": "1", "selection": "best_test_epoch"})
    for made in records if best is not None else ():
        value = PATCHCORE.values[made["category"]] + (best or 0.0)
        made["best_on_test"] = {
            "tested": 5,
            "metrics": {"image": {"image_auroc": {"value": value, "epoch": 3}}},
        }
    return of(verdicts(board(records)))


def test_the_choice_of_the_epoch() -> None:
    """Reached without choosing: reproduced. Missed: off only where the best test epoch misses it too."""
    assert chosen_on_test(-0.004, None).verdict == CLOSE
    unknown = chosen_on_test(-0.05, None)
    assert (unknown.verdict, unknown.best_on_test) == (NOT_COMPARABLE, None)
    explained = chosen_on_test(-0.05, -0.01)
    assert explained.verdict == NOT_COMPARABLE
    assert "(the best of 5 tested: 0.982): the choice of the epoch explains the gap" in explained.why
    assert explained.best_on_test == pytest.approx(0.992 - 0.01, abs=1e-3)
    assert chosen_on_test(-0.05, -0.04).verdict == OFF
    assert (
        chosen_on_test(-0.05, 0.05).verdict == NOT_COMPARABLE
    )  # the best is far above: choosing explains it
    assert chosen_on_test(0.05, 0.06).verdict == OFF  # choosing never lowers a figure
    assert explained.selection == "last (paper: best on test)"


def test_a_bounded_average() -> None:
    published = reference.preferred(reference.published("ksdd2", "pixel_auroc"))
    (method, _), row = next(iter(published.items()))
    assert row.average is not None
    for gap, bound, word in ((0.001, 1e-5, CLOSE), (0.005, 1e-4, ONE), (0.02, 1e-4, NOT_COMPARABLE)):
        made = bounded(record("ksdd2", "x", method, row.average - gap), bound)
        found = of(verdicts(board([made], "ksdd2", ["x"])), metric="pixel_auroc")
        assert (found.verdict, found.bound) == (word, bound)
    assert "leaves open whether it is within 2" in found.why


def test_seeds_that_spread_over_a_limit_are_told() -> None:
    records = [*whole(-0.002, seed=0), *whole(-0.010, seed=1)]
    found = of(verdicts(board(records)))
    assert (found.verdict, found.seeds) == (ONE, 2)
    assert "2 seeds, which spread by ±0.6 points" in found.why
    calm = of(verdicts(board([*whole(-0.002, seed=0), *whole(-0.0021, seed=1)])))
    assert (calm.verdict, calm.why) == (CLOSE, "")


def test_sources_that_disagree_settle_nothing() -> None:
    """Published pixel AUPR averages of one method differ by more than two points."""
    method = "patchcore"
    rows = [r for r in reference.published("mvtec", "pixel_aupr") if r.in_survey and r.method == method]
    averages = [r.average for r in rows if r.average is not None]
    assert len(averages) > 1
    between = next(a for a in averages if abs(a - averages[0]) > 0.02)
    run = [record("mvtec", c, method, between) for c in MVTEC]
    found = of(verdicts(board(run)), metric="pixel_aupr")
    assert found.verdict == NOT_COMPARABLE
    assert found.why.startswith("published averages of this method differ: ")
    far = [record("mvtec", c, method, max(averages) + 0.03) for c in MVTEC]
    assert of(verdicts(board(far)), metric="pixel_aupr").verdict == OFF


def test_tuning_per_category_is_told_of_the_authors_figures() -> None:
    run = [record("mvtec", c, "cflow_ad", 0.98) for c in MVTEC]
    assert of(verdicts(board(run))).tuned.startswith("yes: input of 512 px")
    assert set(reference.tuning()) <= set(reference.methods())
    assert {row["tuned"] for row in reference.tuning().values()} <= {"yes", "no"}
    assert all(row["source"] for row in reference.tuning().values())
    readme = (Path(reference.__file__).parent / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith("| `tuning.csv`")]
    assert line.endswith(f"| {len(reference.tuning())} |")


def test_one_category_is_the_average() -> None:
    method = next(iter(reference.preferred(reference.published("ksdd2", "pixel_auroc"))))[0]
    (found,) = [v for v in single(method, 0.9) if v.metric == "pixel_auroc"]
    assert found.category == AVERAGE
    assert found.ours == 0.9


def test_nothing_published_nothing_judged() -> None:
    made = board([record(category=c) for c in "ab"], "made_up", ["a", "b"])
    assert verdicts(made) == []
    assert reproduction.summary([]) == []


def test_differences_in_the_tables_carry_the_same_reasons() -> None:
    made = board(whole(variant="short", settings=[f"setting_{i}={i}" for i in range(9)], marks=["x"]))
    table = made.tables["mvtec"][0]
    (ours,) = [line for line in table.lines if line.kind == "ours"]
    (gap,) = [line for line in table.lines if line.kind == "difference"]
    assert gap.remarks == ("not comparable: settings changed",)
    assert gap.note == "not comparable: " + of(verdicts(made)).why
    listed = "setting_0=0, setting_1=1, setting_2=2, setting_3=3, setting_4=4, setting_5=5 and 3 more"
    assert gap.note.endswith(listed)
    assert f"variant short: {listed}" in ours.remarks
    text = markdown.table_markdown(table)
    assert "difference<sup>" in text
    assert "not comparable: settings changed" in text
    plain = board(whole()).tables["mvtec"][0]
    assert [line.remarks for line in plain.lines if line.kind == "difference"] == [()]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"variant": "short"}, "variant short: settings in its config.yaml"),
        ({"variant": "short", "settings": ["lr=1"]}, "variant short: lr=1"),
        ({"variant": "", "settings": ["lr=1"]}, "settings: lr=1"),
        ({"variant": "lr=1", "settings": ["lr=1"]}, None),
        ({"variant": "lr=1"}, None),
        ({}, None),
        ({"variant": "again", "settings": []}, None),
        ({"variant": "p", "settings": ["root=/home/me/data"]}, "variant p: root=…/data"),
    ],
)
def test_the_footnote_of_a_row_named_by_hand(changes: dict[str, Any], note: str | None) -> None:
    assert comparable.settings_note(record(**changes)) == note
    (entry,) = entries([record(**changes)], ["a"])
    assert remarks_of(entry) == ([note] if note else [])


def test_long_lists_are_cut_where_that_saves_more_than_one() -> None:
    assert comparable.listed(list("abcdefg")) == "a, b, c, d, e, f, g"
    assert comparable.listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"
    assert comparable.listed(["x" * 99], each=10) == "xxxxxxxxx…"


def test_csv_has_every_field_in_full_precision() -> None:
    found = verdicts(board(whole(1e-4)))
    rows = list(csv.DictReader(io.StringIO(reproduction.reproduction_csv(found))))
    assert len(rows) == len(found)
    assert list(rows[0]) == list(Verdict.__dataclass_fields__)
    assert float(rows[0]["ours"]) == found[0].ours
    assert rows[0]["best_on_test"] == ""


def test_the_page_counts_and_explains() -> None:
    found = verdicts(board([*whole(), *whole(variant="short", settings=["lr=1"])]))
    of_metric = [v for v in found if v.metric == "image_auroc"]
    assert reproduction.summary(of_metric) == [
        f"2 averages: 1 {CLOSE}, 1 not comparable.",
        f"30 figures of categories: 15 {CLOSE}, 15 not comparable.",
    ]
    text = reproduction.reproduction_markdown("MVTec AD", found, 15)
    assert "- <sup>a</sup> settings changed: lr=1" in text
    assert text.count("\n## ") == 4
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {11, 12}  # mask rules: of pixels only


def test_the_terminal_shows_what_is_comparable() -> None:
    console = Console(record=True, width=200)
    found = verdicts(board([*whole(), *whole(variant="short")]))
    terminal.print_reproduction("MVTec AD", found, console)
    text = console.export_text()
    assert CLOSE in text
    assert "(short)" not in text
    assert "averages:" in text
    tables = board(whole(variant="short"))
    console = Console(record=True, width=200)
    terminal.print_board(tables.tables, tables.places, [], console)
    assert "≠" in console.export_text()


def test_ten_thousand_records_take_a_fraction_of_a_second() -> None:
    methods = [r.method for r in reference.published("mvtec", "image_auroc")][:60]
    records = [record("mvtec", c, m, 0.95, variant=v) for m in methods for v in "0123456789" for c in MVTEC]
    made = board(records)
    start = time.process_time()
    found = verdicts(made)
    assert len(found) > 14_000
    assert time.process_time() - start < 1.0  # 0.2 s where it was measured


def test_a_value_has_no_verdict_without_a_figure() -> None:
    failed = [record("mvtec", c, status="failed", error={"type": "E", "message": "m"}) for c in MVTEC]
    (found,) = [v for v in verdicts(board(failed)) if v.metric == "image_auroc"]
    assert (found.ours, found.verdict) == (None, NOT_COMPARABLE)
    assert Value().mean is None

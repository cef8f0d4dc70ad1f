from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from made_records import record

from ad_bench import reference
from ad_bench.report import delimited, latex, markdown
from ad_bench.report.rows import Value, entries
from ad_bench.report.tables import BEST, SECOND, SPECS, Line, Table, build, label
from ad_bench.report.text import Footnotes, figure, parts

MVTEC = list(reference.survey_categories())


def table(
    records: list[dict[str, Any]], categories: list[str], dataset: str = "made_up", spec: int = 0
) -> Table:
    return build(SPECS[spec], dataset, dataset, entries(records, categories), categories)


def mvtec(method: str, values: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    return [record("mvtec", category, method, value, **changes) for category, value in values.items()]


def csv_rows(made: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(delimited.table_csv(made))))


def ours(made: Table, method: str) -> Line:
    (line,) = [line for line in made.lines if line.kind == "ours" and line.method == method]
    return line


PARTIAL = "average over 1 of 2 categories; failed: Oops: no [b]"
GOLDEN_CSV = """\
taxonomy,method,title,variant,protocol,row,standing,seeds,complete,a,b,average,note
memory_bank,patchcore,PatchCore,,full,ours,,2,true,0.9,0.5,0.7,other weights
memory_bank,patchcore,PatchCore,,full,deviation,,2,true,0.0,0.0,0.0,
memory_bank,padim,PaDiM,,full,ours,,1,false,0.8125,failed,0.8125,{partial}
baseline,random,random,,full,ours,,1,true,0.25,0.75,0.5,
"""

GOLDEN_MD = """\
# made_up: image AUROC
| method | row | a | b | average |
| --- | --- | ---: | ---: | ---: |
| **Memory bank** | | | | |
| PatchCore<sup>a</sup> | ours (2 seeds) | **0.900 ± 0.000** | <ins>0.500 ± 0.000</ins> | **0.700 ± 0.000** |
| PaDiM<sup>b</sup> | ours | 0.812 | failed | (0.812)\\* |
| **Baseline** | | | | |
| random | ours | <ins>0.250</ins> | **0.750** | <ins>0.500</ins> |
"""


def golden_table() -> Table:
    return table(
        [
            record(category="a", value=0.9, seed=0, marks=["other weights"]),
            record(category="b", value=0.5, seed=0, marks=["other weights"]),
            record(category="a", value=0.9, seed=1, marks=["other weights"]),
            record(category="b", value=0.5, seed=1, marks=["other weights"]),
            record(category="a", method="padim", value=0.8125),
            record(category="b", method="padim", status="failed", error={"type": "Oops", "message": "no"}),
            record(category="a", method="random", value=0.25),
            record(category="b", method="random", value=0.75),
        ],
        ["a", "b"],
    )


def squeeze(text: str) -> list[str]:
    """Rows of a Markdown table without the alignment."""
    return [re.sub(r"-{3,}", "---", re.sub(r" +", " ", line)) for line in text.splitlines() if line]


def test_golden_csv() -> None:
    assert delimited.table_csv(golden_table()) == GOLDEN_CSV.format(partial=PARTIAL)


def test_golden_markdown() -> None:
    text = markdown.table_markdown(golden_table())
    assert squeeze(text)[: len(squeeze(GOLDEN_MD))] == squeeze(GOLDEN_MD)
    assert "\\* Not over all categories: PaDiM 1 of 2." in text
    assert "- <sup>a</sup> other weights\n- <sup>b</sup> failed: Oops: no \\[b\\]" in text


def test_markdown_is_aligned_and_has_one_width() -> None:
    rows = [line for line in markdown.table_markdown(golden_table()).splitlines() if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}


def test_best_and_second_with_ties_as_printed() -> None:
    values = {"patchcore": 0.90004, "padim": 0.9, "spade": 0.8, "random": 0.7}
    made = table([record(method=m, value=v) for m, v in values.items()], ["a"])
    ranks = {line.method: line.rank.get("a") for line in made.lines}
    assert ranks == {"patchcore": BEST, "padim": BEST, "spade": SECOND, "random": None}


def test_incomplete_rows_and_other_protocols_do_not_compete() -> None:
    records = [
        record(method=m, category=c, value=v) for m, v in (("padim", 0.6), ("spade", 0.5)) for c in "ab"
    ]
    records.append(record(method="patchcore", category="a", value=0.99))
    records += [record(method="regad", category=c, value=0.98, protocol="few_shot-4") for c in "ab"]
    made = table(records, ["a", "b"])
    assert {line.method: line.rank.get("a") for line in made.lines} == {
        "patchcore": None,
        "padim": BEST,
        "spade": SECOND,
        "regad": None,
    }


def test_one_row_alone_is_not_marked() -> None:
    assert table([record()], ["a"]).lines[0].rank == {}


def test_full_shape_of_table_9() -> None:
    made = table([record("mvtec", "bottle", "patchcore", 0.99)], MVTEC, "mvtec")
    published = [line for line in made.lines if line.kind == "published"]
    assert len(published) == 70
    assert {line.method for line in published} == {
        row["method"] for row in reference.read("table9_image_auroc")
    }
    assert sum(line.alone for line in published) == 69
    assert all("not run here" in line.note for line in published if line.alone)
    families = list(dict.fromkeys(line.taxonomy for line in made.lines))
    assert families == list(dict.fromkeys(row["taxonomy"] for row in reference.read("table9_image_auroc")))
    assert [line.method for line in published] == [
        row["method"] for row in reference.read("table9_image_auroc")
    ]


@pytest.mark.parametrize(("spec", "rows"), [(1, 0), (2, 49), (3, 13)])
def test_shapes_of_the_other_tables(spec: int, rows: int) -> None:
    made = table([record("mvtec", "bottle", "mean_image", 0.6)], MVTEC, "mvtec", spec)
    assert sum(line.kind == "published" for line in made.lines) == rows
    assert made.lines[-1].method == "mean_image"  # the floor comes last


def test_published_row_and_difference_on_real_values() -> None:
    values = dict.fromkeys(MVTEC, 0.95) | {"bottle": 0.99, "screw": 0.995}
    made = table(mvtec("patchcore", values), MVTEC, "mvtec")
    mine, theirs, gap = [line for line in made.lines if line.method == "patchcore"]
    assert [label(line) for line in (mine, theirs, gap)] == ["ours", "published (survey)", "difference"]
    assert theirs.cells["bottle"].mean == 1.000
    assert gap.cells["bottle"].mean == pytest.approx(-0.01)
    assert gap.cells["screw"].mean == pytest.approx(0.005)
    average = (13 * 0.95 + 0.99 + 0.995) / 15
    assert gap.average.mean == pytest.approx(average - 0.992)
    assert (gap.standing, gap.complete) == ("survey", True)
    row = next(r for r in csv_rows(made) if r["method"] == "patchcore" and r["row"] == "difference")
    assert float(row["bottle"]) == 0.99 - 1.0
    assert row["standing"] == "survey"


def test_no_difference_of_averages_for_an_incomplete_row() -> None:
    made = table(mvtec("patchcore", {"bottle": 0.99}), MVTEC, "mvtec")
    mine, _, gap = [line for line in made.lines if line.method == "patchcore"]
    assert (mine.complete, gap.complete) == (False, False)
    assert gap.average.mean is None
    assert gap.cells["bottle"].mean == pytest.approx(-0.01)
    assert gap.cells["cable"].mean is None


def test_suspect_rows_say_so_and_are_never_marked() -> None:
    records = mvtec("differnet", dict.fromkeys(MVTEC, 0.5)) + mvtec("patchcore", dict.fromkeys(MVTEC, 0.6))
    made = table(records, MVTEC, "mvtec")
    mine, theirs, gap = [line for line in made.lines if line.method == "differnet"]
    assert (theirs.standing, gap.standing) == ("suspect", "suspect")
    assert theirs.rank == gap.rank == {}
    assert theirs.average.mean > mine.average.mean  # would be best if it took part
    assert all(not line.rank for line in made.lines if line.kind != "ours")
    text = markdown.table_markdown(made)
    (row,) = [r for r in text.splitlines() if "published (suspect)" in r and r.split("|")[1].strip() == ""]
    assert "**" not in row
    assert "<ins>" not in row
    assert "suspect: not confirmed or contradictory, no target to aim at" in text


def test_variants_share_one_published_row() -> None:
    records = mvtec("patchcore", {"bottle": 0.9}) + mvtec(
        "patchcore", {"bottle": 0.8}, variant="coreset_ratio=0.01"
    )
    made = table(records, MVTEC, "mvtec")
    kinds = [line.kind for line in made.lines if line.method == "patchcore"]
    assert kinds == ["ours", "published", "difference", "ours", "difference"]
    gaps = [
        ln.cells["bottle"].mean for ln in made.lines if ln.method == "patchcore" and ln.kind == "difference"
    ]
    assert gaps == [pytest.approx(-0.1), pytest.approx(-0.2)]


def test_other_settings_are_not_subtracted() -> None:
    made = table(mvtec("patchcore", {"bottle": 0.9}, protocol="few_shot-4"), MVTEC, "mvtec")
    lines = [line for line in made.lines if line.method == "patchcore"]
    assert [line.kind for line in lines] == ["ours", "published"]
    assert "no published row under this protocol (published: full" in lines[0].note
    eight = table(mvtec("regad", dict.fromkeys(MVTEC, 0.9), protocol="few_shot-8"), MVTEC, "mvtec")
    gap = [line for line in eight.lines if line.method == "regad" and line.kind == "difference"]
    assert gap[0].average.mean == pytest.approx(0.9 - 0.912)


def test_one_category_takes_the_published_average() -> None:
    made = table([record("mtd", "mtd", "patchcore", 0.862)], ["mtd"], "mtd")
    _, theirs, gap = made.lines
    assert theirs.standing == "other: IM-IAD README, vanilla setting"
    assert theirs.cells["mtd"].mean == 0.975
    assert gap.cells["mtd"].mean == pytest.approx(-0.113)
    assert "| average" not in markdown.table_markdown(made)


def test_pixel_aupr_names_the_source_it_is_compared_with() -> None:
    made = table(mvtec("patchcore", {"bottle": 0.7}), MVTEC, "mvtec", spec=3)
    theirs = next(ln for ln in made.lines if ln.method == "patchcore" and ln.kind == "published")
    assert theirs.remarks == (
        "published: IM-IAD reproduction; other published averages: 0.612 (DeSTSeg re-evaluation), "
        "0.631 (DiffAD)",
    )


def test_paper_geometry_for_pixel_tables() -> None:
    made_of = record()
    made_of["metrics"]["paper"]["pixel_auroc"] = 0.75
    made_of["metrics"]["full"]["pixel_auroc"] = 0.25
    assert table([made_of], ["a"], spec=2).lines[0].cells["a"].mean == 0.75


def test_remarks_of_a_row() -> None:
    made = table(
        [
            record(category="a", fidelity="reinterpretation", marks=["tuned per category"]),
            record(category="b", fidelity="reinterpretation", paper={"selection": "best_test_epoch"}),
        ],
        ["a", "b"],
    )
    remarks = made.lines[0].remarks
    assert remarks[0].startswith("reinterpretation: ")
    assert "tuned per category [a]" in remarks


def test_a_users_method_and_family() -> None:
    made = table([record(method="mine", taxonomy="my_family"), record(method="random"), record()], ["a"])
    assert [line.taxonomy for line in made.lines] == ["memory_bank", "my_family", "baseline"]
    assert "**My family**" in markdown.table_markdown(made)


def test_odd_names_do_not_break_the_formats() -> None:
    odd = "k|1_{2}%$#&^~\\\"x'`*[a]<b> – ± ä ł 中"
    made = table([record(variant=odd, title="A|B_*c*", marks=[odd + "!"])], ["a"])
    rows = [line for line in markdown.table_markdown(made).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert csv_rows(made)[0]["variant"] == odd
    tex = latex.table_latex(made)
    assert tex.isascii() or set(re.findall(r"[^\x00-\x7f]", tex)) == {"ä", "ł"}
    assert r"\texttt{U+4E2D}" in tex


def test_long_variants_become_a_footnote() -> None:
    variant = ",".join(f"setting_{i}={i}" for i in range(9))
    text = markdown.table_markdown(table([record(variant=variant)], ["a"]))
    assert f"variant: {variant}" in text
    assert all(variant not in row for row in text.splitlines() if row.startswith("|"))


@pytest.mark.parametrize(
    ("value", "text"), [(0.9874999, "0.987"), (1.0, "1.000"), (0.99999, "1.000"), (0.0, "0.000")]
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_differences_have_a_sign_and_zero_has_none() -> None:
    assert [figure(v, "difference") for v in (0.0031, -0.0031, 0.0001, -0.0001)] == [
        "+0.003",
        "-0.003",
        "0.000",
        "0.000",
    ]


def test_states_in_print() -> None:
    assert [parts(Value(state="missing"), "ours")[0], parts(Value(state="undefined"), "ours")[0]] == [
        "-",
        "-",
    ]
    assert parts(Value(state="failed"), "ours") == ("failed", "")
    assert parts(Value(state="skipped"), "difference") == ("skipped", "")


def test_footnote_letters() -> None:
    notes = Footnotes()
    assert notes.mark(["x", "y"]) == "a,b"
    assert notes.mark(["y"]) == "b"
    assert notes.mark([str(i) for i in range(25)]).endswith(",y,z,aa")

"""Mean ranks: which rows and blocks are compared, what is said of the rest, and how it is drawn."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ad_bench.errors import UsageError
from ad_bench.report import collect, diagram, ranking, write_report
from ad_bench.report.ranking import Ranking
from tests.report.made_records import record, sure, write

HOSTILE = "<script>alert('x')</script> & \\input{secret}$%_#\x07"


def by_image_auroc(results: Path, rank: str = "") -> Ranking:
    return ranking.rankings(collect(results), rank)[0]


def fill(results: Path, values: dict[str, list[float]], **changes: object) -> None:
    """Row -> its value in categories a, b, c, ... of one data set."""
    for row, own in values.items():
        method, _, variant = row.partition("@")
        for category, value in zip("abcdefghijklmnop", own, strict=False):
            write(results, record(category=category, method=method, variant=variant, value=value, **changes))


def test_mean_ranks_by_hand(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8, 0.7], "padim": [0.9, 0.7, 0.8], "draem": [0.5, 0.9, 0.6]})
    found = by_image_auroc(tmp_path)
    # a: 1.5, 1.5, 3; b: 2, 3, 1; c: 2, 1, 3
    assert [(place.name, place.mean_rank) for place in found.rows] == [
        ("padim", pytest.approx(5.5 / 3)),
        ("patchcore", pytest.approx(5.5 / 3)),
        ("draem", pytest.approx(7 / 3)),
    ]
    assert [place.mean.mean for place in found.rows] == pytest.approx([0.8, 0.8, 2 / 3])
    assert len(found.blocks) == 3


def test_seeds_are_averaged_before_ranks_and_their_spread_stands_beside(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.7], "padim": [0.85, 0.8]})
    fill(tmp_path, {"patchcore": [0.7, 0.7]}, seed=1, fingerprint={"cell": "1" * 12})
    first, second = by_image_auroc(tmp_path).rows
    assert (first.name, first.mean_rank, second.mean_rank) == ("padim", 1, 2)
    assert second.mean.mean == pytest.approx(0.75)
    assert second.mean.deviation == pytest.approx(0.1 / 2**0.5)  # of .8 and .7
    assert (first.mean.deviation, first.mean.seeds, second.mean.seeds) == (None, 1, 2)


def test_the_interval_of_the_mean_is_that_of_independent_blocks(tmp_path: Path) -> None:
    for category in "ab":
        for method in ("patchcore", "padim"):
            write(tmp_path, sure(record(category=category, method=method, value=0.8), 0.1, 0.1, 0.05))
    interval = by_image_auroc(tmp_path).rows[0].mean.interval
    assert interval is not None
    assert interval.error == pytest.approx((2 * 0.05**2) ** 0.5 / 2)
    assert interval.low == pytest.approx(0.8 - 1.959964 * interval.error)


def test_what_lacks_a_block_is_left_out_and_named_never_filled_in(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8, 0.7], "padim": [0.8, 0.7, 0.6], "draem": [0.7, 0.6, 0.5]})
    fill(tmp_path, {"rd4ad": [0.99, 0.99]})
    write(tmp_path, record(category="c", method="rd4ad", status="failed"))
    found = by_image_auroc(tmp_path)
    assert [place.name for place in found.rows] == ["patchcore", "padim", "draem"]
    assert found.left_out == {"rd4ad": "lacks 1 of 3 blocks (made_up/c)"}
    page = ranking.ranking_markdown(found, {"made_up": "Made up"})
    assert "lacks 1 of 3 blocks (made_up/c): rd4ad" in page


def test_blocks_that_not_all_have_are_left_out_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8, 0.7], "padim": [0.8, 0.7, 0.6]})
    fill(tmp_path, {"rd4ad": [0.6, 0.5], "draem": [0.7, 0.6]})
    found = by_image_auroc(tmp_path)  # four methods over two blocks, not two over three
    assert [block[1] for block in found.blocks] == ["a", "b"]
    assert found.blocks_left_out == {("made_up", "c"): 2}
    assert "made_up/c 2" in ranking.ranking_markdown(found, {})


def test_other_protocols_are_not_comparable(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8], "padim": [0.8, 0.7]})
    fill(tmp_path, {"regad": [0.99, 0.99]}, protocol="few_shot-4")
    found = by_image_auroc(tmp_path)
    assert [place.name for place in found.rows] == ["patchcore", "padim"]
    assert found.left_out == {"regad:few_shot-4": "another protocol than full, not comparable"}


def test_a_method_has_one_row_the_plain_one_whatever_the_scores(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.5, 0.5], "patchcore@k=9": [0.99, 0.99], "padim": [0.8, 0.7]})
    fill(tmp_path, {"draem@longer": [0.9, 0.9], "draem@short": [0.1, 0.1], "padim@x": [1.0, 1.0]})
    found = by_image_auroc(tmp_path)
    assert sorted(place.name for place in found.rows) == ["draem@short", "padim", "patchcore"]
    assert found.left_out["patchcore@k=9"] == "another row of its method is compared"


def test_a_variant_stands_in_where_the_plain_row_has_gaps(tmp_path: Path) -> None:
    fill(
        tmp_path, {"patchcore": [0.5], "patchcore@k=9": [0.9, 0.9], "padim": [0.8, 0.7], "draem": [0.1, 0.2]}
    )
    found = by_image_auroc(tmp_path)
    assert [place.name for place in found.rows] == ["patchcore@k=9", "padim", "draem"]
    assert "has not the settings" in ranking.ranking_markdown(found, {})


def test_ten_at_most_and_the_rest_is_named_with_its_rank(tmp_path: Path) -> None:
    fill(tmp_path, {f"method_{i:02}": [0.9 - 0.01 * i] * 2 for i in range(12)})
    found = by_image_auroc(tmp_path)
    assert [place.name for place in found.rows] == [f"method_{i:02}" for i in range(10)]
    assert found.left_out["method_11"] == "mean rank 12.00 among 12 complete methods: not of the best 10"


def test_too_few_blocks_are_said_to_be(tmp_path: Path) -> None:
    rows = {"patchcore": 0.9, "padim": 0.8, "draem": 0.7}
    fill(tmp_path, {row: [value] * 6 for row, value in rows.items()})
    found = by_image_auroc(tmp_path)
    assert found.tested is not None
    assert found.tested[1] < 0.01
    assert found.different == set()  # three pairs: 3 x 0.031
    assert found.groups == [(0, 1, 2)]
    assert "the smallest p that 6 can give is 0.0312, 0.0938 after correction" in ranking.ranking_markdown(
        found, {}
    )
    assert "told apart from 7 on" in ranking.ranking_markdown(found, {})
    fill(tmp_path, {row: [value] * 7 for row, value in rows.items()})
    found = by_image_auroc(tmp_path)
    assert found.different == {(0, 1), (0, 2), (1, 2)}
    assert found.corrected[0, 1] == pytest.approx(3 * 2 / 2**7)
    assert "Too few" not in ranking.ranking_markdown(found, {})
    assert "All pairs are told apart." in ranking.ranking_markdown(found, {})


def test_without_friedman_no_pair_is_told_apart(tmp_path: Path) -> None:
    found = Ranking("image_auroc", (), (), (1.0, 0.3), {}, {(0, 1): 0.001}, {}, {}, "full", False)
    assert found.different == set()
    assert Ranking("image_auroc", (), (), (9.0, 0.01), {}, {(0, 1): 0.001}, {}, {}, "full", False).different


def test_rows_chosen_by_name_with_commas_inside(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8], "patchcore@a=1,b=2": [0.8, 0.7], "padim": [0.7, 0.6]})
    fill(tmp_path, {"patchcore@a=1": [0.1, 0.1]})
    found = by_image_auroc(tmp_path, "patchcore@a=1,b=2,padim")
    assert [place.name for place in found.rows] == ["patchcore@a=1,b=2", "padim"]
    assert found.left_out == dict.fromkeys(["patchcore", "patchcore@a=1"], "not among the chosen rows")


def test_a_choice_that_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9], "padim": [0.8], "patchcore@k=9": [0.8]})
    fill(tmp_path, {"padim": [0.8]}, protocol="few_shot-4")
    with pytest.raises(UsageError, match=r"no row 'padin'.* Did you mean padim"):
        by_image_auroc(tmp_path, "patchcore,padin")
    with pytest.raises(UsageError, match="names 1 rows; a ranking compares 2 to 10"):
        by_image_auroc(tmp_path, "patchcore,patchcore")
    with pytest.raises(UsageError, match="mixes the protocols few_shot-4, full"):
        by_image_auroc(tmp_path, "patchcore,padim:few_shot-4")


def test_nothing_to_rank_is_said(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8]})
    board = collect(tmp_path)
    found = ranking.rankings(board)
    files = ranking.files(found, board.titles, tmp_path)
    assert "Nothing to rank" in files[tmp_path / "ranking" / "image_auroc.md"]
    assert "Fewer than two methods" in files[tmp_path / "ranking" / "image_auroc.svg"]
    assert ranking.extras(found, board.titles) == []


def test_the_csv_has_everyone(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8], "padim": [0.8, 0.9], "draem": [0.5]})
    lines = list(csv.DictReader(io.StringIO(ranking.ranking_csv(by_image_auroc(tmp_path)))))
    assert [(line["row"], line["standing"], line["mean_rank"]) for line in lines] == [
        ("padim", "compared", "1.5"),
        ("patchcore", "compared", "1.5"),
        ("draem", "left out", ""),
    ]
    assert (lines[0]["p.patchcore"], lines[0]["p.padim"], lines[1]["p.padim"]) == ("1.0", "", "1.0")
    assert lines[2]["reason"] == "lacks 1 of 2 blocks (made_up/b)"
    for line in lines:
        assert None not in line
        assert None not in line.values()


def test_report_writes_twelve_files_and_the_same_again(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8], "padim": [0.8, 0.7], "draem": [0.6, 0.7]})
    first = {path: path.read_bytes() for path in write_report(tmp_path, rank="padim,draem")}
    names = {path.name for path in first if path.parent.name == "ranking"}
    assert names == {f"{metric}.{ext}" for metric in ranking.METRICS for ext in ("csv", "md", "svg", "tex")}
    assert first == {path: path.read_bytes() for path in write_report(tmp_path, rank="padim,draem")}


def test_svg_is_well_formed_titled_and_cannot_be_injected(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8], "padim": [0.8, 0.7]})
    fill(tmp_path, {"odd": [0.6, 0.7]}, title=HOSTILE)
    board = collect(tmp_path)
    found = ranking.rankings(board)
    page, *_ = ranking.extras(found, board.titles)
    assert page.ident == "ranking-image_auroc"
    assert [row[0] for row in page.rows] == ["patchcore", "padim", "odd"]
    text = page.svg
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    names = {child.get("id"): child.tag for child in root}
    assert [names[ident] for ident in root.get("aria-labelledby", "").split()] == [
        f"{space}title",
        f"{space}desc",
    ]
    assert not list(root.iter(f"{space}script"))
    assert "currentColor" in text
    assert "prefers-color-scheme: dark" in text
    assert "<style>" not in diagram.svg(
        ranking._drawing(found[0]), "x", alone=False
    )  # it would colour the page
    words = [element.text or "" for element in root.iter(f"{space}text")]
    assert any(word.endswith("<script>alert('x')</script>…") for word in words)


def test_bars_have_a_dot_at_each_member_and_skip_who_does_not_belong() -> None:
    drawing = diagram.draw("t", "axis", ["a", "b", "c"], [1.0, 2.0, 3.0], [(0, 2)])
    dots = [part.x for part in drawing.parts if isinstance(part, diagram.Dot)]
    bars = [part for part in drawing.parts if isinstance(part, diagram.Stroke) and part.width == 3]
    assert dots == [diagram.SIDE, diagram.WIDTH - diagram.SIDE]
    assert len(bars) == 1
    assert "Not told apart: (a, c)." in drawing.description


def test_labels_lie_within_the_picture() -> None:
    drawing = diagram.draw("t", "axis", [f"m{i}" for i in range(10)], list(range(1, 11)), [(0, 1)] * 8)
    for part in drawing.parts:
        assert 0 <= part.x <= diagram.WIDTH
        assert 0 <= part.y < drawing.height


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
def test_latex_compiles_alone_and_inside_a_paper(tmp_path: Path) -> None:
    fill(tmp_path, {"patchcore": [0.9, 0.8], "padim": [0.8, 0.7]})
    fill(tmp_path, {"odd": [0.6, 0.7]}, title=HOSTILE)
    write_report(tmp_path)
    home = tmp_path / "ranking"
    (home / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{graphicx}\\begin{document}"
        "\\input{image_auroc}\\input{pixel_aupro}\\end{document}"
    )
    for name in ("image_auroc", "paper"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        ran = subprocess.run(command, cwd=home, capture_output=True, text=True, errors="replace", timeout=120)
        assert ran.returncode == 0, ran.stdout[-2000:]
        assert not re.search(r"Overfull \\hbox", ran.stdout)

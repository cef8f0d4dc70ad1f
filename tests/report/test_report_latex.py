"""The LaTeX tables: their structure everywhere, and compiled where pdflatex is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_records import record

from ad_bench import reference
from ad_bench.report import latex
from ad_bench.report.rows import entries
from ad_bench.report.tables import SPECS, Table, build

MVTEC = list(reference.survey_categories())
ODD = "k|1_{2}%$#&^~\\\"x'`*[a]<b> – ± ä ł ą « 中"


def small() -> Table:
    records = [
        record(category=c, method=m, value=v, seed=s, marks=["a_mark & 50 %"] if m == "padim" else [])
        for m, v in (("patchcore", 0.9), ("padim", 0.8), ("random", 0.5))
        for c in "ab"
        for s in (0, 1)
    ]
    records.append(record(category="a", method="spade", status="skipped", reason="[why] * not"))
    records.append(record(category="a", method="patchcore", variant=ODD, title=ODD))
    return build(SPECS[0], "made_up", "Synthetic_#1", entries(records, ["a", "b"]), ["a", "b"])


def large() -> Table:
    records = [
        record("mvtec", c, m, 0.95, variant=v, seed=s)
        for m in ("patchcore", "padim", "stfpm", "random")
        for v in ("", "backbone=resnet18,coreset_ratio=0.01")
        for c in MVTEC
        for s in (0, 1)
    ]
    return build(SPECS[0], "mvtec", "MVTec AD", entries(records, MVTEC), MVTEC)


@pytest.mark.parametrize("make", [small, large])
def test_structure(make: object) -> None:
    table = make()  # type: ignore[operator]
    text = latex.table_latex(table)
    kind = "\\adbenchwide" if len(table.categories) > 6 else "table*"
    for pair in ((f"\\begin{{{kind}}}", f"\\end{{{kind}}}"), ("\\begin{tabular}", "\\end{tabular}")):
        assert text.count(pair[0]) == text.count(pair[1]) >= 1
    for rule in ("\\toprule", "\\bottomrule"):
        assert text.count(rule) == text.count(f"\\begin{{{kind}}}")
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    columns = len(table.categories) + 3  # method, row, average
    inside = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL)
    rows = [
        row
        for part in inside
        for row in part.splitlines()
        if row.endswith("\\\\") and "multicolumn" not in row
    ]
    assert len(rows) == len(table.lines) + len(inside)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}


def test_long_tables_are_cut_between_methods() -> None:
    text = latex.table_latex(large())
    assert text.count("\\begin{\\adbenchwide}") > 1
    for part in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL):
        named = [row for row in part.splitlines() if "multicolumn" not in row and row != "\\midrule"]
        assert not named[0].startswith(" &"), "a part begins inside a method"
        assert len(named) <= latex.ROWS_PER_FLOAT
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels)
    assert labels[0] == "tab:adbench-mvtec-table9_image_auroc-1"


def test_marks_of_best_and_second() -> None:
    text = latex.table_latex(small())
    assert "\\textbf{0.900}" in text
    assert "\\underline{0.800}" in text
    assert "\\textbf{0.800}" not in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 % of a_b & #1 $x$", r"50 \% of a\_b \& \#1 \$x\$"),
        ("a\\b{c}^~", r"a\textbackslash{}b\{c\}\textasciicircum{}\textasciitilde{}"),
        ("[a] *", "{[}a] {*}"),
        ("x--y", "x-{}-{}y"),
        ("é ą 中\x07\n z", r"é a \texttt{U+4E2D} z"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert latex.escape(text) == escaped


def compile_tex(folder: Path, name: str) -> str:
    """The log of pdflatex; skips where it is missing."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log[-2000:]
    assert (folder / name).with_suffix(".pdf").stat().st_size > 1000
    return log


@pytest.mark.parametrize("make", [small, large])
def test_compiles_as_it_is(make: object, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(latex.table_latex(make()), encoding="utf-8")  # type: ignore[operator]
    log = compile_tex(tmp_path, "table.tex")
    for trouble in ("Overfull", "Float too large", "Missing character"):
        assert trouble not in log


def test_compiles_inside_a_two_column_paper(tmp_path: Path) -> None:
    for name, table in (("small", small()), ("large", large())):
        (tmp_path / f"{name}.tex").write_text(latex.table_latex(table), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        "Before. \\input{small} \\input{large} After: the end.\n"
        "\\typeout{REACHED THE END}\n\\end{document}\n",
        encoding="utf-8",
    )
    assert "REACHED THE END" in compile_tex(tmp_path, "paper.tex")

"""Every table of a fixed set of records, byte by byte; hostile texts; and all of it compiled.

After a wanted change: `ADBENCH_GOLDEN=write pytest tests/report/test_report_golden.py`, then read the diff.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_records import bounded, record, sure, write

from ad_bench import reference
from ad_bench.report import write_report

GOLDEN = Path(__file__).parent / "golden"
MVTEC = list(reference.survey_categories())
KEPT = {  # of the survey's data set one table of each kind, of the other all
    "mvtec": ("table9_image_auroc", "reproduction", "costs"),
    "two": None,
}
HOSTILE = (
    "<script>alert('x')</script><img src=x onerror=alert(1)>",
    r"\input{/etc/passwd}\end{document}\write18{rm -rf x} $$ \\ \hline",
    "50 % | a_b & #1 $x$ {y} ~ ^ `code` [link](javascript:alert(1)) ![i](x) <!--",
    "a\nb\r\n| --- |\n# heading\n\\newcommand\x00\x1b[31m\u202e\u200b\ud7ff",
    '=HYPERLINK("x","y"),"quoted", \'single\'; --',
    "ä ł ą 中 😀 \u0301 – … → ±",
)


def fixed() -> list[dict[str, Any]]:
    """Two data sets: the survey's with a whole run, a short one and an incomplete; one of two categories."""
    patchcore = next(r for r in reference.published("mvtec", "image_auroc") if r.method == "patchcore")
    records = []
    for seed in (0, 1):
        for i, category in enumerate(MVTEC):
            value = patchcore.values[category] - 0.001 * (i % 3) - 0.002 * seed
            made = record("mvtec", category, "patchcore", value, seed=seed)
            records.append(sure(made, 0.01, 0.005, 0.003))
    for category in MVTEC:
        short = {"variant": "short", "settings": ["epochs=15", "lr=0.1"], "fingerprint": {"cell": "1" * 12}}
        records.append(record("mvtec", category, "padim", 0.95, **short))
    for category in MVTEC[:4]:
        made = record("mvtec", category, "stfpm", 0.9, marks=["geometry of the data set"])
        made["paper"] = {"selection": "best_test_epoch"}
        made["best_on_test"] = {
            "tested": 3,
            "metrics": {"image": {"image_auroc": {"value": 0.92, "epoch": 2}}},
        }
        records.append(made)
    error = {"type": "OSError", "message": "no space in /home/someone/results/x.npz"}
    records.append(record("mvtec", MVTEC[4], "stfpm", status="failed", error=error))
    for method, value in (("patchcore", 0.9), ("padim", 0.8125), ("random", 0.5)):
        for category in "ab":
            made = record("two", category, method, value + 0.01 * (category == "b"))
            made["timing"] = made["timing"] | {"latency_ms_p50": 100 * value}
            records.append(bounded(made, 2e-5) if method == "padim" else made)
    records.append(record("two", "a", "spade", status="skipped", reason="needs masks"))
    return records


def written(tmp_path: Path, records: list[dict[str, Any]]) -> dict[str, bytes]:
    """The tables of a report, by their path below tables/."""
    write(tmp_path, *records)
    write_report(tmp_path)
    home = tmp_path / "tables"
    found = {p.relative_to(home).as_posix(): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file()}
    return {name: text for name, text in found.items() if _kept(Path(name))}


def _kept(path: Path) -> bool:
    names = KEPT.get(path.parts[0])
    return names is None or path.stem in names


def test_golden_files(tmp_path: Path) -> None:
    found = written(tmp_path, fixed())
    if os.environ.get("ADBENCH_GOLDEN") == "write":
        shutil.rmtree(GOLDEN, ignore_errors=True)
        for name, text in found.items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_bytes(text)
    stored = {p.relative_to(GOLDEN).as_posix(): p for p in sorted(GOLDEN.rglob("*")) if p.is_file()}
    assert sorted(found) == sorted(stored), "ADBENCH_GOLDEN=write renews the files"
    for name, path in stored.items():
        # Lines, so that a failure shows the ones that differ.
        assert found[name].decode().splitlines() == path.read_bytes().decode().splitlines(), name
        assert found[name] == path.read_bytes(), f"{name}: other line ends"


def test_golden_files_hold_what_they_are_for() -> None:
    """A renewal that loses one of these is noticed."""
    text = {p.name: p.read_text(encoding="utf-8") for p in sorted((GOLDEN / "mvtec").glob("*.md"))}
    table = text["table9_image_auroc.md"]
    assert re.search(r"average \| +texture \| +object \|", table)
    for part in ("\\*", "failed", "not comparable: settings changed", "±", "**"):
        assert part in table, part
    assert "variant short: epochs=15, lr=0.1" in table
    assert "/home/someone" not in table
    assert "reproduced within 0.5 points" in text["reproduction.md"]
    assert "front, pixel AUPR" in text["costs.md"]
    two = (GOLDEN / "two" / "table10_pixel_auroc.md").read_text(encoding="utf-8")
    assert "bounded, not exact: at most ±2.0e-05" in two


def hostile() -> list[dict[str, Any]]:
    """Records whose every text wants out of its cell."""
    records = []
    for i, bad in enumerate(HOSTILE):
        changes: dict[str, Any] = {
            "title": bad,
            "variant": f"v{i}={bad}".replace("/", "_").replace("\x00", "")[:60],
            "settings": [bad, f"x={bad}"],
            "marks": [bad, f"backbone {bad}"],
            "hardware": {"cpu": bad, "device": bad, "threads": 1},
            "weights": [{"name": bad, "source": bad, "as_paper": False}],
            "paper": {"selection": bad},
            "notes": {"textures": bad},
            "fingerprint": {"cell": f"{i:012d}"},
        }
        group = {"image": {"image_auroc": 0.7}, "full": {"pixel_auroc": 0.6}}
        for category in "ab":
            made = record("two", category, "patchcore", 0.9, **changes)
            made["by_defect"] = {bad: group}
            made["paper_eval"] = {"size": 1, "mask_interpolation": bad, "mask_rule": bad}
            records.append(made)
        made = record("mvtec", "bottle", "patchcore", 0.9, **changes)
        records.append(made)
        failure = {"status": "failed", "error": {"type": bad, "message": bad}, **changes}
        records.append(record("two", "a", f"failed_{i}", **failure))
        skipped = {"status": "skipped", "reason": bad, **changes}
        records.append(record("two", "b", f"skipped_{i}", **skipped))
        records.append(record("two", "b", "random", 0.4, taxonomy=bad, fingerprint={"cell": f"9{i:011d}"}))
    return records


def test_hostile_texts_stay_in_their_cells(tmp_path: Path) -> None:
    write(tmp_path, *json.loads(json.dumps(hostile())))
    write_report(tmp_path)
    pages = {p: p.read_text(encoding="utf-8") for p in sorted((tmp_path / "tables").rglob("*.md"))}
    assert {p.stem for p in pages} >= {"reproduction", "costs", "by_defect", "table9_image_auroc"}
    for path, text in pages.items():
        assert not re.search(r"<(?!/?(sup|ins)>)", text), path  # no element but our own
        assert not set(text) & set("\x1b\x00\u202e\u200b"), path
        bare = re.sub(r"\\.", "", text)  # what a backslash protects is text
        for line in bare.splitlines():
            if line.startswith("|"):
                assert line.endswith("|")
        blocks = re.split(r"\n\s*\n", bare)
        for block in blocks:
            rows = [line for line in block.splitlines() if line.startswith("|")]
            assert len({row.count("|") for row in rows}) <= 1, path
        assert "](javascript" not in bare, path
        assert "`" not in bare or "`by_defect.csv`" in bare, path
        assert [line for line in bare.splitlines() if line.startswith("# ")] == bare.splitlines()[:1], path
    for path in sorted((tmp_path / "tables").rglob("*.tex")):
        text = path.read_text(encoding="utf-8")
        assert r"\input{/etc" not in text
        assert r"\write18" not in text
        assert text.count(r"\end{document}") == 1  # ours, inside \adbenchend


@pytest.mark.parametrize("make", [fixed, hostile], ids=["fixed", "hostile"])
def test_every_table_compiles_and_fits_its_page(make: Any, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    write(tmp_path, *json.loads(json.dumps(make())))
    write_report(tmp_path)
    home = tmp_path / "tables"
    found = [p.relative_to(home).with_suffix("").as_posix() for p in sorted(home.rglob("*.tex"))]
    assert len(found) > 10
    lines = [f"\\typeout{{TABLE {name}}}\\input{{{name}}}\\clearpage" for name in found]
    (home / "all.tex").write_text(  # the page of a file by itself, in one run for all
        "\\documentclass[a4paper,landscape]{article}\n\\usepackage[utf8]{inputenc}\n"
        "\\usepackage[margin=15mm]{geometry}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        + "\n".join(lines)
        + "\n\\typeout{REACHED THE END}\\end{document}\n",
        encoding="utf-8",
    )
    log = _compiled(home / "all.tex")
    assert "REACHED THE END" in log
    for trouble in ("Overfull", "Float too large", "Missing character"):
        assert trouble not in log, log[: log.find(trouble)].rpartition("TABLE ")[2][:60]


def test_a_paper_with_rotating_turns_wide_tables(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    table = GOLDEN / "mvtec" / "table9_image_auroc.tex"
    (tmp_path / "wide.tex").write_bytes(table.read_bytes())
    (tmp_path / "narrow.tex").write_bytes((GOLDEN / "two" / "table9_image_auroc.tex").read_bytes())
    sizes = []
    for package in ("", ",rotating"):
        name = f"paper{len(sizes)}.tex"
        (tmp_path / name).write_text(
            "\\documentclass[twocolumn]{article}\n"
            f"\\usepackage{{booktabs,graphicx{package}}}\n\\begin{{document}}\nText.\n"
            "\\input{wide}\\input{narrow}\nMore.\\typeout{FLOAT IS \\adbenchwide}\n\\end{document}\n",
            encoding="utf-8",
        )
        log = _compiled(tmp_path / name)
        sizes.append(re.search(r"FLOAT IS (\S+)", log).group(1))  # type: ignore[union-attr]
    assert sizes == ["table*", "sidewaystable*"]


def _compiled(path: Path) -> str:
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=120, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, f"{path}: {log[-2000:]}"
    return log

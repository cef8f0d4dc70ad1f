"""The plan, its cost and its results as one table: adbench status --table."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from ad_bench.cli import main
from ad_bench.records import CellId
from ad_bench.report import collect
from ad_bench.report.asked import asked, asked_csv, print_asked
from ad_bench.report.reproduction import verdicts
from tests.report import made_records


@dataclass
class Cell:
    id: CellId
    status: str | None = None
    seconds: float | None = None


def cell(
    category: str, status: str | None = None, seconds: float | None = None, method: str = "padim"
) -> Cell:
    return Cell(CellId("mvtec", category, method, "", "full", 0), status, seconds)


def found(*values: tuple[str, float]) -> dict[CellId, dict[str, object]]:
    made = [made_records.record("mvtec", category, "padim", value) for category, value in values]
    return {cell(str(one["category"])).id: one for one in made}


def test_a_row_counts_its_cells_adds_their_time_and_averages_what_is_done() -> None:
    cells = [
        cell("bottle", "done", 99.0),
        cell("cable", "done"),
        cell("pill", None, 40.0),
        cell("zipper", None, 2.0),
    ]
    cells += [cell("grid", "failed"), cell("wood", "skipped")]
    (row,) = asked(cells, found(("bottle", 0.9), ("cable", 0.6)))
    assert (row.cells, row.done, row.failed, row.skipped) == (6, 2, 1, 1)
    assert row.spent == pytest.approx(2 * (2.0 + 1.0))  # of fitting and predicting, by the records
    assert row.left == pytest.approx(42.0)  # what is done costs nothing any more
    assert row.means == {"image_auroc": pytest.approx(0.75), "pixel_auroc": pytest.approx(0.75)}


def test_time_to_come_is_unknown_where_a_cell_has_no_estimate() -> None:
    (row,) = asked([cell("bottle", None, 3.0), cell("cable", None, None)], {})
    assert row.left is None
    assert row.means == {}


def test_rows_keep_the_order_of_the_plan() -> None:
    cells = [cell("bottle", method=name) for name in ("spade", "padim", "spade")]
    assert [(row.row, row.cells) for row in asked(cells, {})] == [("spade", 2), ("padim", 1)]


def test_one_category_stands_beside_its_own_published_figure(tmp_path: Path) -> None:
    made_records.write(tmp_path, made_records.record("mvtec", "bottle", "patchcore", 0.999))
    judged = verdicts(collect(tmp_path))
    one = cell("bottle", "done", method="patchcore")
    (row,) = asked([one], {one.id: made_records.record("mvtec", "bottle", "patchcore", 0.999)}, judged)
    assert row.published["image_auroc"] == 1.0  # the survey's Table 9
    assert row.verdicts["image_auroc"] == "reproduced within 0.5 points"
    two = [one, cell("cable", method="patchcore")]
    (row,) = asked(two, {}, judged)
    assert row.published == {}  # no average of all categories, no figure beside it


def test_the_table_marks_a_mean_over_a_part() -> None:
    rows = asked([cell("bottle", "done"), cell("cable", None, 7200.0)], found(("bottle", 0.9)))
    console = Console(width=100, record=True, file=io.StringIO())
    print_asked(rows, console)
    text = console.export_text()
    assert all(word in text for word in ("1/2", "(0.900)", "2.0 h"))
    (line,) = csv.DictReader(asked_csv(rows).splitlines())
    assert (line["done"], line["cells"], line["left_seconds"], line["image_auroc"]) == (
        "1",
        "2",
        "7200.0",
        "0.9",
    )


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=random", "dataset=synthetic", "category=gear", f"paths.results={tmp_path / 'results'}"]
    words.append(f"paths.cache={tmp_path / 'cache'}")
    assert main(["status", *words, "--table"]) == 0  # before the first record
    assert "0/1" in capsys.readouterr().out
    assert main(["run", *words, "runtime=debug"]) == 0
    capsys.readouterr()
    assert main(["status", *words, "runtime=debug", "--table"]) == 0  # of records that no other table shows
    assert "1/1" in capsys.readouterr().out
    assert main(["run", *words]) == 0
    capsys.readouterr()
    file = tmp_path / "table.csv"
    assert main(["status", *words, "--table", "--csv", str(file)]) == 0
    assert "1/1" in capsys.readouterr().out
    (line,) = csv.DictReader(file.read_text().splitlines())
    assert line["done"] == "1"
    assert 0 <= float(line["image_auroc"]) <= 1
    assert main(["status", *words, "--csv", str(file)]) == 2
    assert "goes with --table" in capsys.readouterr().err
    assert main(["status", *words, "--table", "--json"]) == 2
    assert main(["status", *words, "--table", "--csv", str(tmp_path)]) == 1  # a folder

from __future__ import annotations

import csv
import io
from pathlib import Path

from made_records import record, write

from ad_bench.report import collect
from ad_bench.report.tidy import IDENTITY, LISTS, records_csv


def lines(results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(records_csv(collect(results).places))))


def test_every_record_has_a_line_with_its_figures(tmp_path: Path) -> None:
    value = 0.1 + 0.2  # seventeen digits
    write(
        tmp_path,
        record("mtd", "mtd", "patchcore", value, settings=["k=9", "backbone=resnet18"], marks=["one", "two"]),
        record("mtd", "mtd", "patchcore", 0.5, seed=1),
        record(
            "mtd", "mtd", "padim", status="failed", error={"type": "DataError", "message": "no /a/b/c.png"}
        ),
        record("visa", "pcb1", "padim", status="skipped", reason="nothing to learn"),
    )
    found = lines(tmp_path)
    assert [(one["dataset"], one["method"], one["seed"], one["status"]) for one in found] == [
        ("mtd", "padim", "0", "failed"),
        ("mtd", "patchcore", "0", "done"),
        ("mtd", "patchcore", "1", "done"),
        ("visa", "padim", "0", "skipped"),
    ]
    failed, done, _, skipped = found
    assert float(done["image.image_auroc"]) == value
    assert float(done["fit_seconds"]) == 2.0
    assert done["parameters"] == "11000000"
    assert (done["settings"], done["marks"]) == ("k=9; backbone=resnet18", "one; two")
    assert failed["error"] == "DataError: no …/c.png"  # no folder of a machine
    assert failed["image.image_auroc"] == failed["fit_seconds"] == ""
    assert skipped["reason"] == "nothing to learn"


def test_the_first_columns_are_the_same_whatever_the_records_hold(tmp_path: Path) -> None:
    write(tmp_path / "a", record(status="skipped", reason="so"))
    write(tmp_path / "b", record(), record(category="b", origin="lab", warnings=["w"]))
    wanted = [*(".".join(keys) for keys in IDENTITY), "error", *LISTS]
    for folder in ("a", "b"):
        assert list(lines(tmp_path / folder)[0])[: len(wanted)] == wanted


def test_what_is_no_number_is_no_figure(tmp_path: Path) -> None:
    made = record()
    made["metrics"]["image"]["image_auroc"] = "=1+1"
    made["timing"] = None
    made["title"] = "two\nlines"
    write(tmp_path, made)
    (found,) = lines(tmp_path)
    assert found["image.image_auroc"] == found["fit_seconds"] == ""
    assert found["title"] == "two lines"

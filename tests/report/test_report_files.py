from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_records import record, write
from rich.console import Console

from ad_bench import reference
from ad_bench.errors import ResultsError, UsageError
from ad_bench.report import collect, show, write_report
from ad_bench.report.leaderboard import cost_text

NAMES = ("table9_image_auroc", "table9_image_aupr", "table10_pixel_auroc", "table10_pixel_aupr")
MVTEC = reference.survey_categories()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the records, by name."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "cells" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def leaderboard(folder: Path) -> list[dict[str, str]]:
    with (folder / "leaderboard.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def printed(results: Path, width: int = 100, **more: Any) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    show(results, console, **more)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    write(
        folder,
        record("mtd", "mtd", "patchcore", 0.862, marks=["geometry of the data set"]),
        record("mtd", "mtd", "padim", 0.7),
        record("mtd", "mtd", "random", 0.5),
        *(record("mvtec", name, "patchcore", 0.98) for name in MVTEC),
        record("mvtec", "bottle", "padim", 0.996),
    )
    return folder


def test_files_and_their_order(results: Path) -> None:
    written = write_report(results)
    names = (*NAMES, "costs", "reproduction")
    expected = {f"tables/{d}/{n}.{e}" for d in ("mtd", "mvtec") for n in names for e in ("csv", "tex", "md")}
    expected |= {"leaderboard.csv", "leaderboard.md"}
    names_of = [{path.relative_to(results).as_posix() for path in written}, set(tree(results))]
    for found in names_of:
        assert {name for name in found if name.startswith(("tables/", "leaderboard"))} == expected


def test_the_same_records_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    write_report(results)
    first = tree(results)
    write_report(results)
    assert tree(results) == first
    write_report(results, tmp_path / "elsewhere")
    assert tree(tmp_path / "elsewhere") == first
    own = (".csv", ".md", ".tex")
    texts = {name: content.decode() for name, content in first.items() if name.endswith(own)}
    del texts["records.csv"]  # a record has its date
    assert not [name for name, text in texts.items() if re.search(r"2026|\r", text) or str(tmp_path) in text]


def test_another_order_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    made = [
        record(category=c, seed=s, value=0.1 * s + 0.37, method=m)
        for c in "ab"
        for s in (0, 1, 2)
        for m in "xy"
    ]
    write(tmp_path / "one", *made)
    write(tmp_path / "two", *made[::-1])
    write_report(tmp_path / "one")
    write_report(tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_score_tables_hold_no_timings(results: Path) -> None:
    write_report(results)
    before = tree(results)
    slow = record("mtd", "mtd", "padim", 0.7, date="2027-01-01T00:00:00+00:00")
    slow["timing"]["fit_seconds"] = 999.0
    write(results, slow)
    write_report(results)
    changed = {name for name, content in tree(results).items() if content != before[name]}
    costs = {f"tables/mtd/costs.{kind}" for kind in ("csv", "md", "tex")}
    assert {name for name in changed if not name.startswith("html/")} == {
        "leaderboard.csv",
        "leaderboard.md",
        "records.csv",
        *costs,
    }


def test_no_records_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="adbench run method="):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="adbench run method="):
        write_report(tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_records(results: Path) -> None:
    with pytest.raises(UsageError, match=r"'mvtek'.*mvtec"):
        write_report(results, datasets=["mvtek"])
    written = write_report(results, datasets=["mtd"])
    assert {path.parent.name for path in written if "tables" in path.parts} == {"mtd"}
    assert {row["dataset"] for row in leaderboard(results)} == {"mtd", "mvtec"}


def test_corrupt_records_are_named_and_left_out(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    half, empty = write(results, record("mtd", "mtd", "cfa"), record("mtd", "mtd", "dsr"))
    half.write_text(half.read_text()[:200])
    empty.write_text("")
    write(results, record("mtd", "mtd", "stfpm", status="dome"))
    write_report(results)
    assert {row["method"] for row in leaderboard(results) if row["dataset"] == "mtd"} == {
        "patchcore",
        "padim",
        "random",
    }
    page = (results / "leaderboard.md").read_text()
    assert page.count("- Left out: ") == 3
    assert "cells/mtd/mtd/cfa/" in page
    assert str(results) not in page
    assert len([r for r in caplog.records if "Left out" in r.message]) == 3


def test_only_corrupt_records(tmp_path: Path) -> None:
    (path,) = write(tmp_path, record())
    path.write_text("{")
    with pytest.raises(UsageError, match="none of the 1 records"):
        write_report(tmp_path)


def test_debug_runs_are_left_out_and_counted(results: Path, tmp_path: Path) -> None:
    write(results, record("mtd", "mtd", "cfa", marks=["debug"]))
    write_report(results)
    text = (results / "tables/mtd/table9_image_auroc.md").read_text()
    assert "Records of debug runs left out: 1." in text
    assert "CFA" not in text.replace("Left", "")
    assert "debug" not in (results / "tables/mvtec/table9_image_auroc.md").read_text()
    write(tmp_path / "only", record(marks=["debug"]))
    with pytest.raises(UsageError, match="debug"):
        write_report(tmp_path / "only")


def test_newest_fingerprint_counts(results: Path) -> None:
    newer = record(
        "mtd", "mtd", "padim", 0.75, date="2027-01-01T00:00:00+00:00", fingerprint={"cell": "1" * 12}
    )
    older = record(
        "mtd", "mtd", "padim", 0.1, date="2025-01-01T00:00:00+00:00", fingerprint={"cell": "2" * 12}
    )
    write(results, newer, older)
    write_report(results)
    (row,) = [r for r in leaderboard(results) if r["method"] == "padim" and r["dataset"] == "mtd"]
    assert row["image.image_auroc"] == "0.75"


def test_categories_come_from_the_data_sets_yaml(tmp_path: Path) -> None:
    conf = tmp_path / "mine" / "dataset"
    conf.mkdir(parents=True)
    (conf / "mugs.yaml").write_text("id: mugs\ntitle: Mugs\ncategories: [white, '01', '${dataset.id}']\n")
    write(tmp_path, record("mugs", "01"), record("mugs", "stray"))
    board = collect(tmp_path, [tmp_path / "mine"])
    table = board.tables["mugs"][0]
    assert (table.dataset_title, table.categories) == ("Mugs", ("white", "01", "mugs"))
    assert not table.lines[0].complete
    assert any("stray" in text for text in table.remarks)


def test_unknown_data_set_has_the_categories_that_ran(tmp_path: Path) -> None:
    write(tmp_path, record("own", "b"), record("own", "a"))
    table = collect(tmp_path).tables["own"][0]
    assert (table.categories, table.lines[0].complete) == (("a", "b"), True)


def test_a_failing_disk_leaves_whole_files(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(results)
    before = tree(results)
    write(results, record("mtd", "mtd", "cfa", 0.9))
    real = Path.write_text
    calls = []

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        calls.append(self)
        if len(calls) == 4:
            real(self, "half a file")
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ResultsError, match="No space left"):
        write_report(results)
    after = tree(results)
    assert set(after) == set(before)  # no temporary file stays
    assert "half a file" not in {content.decode() for content in after.values()}


def test_leaderboard_row(results: Path) -> None:
    write_report(results)
    (row,) = [r for r in leaderboard(results) if r["method"] == "patchcore" and r["dataset"] == "mtd"]
    assert row["taxonomy"] == "memory_bank"
    assert (row["categories"], row["of"], row["complete"], row["seeds"]) == ("1", "1", "true", "1")
    for name in ("image.image_auroc", "paper.pixel_aupro", "full.pixel_f1max"):
        assert float(row[name]) == 0.862
    assert (row["fit_seconds"], row["latency_ms_p95"], row["model_bytes"]) == ("2.0", "15.0", "44000000")
    assert row["device_peak_bytes"] == ""
    assert row["weights"] == "resnet18.tv_in1k (folder, abababababab)"
    assert row["marks"] == "geometry of the data set"
    assert (row["fidelity"], row["devices"], row["pixels_seen"]) == ("reference", "a processor", "0.75")


def test_leaderboard_order_and_incomplete_rows(results: Path) -> None:
    write_report(results)
    order = [row["method"] for row in leaderboard(results) if row["dataset"] == "mtd"]
    assert order == ["patchcore", "padim", "random"]
    last = leaderboard(results)[-1]  # 0.996, but on one category of 15
    assert (last["method"], last["categories"], last["of"], last["complete"]) == ("padim", "1", "15", "false")
    page = (results / "leaderboard.md").read_text()
    assert "(0.996)" in page
    assert "1 of 15" in page


def test_leaderboard_of_seeds_and_costs(tmp_path: Path) -> None:
    made = [record(category=c, seed=s, value=v) for c in "ab" for s, v in ((0, 0.8), (1, 0.9))]
    made[0]["timing"]["fit_seconds"] = 6.0
    made[0]["memory"]["host_peak_bytes"] = 900_000_000
    write(tmp_path, *made)
    write_report(tmp_path)
    (row,) = leaderboard(tmp_path)
    assert float(row["image.image_auroc"]) == pytest.approx(0.85)
    assert float(row["image.image_auroc.deviation"]) == pytest.approx(0.1 / 2**0.5)
    assert (row["seeds"], row["fit_seconds"], row["host_peak_bytes"]) == ("2", "3.0", "900000000")


def test_a_metric_undefined_somewhere_is_no_mean(tmp_path: Path) -> None:
    bad = record(category="b")
    bad["metrics"]["full"]["pixel_aupro"] = None
    write(tmp_path, record(category="a"), bad)
    write_report(tmp_path)
    (row,) = leaderboard(tmp_path)
    assert (row["full.pixel_aupro"], row["full.pixel_auroc"]) == ("", "0.9")
    assert "full.pixel_aupro is not defined in every category" in row["marks"]


def test_failed_cells_on_the_leaderboard(tmp_path: Path) -> None:
    write(tmp_path, record("mvtec", "bottle", status="failed", error={"type": "E", "message": "m"}))
    write_report(tmp_path)
    (row,) = leaderboard(tmp_path)
    assert (row["categories"], row["failed"], row["seeds"]) == ("0", "1", "0")
    assert "1 cell failed" in (tmp_path / "leaderboard.md").read_text()


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_fits(results: Path, width: int) -> None:
    text = printed(results, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text  # rich's sign of a column cut short
    assert re.search(r"fit s +img/s +MB", text)
    assert "0.975‡" in text  # IM-IAD's PatchCore on MTD
    assert "-0.113" in text
    assert "worst" in text  # 15 categories do not fit
    assert "(0.996)*" in text


def test_terminal_shows_categories_where_they_fit(tmp_path: Path) -> None:
    write(tmp_path, record(category="left", value=0.25), record(category="right", value=0.75))
    text = printed(tmp_path, 120)
    assert "left" in text
    assert "worst" not in text
    assert "0.250" in text


def test_terminal_of_one_data_set(results: Path) -> None:
    assert "MVTec" not in printed(results, datasets=["mtd"])
    with pytest.raises(UsageError, match="mtx"):
        printed(results, datasets=["mtx"])


def test_ten_thousand_records_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        record("mvtec", c, f"method_{m}", 0.9, seed=s, variant=v)
        for m in range(67)
        for c in MVTEC
        for s in range(5)
        for v in ("", "x")
    ]
    assert len(made) > 10_000
    monkeypatch.setattr(
        "ad_bench.report.board.read_all", lambda results: (made, [])
    )  # not a test of the disk
    start = time.process_time()
    write_report(tmp_path)
    assert time.process_time() - start < 10  # about 2 s
    assert len(leaderboard(tmp_path)) == 134


def test_needs_no_torch_and_no_pandas(results: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ad_bench.report import write_report;"
        f"write_report(Path({str(results)!r}));"
        "bad = {'torch', 'timm', 'pandas', 'sklearn', 'scipy', 'hydra'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (4.4e-05, "<0.01"), (0.3852, "0.385"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_costs_in_print(value: float | None, text: str) -> None:
    assert cost_text(value) == text

"""What records may hold beside metrics: operating points, other projects' values, groups of defects."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from made_records import bounded, record, write

from ad_bench.report import collect, write_report

LOCO = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def section(page: Path, title: str) -> list[list[str]]:
    """The cells of the table below a heading, its head first."""
    text = page.read_text().partition(f"{title}\n")[2]
    lines = [line for line in text.partition("\n#")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "--" not in line]


def point(precision: float | None, threshold: float = 0.5) -> dict[str, float | None]:
    return {
        "threshold": threshold,
        "precision": precision,
        "recall": 0.25,
        "tpr": 0.25,
        "fpr": 0.125,
        "iou": 0.2,
        "f1": 0.375,
    }


# --- other projects' ways to compute


def with_compat(**changes: Any) -> dict[str, Any]:
    made = record(**changes)
    made["metrics"]["paper"]["pixel_aupro"] = 0.75
    made["compat"] = {"imiad": {"pixel_aupro": 0.5}, "ader": {"pixel_aupro": 0.25, "pixel_auroc": 0.375}}
    return made


def test_compat_stands_beside_exact_values_and_nowhere_else(tmp_path: Path) -> None:
    write(tmp_path, *(with_compat(category=c) for c in "ab"), *(record(category=c, method="x") for c in "ab"))
    write_report(tmp_path)
    assert section(tmp_path / "leaderboard.md", "### As other projects compute them") == [
        ["method", "metric", "ours", "ours, geometry of the paper", "ader", "imiad"],
        ["PatchCore", "pixel AUROC", "0.900", "0.900", "0.375", "-"],
        ["PatchCore", "pixel AUPRO", "0.900", "0.750", "0.250", "0.500"],
    ]
    found = {row["method"]: row for row in rows(tmp_path / "leaderboard.csv")}
    assert found["patchcore"]["imiad.pixel_aupro"] == "0.5"
    assert found["patchcore"]["ader.pixel_auroc"] == "0.375"
    assert found["patchcore"]["full.pixel_aupro"] == "0.9"
    assert found["x"]["imiad.pixel_aupro"] == ""
    for path in (tmp_path / "tables").rglob("*.*"):
        assert not {"0.375", "0.25", "0.250"} & set(path.read_text().replace("|", ",").split(",")), path
    place = collect(tmp_path).places["made_up"][0]
    assert not [name for name in place.metrics if name.startswith(("ader", "imiad"))]


def test_compat_is_averaged_as_metrics_are(tmp_path: Path) -> None:
    made = [with_compat(category=c, seed=s) for s in (0, 1) for c in "ab"]
    made[0]["compat"]["imiad"]["pixel_aupro"] = 0.1  # seed 0: 0.3, seed 1: 0.5
    del made[3]["compat"]["ader"]["pixel_auroc"]  # seed 1 has not all: seed 0 counts alone
    made[0]["compat"]["ader"]["pixel_auroc"] = 0.125
    write(tmp_path, *made)
    write_report(tmp_path)
    (row,) = rows(tmp_path / "leaderboard.csv")
    assert float(row["imiad.pixel_aupro"]) == pytest.approx(0.4)
    assert float(row["ader.pixel_auroc"]) == pytest.approx((0.125 + 0.375) / 2)


def test_compat_that_a_category_lacks_is_no_mean(tmp_path: Path) -> None:
    write(tmp_path, with_compat(category="a"), record(category="b"))
    write_report(tmp_path)
    (row,) = rows(tmp_path / "leaderboard.csv")
    assert row["imiad.pixel_aupro"] == ""
    assert "As other projects" not in (tmp_path / "leaderboard.md").read_text()


def test_means_over_some_categories_stand_in_brackets(tmp_path: Path) -> None:
    made = with_compat(dataset="mvtec", category="bottle")
    made["operating_points"] = {"image": {"f1max": point(0.5)}}
    write(tmp_path, made)
    write_report(tmp_path)
    (_, _, aupro) = section(tmp_path / "leaderboard.md", "### As other projects compute them")
    assert aupro[2:] == ["(0.900)", "(0.750)", "(0.250)", "(0.500)"]
    (_, row) = section(tmp_path / "leaderboard.md", "### At a threshold")
    assert row[3:] == ["(0.500)", "(0.250)", "(0.125)", "(0.200)"]


def test_a_bounded_value_is_marked_beside_theirs(tmp_path: Path) -> None:
    write(tmp_path, bounded(with_compat(), 3e-5))
    write_report(tmp_path)
    (_, auroc, aupro) = section(tmp_path / "leaderboard.md", "### As other projects compute them")
    assert auroc[2:] == ["0.900<sup>a</sup>", "0.900<sup>a</sup>", "0.375", "-"]
    assert "sup" not in "".join(aupro)
    assert (tmp_path / "leaderboard.md").read_text().count("at most ±3.0e-05") == 2


# --- at a threshold


def test_operating_points(tmp_path: Path) -> None:
    made = []
    for name, precision in (("a", 0.5), ("b", 0.75)):
        made.append(record(category=name))
        f1max, given = point(precision, threshold=precision), point(1.0, threshold=3.5)
        made[-1]["operating_points"] = {
            "image": {"f1max": f1max, "given": given},
            "paper": {"f1max": point(0.0625)},
            "full": {"f1max": f1max | {"fpr": 0.0}},
        }
    write(tmp_path, *made, record(category="a", method="x"))
    write_report(tmp_path)
    assert section(tmp_path / "leaderboard.md", "### At a threshold") == [
        ["method", "of", "threshold", "precision", "recall", "FPR", "IoU"],
        ["PatchCore", "images", "F1-max", "0.625", "0.250", "0.125", "0.200"],
        ["PatchCore", "images", "given, 3.5", "1.000", "0.250", "0.125", "0.200"],
        ["PatchCore", "pixels", "F1-max", "0.625", "0.250", "0.000", "0.200"],
    ]
    assert "tuned on the test set itself" in (tmp_path / "leaderboard.md").read_text()
    found = {row["method"]: row for row in rows(tmp_path / "leaderboard.csv")}
    row = found["patchcore"]
    assert (row["image.f1max.precision"], row["image.given.threshold"]) == ("0.625", "3.5")
    assert (row["full.f1max.fpr"], row["image.f1max.f1"]) == ("0.0", "0.375")
    assert not [name for name in row if name.startswith(("paper.f1max", "full.given", "image.f1max.thr"))]
    assert found["x"]["image.f1max.precision"] == ""


def test_no_mean_of_thresholds_and_of_undefined_figures(tmp_path: Path) -> None:
    made = [record(category=c) for c in "ab"]
    for each, threshold, precision in zip(made, (1.0, 2.0), (0.5, None), strict=True):
        each["operating_points"] = {"image": {"given": point(precision, threshold)}}
    write(tmp_path, *made)
    write_report(tmp_path)
    _, row = section(tmp_path / "leaderboard.md", "### At a threshold")
    assert row == ["PatchCore", "images", "given", "-", "0.250", "0.125", "0.200"]
    assert "tuned" not in (tmp_path / "leaderboard.md").read_text()


# --- by defect


def loco(category: str, structural: float, logical: float, **changes: Any) -> dict[str, Any]:
    made = record("mvtec_loco", category, **changes)
    made["by_defect"] = {
        name: {
            "image": {"image_auroc": value, "image_aupr": 0.111},
            "full": {"pixel_auroc": value / 2, "pixel_aupro": value / 2, "pixel_spro@0.05": value / 4},
            "paper": {"pixel_auroc": 0.111},
        }
        for name, value in (("structural_anomalies", structural), ("logical_anomalies", logical))
    }
    return made


def test_loco_shows_structural_logical_and_their_mean(tmp_path: Path) -> None:
    made = [loco(name, 0.8 + 0.02 * i, 0.6) for i, name in enumerate(LOCO)]
    made[0]["by_defect"]["mean"] = made[0]["by_defect"]["logical_anomalies"]  # no group of defects
    write(tmp_path, *made, loco("pushpins", 1.0, 0.5, method="padim"))
    written = write_report(tmp_path)
    folder = tmp_path / "tables/mvtec_loco"
    assert {folder / "by_defect.csv", folder / "by_defect.md"} <= set(written)
    assert section(folder / "by_defect.md", "# MVTec LOCO AD: by defect") == [
        ["method", "metric", "seeds", "logical_anomalies", "structural_anomalies", "mean of the two"],
        ["PatchCore", "image AUROC", "1", "0.600", "0.840", "0.720"],
        ["PatchCore", "pixel AUROC", "1", "0.300", "0.420", "0.360"],
        ["PatchCore", "pixel AUPRO", "1", "0.300", "0.420", "0.360"],
        ["PatchCore", "pixel sPRO@0.05", "1", "0.150", "0.210", "0.180"],
        ["PaDiM", "image AUROC", "1", "(0.500)", "(1.000)", "(0.750)"],
        ["PaDiM", "pixel AUROC", "1", "(0.250)", "(0.500)", "(0.375)"],
        ["PaDiM", "pixel AUPRO", "1", "(0.250)", "(0.500)", "(0.375)"],
        ["PaDiM", "pixel sPRO@0.05", "1", "(0.125)", "(0.250)", "(0.188)"],
    ]
    found = rows(folder / "by_defect.csv")
    assert len(found) == 4 * (1 + 5) + 4 * (1 + 1)
    one = next(r for r in found if r["category"] == "juice_bottle" and r["metric"] == "image.image_auroc")
    assert (one["structural_anomalies"], one["logical_anomalies"]) == ("0.8200000000000001", "0.6")
    assert float(one["mean"]) == pytest.approx(0.71)
    assert {r["complete"] for r in found if r["method"] == "padim" and r["category"] == "average"} == {
        "false"
    }
    assert "0.111" not in (folder / "by_defect.md").read_text()


def test_one_half_of_loco_is_no_mean_of_two(tmp_path: Path) -> None:
    made = [loco(name, 0.8, 0.6) for name in LOCO]
    made[2]["by_defect"]["logical_anomalies"]["image"]["image_auroc"] = None
    write(tmp_path, *made)
    write_report(tmp_path)
    _, image, pixel, *_ = section(tmp_path / "tables/mvtec_loco/by_defect.md", "# MVTec LOCO AD: by defect")
    assert image[3:] == ["-", "0.800", "-"]
    assert pixel[3:] == ["0.300", "0.400", "0.350"]


def test_by_defect_over_seeds(tmp_path: Path) -> None:
    made = [loco(name, 0.8 + 0.1 * s, 0.6 - 0.1 * s, seed=s) for name in LOCO for s in (0, 1)]
    write(tmp_path, *made)
    write_report(tmp_path)
    row = section(tmp_path / "tables/mvtec_loco/by_defect.md", "# MVTec LOCO AD: by defect")[1]
    # 0.6 and 0.5, 0.8 and 0.9: deviation 0.1 / sqrt(2) each; their mean is 0.7 in both seeds
    assert row[2:] == ["2", "0.550 ± 0.071", "0.850 ± 0.071", "0.700 ± 0.000"]
    kinds = [r["row"] for r in rows(tmp_path / "tables/mvtec_loco/by_defect.csv")]
    assert kinds[:4] == ["ours", "deviation", "ours", "deviation"]


def test_categories_with_defects_of_their_own_have_tables_of_their_own(tmp_path: Path) -> None:
    made = []
    for category, groups in (("bottle", ("broken", "color")), ("cable", ("color", "cut_wire"))):
        made.append(record("mvtec", category))
        made[-1]["by_defect"] = {g: {"image": {"image_auroc": 0.9 if g == "color" else 0.7}} for g in groups}
    write(tmp_path, *made, record("mvtec", "bottle", "padim"))
    write_report(tmp_path)
    page = tmp_path / "tables/mvtec/by_defect.md"
    assert section(page, "## bottle") == [
        ["method", "metric", "seeds", "broken", "color"],
        ["PatchCore", "image AUROC", "1", "0.700", "0.900"],
    ]
    assert section(page, "## cable")[0][3:] == ["color", "cut_wire"]
    found = rows(page.with_suffix(".csv"))
    assert [(r["category"], r["broken"], r["color"], r["cut_wire"]) for r in found] == [
        ("bottle", "0.7", "0.9", ""),
        ("cable", "", "0.9", "0.7"),
    ]
    assert "mean" not in found[0]


def test_by_defect_of_one_data_set_only(tmp_path: Path) -> None:
    write(tmp_path, *(loco(name, 0.8, 0.6) for name in LOCO), record("mtd", "mtd"))
    names = {path.name for path in write_report(tmp_path, datasets=["mtd"])}
    assert "by_defect.csv" not in names
    assert "by_defect.csv" in {path.name for path in write_report(tmp_path)}
    assert not (tmp_path / "tables/mtd/by_defect.md").exists()


def test_a_bounded_metric_is_marked_by_defect_and_at_a_threshold(tmp_path: Path) -> None:
    made = [bounded(loco(name, 0.8, 0.6), 1e-5) for name in LOCO]
    for each in made:
        each["bounds"]["full"]["pixel_f1max"] = 1e-5
        each["operating_points"] = {"image": {"f1max": point(0.5)}, "full": {"f1max": point(0.5)}}
    write(tmp_path, *made)
    write_report(tmp_path)
    page = tmp_path / "tables/mvtec_loco/by_defect.md"
    names = [row[1] for row in section(page, "# MVTec LOCO AD: by defect")[1:]]
    assert names == ["image AUROC", "pixel AUROC<sup>a</sup>", "pixel AUPRO", "pixel sPRO@0.05"]
    assert "- <sup>a</sup> computed the bounded way, not exact" in page.read_text()
    points = section(tmp_path / "leaderboard.md", "### At a threshold")
    assert [row[2] for row in points[1:]] == ["F1-max", "F1-max<sup>a</sup>"]


# --- the rest of the page


def test_spro_has_a_column_where_it_was_measured(tmp_path: Path) -> None:
    made = [record("mvtec_loco", name) for name in LOCO]
    for each in made:
        each["metrics"]["full"] |= {"pixel_spro@0.01": 0.25, "pixel_spro@0.05": 0.5, "pixel_spro@0.3": 0.75}
    write(tmp_path, *made, record("mtd", "mtd"))
    write_report(tmp_path)
    head, row = section(tmp_path / "leaderboard.md", "## MVTec LOCO AD")
    assert row[head.index("pixel sPRO@0.05")] == "0.500"
    assert len([name for name in head if "sPRO" in name]) == 1
    assert "sPRO" not in " ".join(section(tmp_path / "leaderboard.md", "## MTD (magnetic tile defects)")[0])


def test_maps_of_another_program_say_where_their_pixel_metrics_stand(tmp_path: Path) -> None:
    made = record("mtd", "mtd", "theirs", taxonomy="external")
    del made["metrics"]["paper"]
    write(tmp_path, made)
    write_report(tmp_path)
    text = (tmp_path / "tables/mtd/table10_pixel_auroc.md").read_text()
    why = "measured on the original masks alone, not as a paper did: its value stands in the leaderboard"
    (line,) = [line for line in text.splitlines() if line.startswith("| theirs<sup>a</sup>")]
    assert line.split("|")[3].strip() == "-"
    assert f"- <sup>a</sup> {why}" in text
    row = next(r for r in rows(tmp_path / "tables/mtd/table10_pixel_auroc.csv") if r["row"] == "ours")
    assert (row["mtd"], row["note"]) == ("", why)
    assert rows(tmp_path / "leaderboard.csv")[0]["full.pixel_auroc"] == "0.9"
    made["metrics"]["full"]["pixel_auroc"] = None  # nor is there one in the leaderboard
    write(tmp_path, made)
    write_report(tmp_path)
    assert why not in (tmp_path / "tables/mtd/table10_pixel_auroc.md").read_text()

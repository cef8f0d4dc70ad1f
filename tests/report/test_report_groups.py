"""Textures and objects: whose means they are, where they stand, and when there is none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from made_records import bounded, record, write

from ad_bench import reference
from ad_bench.report import collect, write_report
from ad_bench.report.board import columns_of
from ad_bench.report.rows import entries, sub_means

MVTEC = list(reference.survey_categories())
TEXTURES = {"carpet", "grid", "leather", "tile", "wood"}
GROUPS = {"texture": ["a", "b"], "object": ["c"]}


def means(*records: dict[str, Any], metric: str = "image_auroc") -> dict[str, float | None]:
    (entry,) = entries(records, "abc")
    section = "image" if metric.startswith("image") else "full"
    found = sub_means(entry, list("abc"), GROUPS, section, metric)
    return {name: value.mean for name, value in found.items()}


def test_by_hand() -> None:
    found = [record(category=c, value=v) for c, v in zip("abc", (0.5, 0.75, 1.0), strict=True)]
    assert means(*found) == {"texture": 0.625, "object": 1.0}


def test_an_incomplete_group_has_none() -> None:
    found = [record(category=c, value=v) for c, v in (("a", 0.5), ("c", 1.0))]
    assert means(*found) == {"object": 1.0}
    assert means(record(category="a", status="failed")) == {}


def test_only_the_seeds_of_the_average_count() -> None:
    """Seed 1 misses an object: the average is of seed 0 alone, and so are both groups."""
    found = [record(category=c, value=0.5, seed=0) for c in "abc"]
    found += [record(category=c, value=0.9, seed=1) for c in "ab"]
    assert means(*found) == {"texture": 0.5, "object": 0.5}


def test_seeds_and_bounds() -> None:
    found = [
        bounded(record(category=c, value=v, seed=s), 2e-5) for c in "abc" for s, v in ((0, 0.5), (1, 0.75))
    ]
    (entry,) = entries(found, "abc")
    value = sub_means(entry, list("abc"), GROUPS, "full", "pixel_auroc")["texture"]
    assert (value.mean, value.seeds, value.bound) == (0.625, 2, pytest.approx(2e-5))
    assert value.deviation == pytest.approx(0.25 / 2**0.5)


def test_the_split_is_that_of_the_data_set() -> None:
    _, categories, groups = columns_of("mvtec", [])
    assert set(groups["texture"]) == TEXTURES
    assert sorted(groups["texture"] + groups["object"]) == sorted(categories)
    assert columns_of("visa", [record("visa", "candle", texture=True)])[2] == {}  # its YAML calls none one
    assert columns_of("dagm", [])[2] == {}  # all are
    own = [record("mine", "x", texture=True), record("mine", "y", texture=False)]
    assert columns_of("mine", own)[2] == {"texture": ["x"], "object": ["y"]}


def test_leaderboard_and_markdown(tmp_path: Path) -> None:
    for category in MVTEC:
        write(tmp_path, record("mvtec", category, value=0.8 if category in TEXTURES else 0.95))
    write(tmp_path, record("mvtec", "carpet", "padim", 0.7), record("made_up", "a"))
    write_report(tmp_path)
    rows = {
        (row["dataset"], row["method"]): row
        for row in csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines())
    }
    for metric in ("image.image_auroc", "paper.pixel_aupr", "full.pixel_aupro"):
        whole = rows["mvtec", "patchcore"]
        assert float(whole[f"{metric}.texture"]) == pytest.approx(0.8)
        assert float(whole[f"{metric}.object"]) == pytest.approx(0.95)
        assert {
            rows[key][f"{metric}.{g}"]
            for key in list(rows)[1:]
            for g in GROUPS
            if key != ("mvtec", "patchcore")
        } == {""}
    lines = (tmp_path / "tables/mvtec/table9_image_auroc.md").read_text().splitlines()
    head = [cell.strip() for cell in lines[2].split("|")]
    assert head[-4:-1] == ["average", "texture", "object"]
    ours = next(line for line in lines if line.startswith("| PatchCore "))
    assert [cell.strip() for cell in ours.split("|")][-3:-1] == ["0.800", "0.950"]
    published = lines[lines.index(ours) + 1]
    assert "published" in published
    assert [cell.strip() for cell in published.split("|")][-3] == "0.991"  # (.982+.983+1+.989+.999)/5
    tex = (tmp_path / "tables/mvtec/table9_image_auroc.tex").read_text()
    assert "texture" not in tex.lower()  # the survey's shape
    assert collect(tmp_path).places["made_up"][0].groups == {}

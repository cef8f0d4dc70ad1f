"""The reference tables as they ship: whole, consistent, and read as their README says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ad_bench import reference

CATEGORIES = (
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw "
    "tile toothbrush transistor wood zipper"
)
TABLES = {
    "table9_image_auroc": (70, {"survey": 44, "paper": 13, "suspect": 13}, 0.3),
    "table10_pixel_auroc": (49, {"survey": 7, "paper": 19, "suspect": 23}, 0.3),
    "table10_pixel_aupr": (20, {"paper": 20}, 0.05),
}


def chosen(dataset: str, metric: str, method: str, protocol: str = "full") -> reference.Published:
    return reference.preferred(reference.published(dataset, metric))[method, protocol]


def test_categories_are_those_of_the_survey() -> None:
    assert list(reference.survey_categories()) == CATEGORIES.split()


@pytest.mark.parametrize("name", TABLES)
def test_table_rows_and_standings(name: str) -> None:
    count, standings, lowest = TABLES[name]
    rows = reference.read(name)
    assert len(rows) == count
    assert Counter(row["status"] for row in rows) == standings
    idents = Counter((row["method"], row.get("variant")) for row in rows)
    assert max(idents.values()) == 1, idents.most_common(1)
    for row in rows:
        cells = [float(row[c]) for c in CATEGORIES.split() if row[c]]
        assert row["note"], f"{row['method']}: no source"
        assert row["avg"], f"{row['method']}: no average"
        assert len(cells) in (0, 14, 15), row["method"]
        assert all(lowest <= value <= 1 for value in [*cells, float(row["avg"])]), row["method"]


@pytest.mark.parametrize("name", TABLES)
def test_mean_of_the_categories_is_the_average(name: str) -> None:
    checked = 0
    for row in reference.read(name):
        cells = [float(row[c]) for c in CATEGORIES.split() if row[c]]
        if len(cells) < 15 or row["status"] == "suspect":
            continue
        average = float(row["avg"])
        two_decimals = all(abs(round(value, 2) - value) < 1e-9 for value in [*cells, average])
        limit = 0.006 if two_decimals else 0.002
        assert sum(cells) / 15 == pytest.approx(average, abs=limit), row["method"]
        checked += 1
    assert checked > 10


def test_every_method_of_a_table_is_known() -> None:
    assert (
        len(reference.methods()) == len(reference.read("methods")) == 128
    )  # an id that repeats would be lost
    used = {row["method"] for name in TABLES for row in reference.read(name)}
    unknown = {ident for ident in used if ident not in reference.methods()}
    assert unknown == {"unresolved_88", "unresolved_146"}
    assert {row["taxonomy"] for row in reference.methods().values()} <= set(reference.TAXONOMIES)
    assert {row["taxonomy"] for name in TABLES for row in reference.read(name)} <= set(reference.TAXONOMIES)


def test_datasets_add_up() -> None:
    assert len(reference.datasets()) == len(reference.read("datasets")) == 24
    for ident, row in reference.datasets().items():
        if row["normal"] and row["abnormal"] and row["total"]:
            assert int(row["normal"]) + int(row["abnormal"]) == int(row["total"]), ident


def test_other_published_values() -> None:
    rows = reference.read("other_published")
    assert len(rows) == 1686
    keys = Counter(tuple(v for k, v in row.items() if k != "value") for row in rows)
    assert max(keys.values()) == 1, keys.most_common(1)
    assert all(0 < float(row["value"]) <= 1 for row in rows)


def test_readme_counts_agree_with_the_files() -> None:
    text = (Path(reference.__file__).parent / "README.md").read_text(encoding="utf-8")
    for name in ("table9_image_auroc", "table10_pixel_auroc", "table10_pixel_aupr", "methods", "datasets"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}.csv`")]
        assert line.endswith(f"| {len(reference.read(name))} |")


def test_published_values_of_known_rows() -> None:
    row = chosen("mvtec", "image_auroc", "patchcore")
    assert (row.values["bottle"], row.values["screw"], row.average, row.standing) == (
        1.0,
        0.990,
        0.992,
        "survey",
    )
    assert (row.title, row.taxonomy, row.in_survey) == ("PatchCore", "memory_bank", True)
    assert chosen("mvtec", "pixel_auroc", "padim").average == 0.975
    spade = chosen("mvtec", "image_auroc", "spade")
    assert (dict(spade.values), spade.average) == ({}, 0.855)
    assert chosen("mvtec", "image_auroc", "somad").standing == "suspect"


def test_survey_rows_come_first_and_in_order() -> None:
    rows = reference.published("mvtec", "image_auroc")
    assert [row.in_survey for row in rows] == [True] * 70 + [False] * (len(rows) - 70)
    assert [row.method for row in rows[:70]] == [
        row["method"] for row in reference.read("table9_image_auroc")
    ]
    assert reference.published("mvtec", "no_such_metric") == ()
    assert reference.published("no_such_set", "image_auroc") == ()


@pytest.mark.parametrize(
    ("method", "variant", "average"),
    [
        ("draem", "original paper", 0.684),
        ("patchcore", "IM-IAD reproduction", 0.561),
        ("stfpm", "DeSTSeg re-evaluation", 0.543),  # with categories, before IM-IAD's average
        ("padim", "quoted by DRAEM", 0.550),  # likewise
        ("cfa", "IM-IAD reproduction", 0.538),
    ],
)
def test_preferred_pixel_aupr(method: str, variant: str, average: float) -> None:
    row = chosen("mvtec", "pixel_aupr", method)
    assert (row.variant, row.average) == (variant, average)


def test_other_rows_by_setting_and_source() -> None:
    mtd = chosen("mtd", "image_auroc", "patchcore")
    assert mtd.average == 0.975
    assert mtd.standing == "other: IM-IAD README, vanilla setting"
    assert chosen("mtd", "image_aupr", "patchcore").average == 0.988  # image_ap there
    assert chosen("mvtec", "image_auroc", "padim").standing.startswith("other: DSR paper Table 3")
    assert chosen("mvtec", "image_auroc", "uniad", "unified").protocol == "unified"
    assert ("uniad", "full") not in reference.preferred(reference.published("mvtec", "image_auroc"))
    assert chosen("mvtec", "image_auroc", "regad", "few_shot-4").average is not None
    assert chosen("mvtec", "image_auroc", "regad", "few_shot-8").in_survey
    assert chosen("mvtec", "image_auroc", "softpatch", "noisy").average is not None
    assert len(chosen("btad", "image_auroc", "patchcore").values) == 3


def test_figures_known_to_be_wrong_are_suspect() -> None:
    assert chosen("mtd", "pixel_aupr", "padim").standing == "suspect"
    rows = reference.published("mvtec", "pixel_auroc")
    misprints = [row for row in rows if "misprint" in row.note and not row.in_survey]
    assert [row.standing for row in misprints] == ["suspect"]


def test_settings_that_compare() -> None:
    full = chosen("mvtec", "image_auroc", "patchcore")
    assert full.comparable("full")
    assert not full.comparable("few_shot-4")
    assert not full.comparable("unified")
    eight = chosen("mvtec", "image_auroc", "regad", "few_shot-8")
    assert eight.comparable("few_shot-8")
    assert not eight.comparable("few_shot-4")
    assert not eight.comparable("few_shot-80")
    supervised = chosen("mvtec", "pixel_auroc", "devnet", "supervised")
    assert supervised.comparable("supervised-10")


def test_readers_hand_out_what_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        reference.methods()["patchcore"]["taxonomy"] = "mine"  # type: ignore[index]
    with pytest.raises(TypeError):
        chosen("mvtec", "image_auroc", "patchcore").values["bottle"] = 0.0  # type: ignore[index]

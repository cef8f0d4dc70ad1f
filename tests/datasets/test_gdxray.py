"""GDXray: series, annotated or not, and boxes in MATLAB's way."""

import shutil

import numpy as np
import pytest

from ad_bench.datasets.gdxray import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import Boxes
from tests.datasets.trees import BOX, described, gdxray

SETTINGS = {"leave_out": ["W0002"], "filled": False}


@pytest.fixture
def tree(tmp_path):
    gdxray.make(tmp_path / "gdxray")
    return tmp_path / "gdxray"


def test_annotated_series_are_listed(tree):
    listed = list(samples(tree, "Castings", **SETTINGS))
    assert [(s.image.name, s.label, s.defect) for s in listed] == [
        ("C0001_0001.png", 1, "defect"),
        ("C0001_0002.png", 1, "defect"),
        ("C0001_0003.png", 0, "good"),
        ("C0001_0004.png", 0, "good"),
        ("C0002_0001.png", 1, "defect"),
        ("C0002_0010.png", 1, "defect"),
    ]
    assert {s.split for s in listed} == {"test"}
    assert listed[0].name == "Castings/C0001/C0001_0001.png"
    assert [s.mask is None for s in listed] == [s.label == 0 for s in listed]


def test_boxes_cover_the_defects(tree):
    for category in ("Castings", "Welds"):
        for sample in samples(tree, category, **SETTINGS):
            mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
            assert mask.sum() == (240 if sample.label else 0)
            assert mask[BOX].all() == bool(sample.label)
            assert decode(sample.image)[mask].min(initial=255) >= 235
            assert sample.mask is None or not sample.mask.filled
    filled = list(samples(tree, "Welds", leave_out=["W0002"], filled=True))
    assert [s.mask.filled for s in filled if s.mask] == [True, True]


def test_several_boxes_swapped_ends_and_blank_lines(tree):
    path = tree / "Castings/C0002/ground_truth.txt"
    path.write_text("1 3 6 2 4\n\n1 9 7 8 6\n  10\t1.5 2.5 1 1  \n")
    first, last = (s for s in samples(tree, "Castings", **SETTINGS) if "C0002" in s.name)
    assert first.mask == Boxes(((2, 1, 6, 4), (6, 5, 9, 8)))
    assert last.mask == Boxes(((0.5, 0, 2.5, 1),))
    mask = read_mask(first.mask, (40, 80), first.name)
    expected = np.zeros((40, 80), bool)
    expected[1:4, 2:6] = expected[5:8, 6:9] = True
    assert np.array_equal(mask, expected)


def test_pictures_of_the_truth_are_left_out(tree):
    assert {s.image.parent.name for s in samples(tree, "Welds", **SETTINGS)} == {"W0001"}
    shutil.copy(tree / "Welds/W0001/ground_truth.txt", tree / "Welds/W0002")
    assert {s.image.parent.name for s in samples(tree, "Welds", **SETTINGS)} == {"W0001"}
    both = samples(tree, "Welds", leave_out=[], filled=False)
    assert {s.image.parent.name for s in both} == {"W0001", "W0002"}


def test_other_files_of_a_series_are_no_images(tree):
    before = list(samples(tree, "Castings", **SETTINGS))
    for name in ("thumbnail.png", "C0001_mean.png", "C0002_0001.png"):
        shutil.copy(tree / "Castings/C0001/C0001_0001.png", tree / "Castings/C0001" / name)
    assert list(samples(tree, "Castings", **SETTINGS)) == before


def test_the_yaml_lets_it_through_without_normal_images(tree):
    made = described("gdxray", tree)
    assert made.available() == ["Castings", "Welds"]
    assert made.input == {"size": [256, 256]}
    assert [len(made.samples(category)) for category in made.categories] == [6, 3]
    report = made.check("Castings", deep=True)
    assert report.ok, report.problems
    assert (report.found["train"], report.found["test_normal"], report.found["test_anomalous"]) == (0, 2, 4)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ("1 2 3 4\n", r"ground_truth\.txt, line 1: '1 2 3 4'; wanted five numbers"),
        ("1 2 3 4 5\n1 2 3 4 x\n", r"line 2: '1 2 3 4 x'; wanted five numbers"),
        ("nan 2 3 4 5\n", "line 1: 'nan 2 3 4 5'; wanted five numbers"),
        ("7 2 3 4 5\n", r"has boxes for image 7, but there is no .*C0001_0007\.png \(4 images are there\)"),
    ],
)
def test_a_table_that_does_not_fit(tree, rows, error):
    (tree / "Castings/C0001/ground_truth.txt").write_text(rows)
    with pytest.raises(DataError, match=error):
        list(samples(tree, "Castings", **SETTINGS))


def test_other_layouts_are_described(tree):
    with pytest.raises(CategoryMissing, match=r"no group 'castings' at .*entries: Baggages/, Castings/"):
        list(samples(tree, "castings", **SETTINGS))
    for path in (tree / "Castings").rglob("ground_truth.txt"):
        path.unlink()
    with pytest.raises(DataError, match=r"no series of .*Castings \(3 entries.* has a ground_truth\.txt"):
        list(samples(tree, "Castings", **SETTINGS))

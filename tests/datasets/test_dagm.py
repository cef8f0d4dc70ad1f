"""DAGM 2007: both distributions, label images and ellipses."""

import shutil

import pytest

from ad_bench.datasets.dagm import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError, UsageError
from ad_bench.samples import Ellipses
from tests.datasets.trees import BOX, dagm, described

SETTINGS = {"train_share": 0.5, "split_seed": 0, "mask_above": 0}


@pytest.fixture
def tree(tmp_path):
    dagm.make(tmp_path)
    return tmp_path


@pytest.mark.parametrize("category", ["Class1", "Class10"])
def test_every_image(tree, category):
    listed = list(samples(tree, category, **SETTINGS))
    half = [0, 0, 0, 0, 1, 1]
    assert [(s.split, s.label) for s in listed] == [("train", x) for x in half] + [("test", x) for x in half]
    assert listed[6].name == f"{category}/Test/0001.PNG"
    for sample in (s for s in listed if s.label):
        pixels = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert (pixels[BOX].all(), pixels.sum()) == (True, 240)


def test_missing_label_image(tree):
    (tree / "Class1/Test/Label/0006_label.PNG").unlink()
    with pytest.raises(DataError, match=r"no mask for .*Test/0006\.PNG; looked for .*Label/0006_label\.PNG"):
        list(samples(tree, "Class1", **SETTINGS))
    shutil.rmtree(tree / "Class1/Train/Label")
    with pytest.raises(DataError, match=r"no folder Label in .*Class1/Train .*unpack the archive again"):
        list(samples(tree, "Class1", **SETTINGS))


def test_labels_txt_may_be_absent(tree):
    before = list(samples(tree, "Class1", **SETTINGS))
    (tree / "Class1/Test/Label/Labels.txt").unlink()
    assert list(samples(tree, "Class1", **SETTINGS)) == before


def test_other_layouts_are_described(tree):
    with pytest.raises(CategoryMissing, match=r"no category 'Class3' at .*Class3 \(4 entries: Class1/"):
        list(samples(tree, "Class3", **SETTINGS))
    for half in ("Train", "Test"):
        (tree / "Class1" / half).rename(tree / "Class1" / f"{half}ing")
    with pytest.raises(DataError, match=r"neither Train and Test in .*Class1 .* nor a folder Class1_def"):
        list(samples(tree, "Class1", **SETTINGS))


def test_competition_split(tree):
    listed = list(samples(tree, "Class2", **SETTINGS))
    assert [(s.split, s.label) for s in listed] == (
        [("train", 0)] * 5 + [("train", 1)] * 2 + [("test", 0)] * 5 + [("test", 1)] * 2
    )
    for split in ("train", "test"):
        names = [s.name for s in listed if s.split == split]
        assert names == sorted(names)
    # Written down once: no version of Python or numpy may move an image to the other side.
    names = [*(f"Class2/{number}.png" for number in (3, 4, 5, 6, 8)), "Class2_def/2.png", "Class2_def/4.png"]
    assert [s.name for s in listed if s.split == "train"] == names


def test_competition_ellipses(tree):
    found = {s.image.stem: s for s in samples(tree, "Class2", **SETTINGS) if s.label}
    assert found["1"].mask == Ellipses(((26.0, 18.0, 12.5, 4.0, 0.0),))
    wide, high = (read_mask(found[n].mask, (48, 64), "") for n in ("1", "2"))
    assert (wide[18, 15], wide[7, 26], high[18, 15], high[7, 26]) == (True, False, False, True)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("1\t12\t4\t0\t30\n", r"labels\.txt, line 1 is '1\t12.*wanted the image's number"),
        ("1\t12\tbig\t0\t30\t20\n", r"line 1 is"),
        ("1\t12\t4\t0\t30\t20\n", r"no line for .*Class2_def/2\.png in .*labels\.txt"),
    ],
)
def test_competition_broken_table(tree, table, error):
    (tree / "Class2_def/labels.txt").write_text(table)
    with pytest.raises(DataError, match=error):
        list(samples(tree, "Class2", **SETTINGS))


def test_competition_without_table(tree):
    (tree / "Class2_def/labels.txt").unlink()
    with pytest.raises(DataError, match=r"no labels\.txt in .*Class2_def"):
        list(samples(tree, "Class2", **SETTINGS))


@pytest.mark.parametrize("share", [0, 1, 50])
def test_share_out_of_range(tree, share):
    with pytest.raises(UsageError, match="train_share is a share"):
        list(samples(tree, "Class1", **(SETTINGS | {"train_share": share})))


def test_published_counts(tree):
    report = described("dagm", tree).check("Class10")
    assert "'Class10' should have 1150 train images (published counts); found 6" in report.problems

"""Severstal: both tables of runs, the drawn split, and tables that are refused."""

import numpy as np
import pytest

from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.severstal import samples
from ad_bench.errors import CategoryMissing, DataError, UsageError
from ad_bench.samples import RunLengths
from tests.datasets.trees import BOX, described
from tests.datasets.trees.severstal import DEFECTS, NORMAL, SIZE, make, make_old

SPLIT = {"train_share": 0.8, "split_seed": 0}


def test_split(tmp_path):
    make(tmp_path)
    listed = list(samples(tmp_path, "severstal", **SPLIT))
    train = [s for s in listed if s.split == "train"]
    test = [s for s in listed if s.split == "test"]
    assert listed == train + test
    assert sum(s.split == "train" for s in samples(tmp_path, "severstal", 0.78, 0)) == 8  # rounded
    assert (len(train), sum(s.label == 0 for s in test), sum(s.label for s in test)) == (8, 2, 4)
    assert all(s.label == 0 and s.mask is None for s in train)
    for part in (train, test):
        assert [s.name for s in part] == sorted(s.name for s in part)
    assert {s.name for s in listed} == {f"train_images/{name}" for name in [*NORMAL, *DEFECTS]}
    assert {s.image.name: s.defect for s in test if s.label} == {
        "0002cc93b.jpg": "class_1",
        "0007a71bf.jpg": "class_3",
        "000a4bcdd.jpg": "class_1+class_3",
        "000f6bf48.jpg": "class_4",
    }


def test_split_is_pinned(tmp_path):
    # Written down once: no version of Python or numpy may move an image to the other side.
    def held_out(seed: int) -> set[str]:
        listed = samples(tmp_path, "severstal", train_share=0.8, split_seed=seed)
        return {s.image.stem[-1] for s in listed if s.split == "test" and s.label == 0}

    make(tmp_path)
    assert held_out(0) == {"0", "1"}
    assert held_out(2) == {"1", "6"}


def test_both_tables_say_the_same(tmp_path):
    make(tmp_path / "new")
    make_old(tmp_path / "old")
    new, old = (
        [(s.name, s.split, s.label, s.defect, s.mask) for s in samples(tmp_path / part, "severstal", **SPLIT)]
        for part in ("new", "old")
    )
    assert new == old


def test_runs_go_down_the_columns(tmp_path):
    make(tmp_path)
    by_name = {s.image.name: s for s in samples(tmp_path, "severstal", **SPLIT)}
    whole, left, right = np.zeros((3, *SIZE), bool)
    whole[BOX] = True
    left[12:24, 16:26] = right[12:24, 26:36] = True
    masks = {"0002cc93b.jpg": left, "0007a71bf.jpg": right, "000a4bcdd.jpg": whole, "000f6bf48.jpg": whole}
    for name, wanted in masks.items():
        np.testing.assert_array_equal(read_mask(by_name[name].mask, SIZE, name), wanted)
    # The first row of the true table: rows 174 to 185 of column 114, counted from 1, of an image 256 high.
    sample = RunLengths(((29102, 12),))
    rows, columns = np.nonzero(read_mask(sample, (256, 1600), "0002cc93b.jpg"))
    assert (rows.min() + 1, rows.max() + 1, set(columns + 1)) == (174, 185, {114})


def test_counts(tmp_path):
    make(tmp_path)
    dataset = described("severstal", tmp_path)
    counts = dataset.counts["severstal"]
    assert counts["train"] == round(0.8 * 5902)
    assert sum(counts.values()) == 12568
    report = dataset.check("severstal", deep=True)
    assert "'severstal' should have 4722 train images (published counts); found 8" in report.problems
    assert len(report.problems) == 3  # each count, and nothing else


def test_missing_parts(tmp_path):
    make(tmp_path)
    (tmp_path / "train_images/000f6bf48.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 images of .*train\.csv are not in .*, first 000f6bf48\.jpg; unpack"
    ):
        list(samples(tmp_path, "severstal", **SPLIT))
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DataError, match=r"no .*train\.csv \(3 entries: .*\); it says what is a defect"):
        list(samples(tmp_path, "severstal", **SPLIT))
    (tmp_path / "train_images").rename(tmp_path / "train")
    with pytest.raises(
        CategoryMissing, match=r"no folder train_images in .*train/\); it belongs beside train\.csv"
    ):
        list(samples(tmp_path, "severstal", **SPLIT))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "",
            r"train\.csv has the columns \(none\); wanted ImageId, ClassId, EncodedPixels or ImageId_ClassId",
        ),
        ("Image,Pixels\n", r"train\.csv has the columns Image, Pixels; wanted"),
        ("ImageId,ClassId,EncodedPixels\n0002cc93b.jpg,1\n", r"row 2 has 2 cells; wanted 3"),
        (
            "ImageId,ClassId,EncodedPixels\n0002cc93b.jpg,5,1 1\n",
            r"row 2 is image '0002cc93b.jpg', class '5'",
        ),
        (
            "ImageId,ClassId,EncodedPixels\n0002cc93b.jpg,1,1 1\n0002cc93b.jpg,1,9 1\n",
            r"row 3 is image .*one row",
        ),
        ("ImageId_ClassId,EncodedPixels\n0002cc93b.jpg,1 1\n", r"row 2 is image '', class '0002cc93b\.jpg'"),
        ("ImageId,ClassId,EncodedPixels\n0002cc93b.jpg,1,1 1 9\n", r"row 2 has 3 numbers; wanted pairs"),
        (
            "ImageId,ClassId,EncodedPixels\n0002cc93b.jpg,1,1 x\n",
            r"row 2: invalid literal .* wanted whole numbers",
        ),
        ('ImageId,ClassId,EncodedPixels\n"0002cc93b.jpg,1,1 1\n', r"train\.csv is no CSV table"),
    ],
)
def test_wrong_tables(tmp_path, table, said):
    make(tmp_path)
    (tmp_path / "train.csv").write_text(table)
    with pytest.raises(DataError, match=said):
        list(samples(tmp_path, "severstal", **SPLIT))


@pytest.mark.parametrize("share", [0, 1, 80])
def test_share_out_of_range(tmp_path, share):
    make(tmp_path)
    with pytest.raises(UsageError, match="train_share is a share"):
        list(samples(tmp_path, "severstal", train_share=share, split_seed=0))

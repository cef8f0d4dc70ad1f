"""VisA: the official split file, the rearranged copy, and what is said of damaged ones."""

import shutil

import numpy as np
import pytest
import yaml

from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.visa import samples
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import NORMAL
from tests.datasets.test_mvtec import CONF
from tests.datasets.trees import BOX, described
from tests.datasets.trees.visa import make, make_rearranged


def test_official_split(tmp_path):
    make(tmp_path)
    listed = list(samples(tmp_path, "candle"))
    assert [(s.split, s.name) for s in listed] == [
        ("train", "candle/Data/Images/Normal/0000.JPG"),
        ("train", "candle/Data/Images/Normal/0001.JPG"),
        ("train", "candle/Data/Images/Normal/0003.JPG"),
        ("train", "candle/Data/Images/Normal/0005.JPG"),
        ("test", "candle/Data/Images/Anomaly/000.JPG"),
        ("test", "candle/Data/Images/Anomaly/001.JPG"),
        ("test", "candle/Data/Images/Normal/0002.JPG"),
        ("test", "candle/Data/Images/Normal/0004.JPG"),
    ]
    assert [(s.label, s.defect) for s in listed[4:]] == [(1, "bad")] * 2 + [(0, "good")] * 2
    assert all(s.mask is None for s in listed if s.label == NORMAL)
    assert all(s.image == tmp_path / s.name for s in listed)


@pytest.mark.parametrize("category", ["candle", "pipe_fryum"])  # masks of the values 1 and 2
def test_any_kind_of_defect_is_one(tmp_path, category):
    make(tmp_path)
    defects = [s for s in samples(tmp_path, category) if s.label]
    wanted = np.zeros((48, 64), bool)
    wanted[BOX] = True
    for sample in defects:
        np.testing.assert_array_equal(read_mask(sample.mask, (48, 64), sample.name), wanted)


def test_rearranged_copy(tmp_path):
    make_rearranged(tmp_path)
    for root, prefix in ((tmp_path, "1cls/"), (tmp_path / "1cls", "")):
        listed = list(samples(root, "candle"))
        assert [s.name for s in listed][2:5] == [
            f"{prefix}candle/train/good/0002.JPG",
            f"{prefix}candle/test/bad/000.JPG",
            f"{prefix}candle/test/bad/001.JPG",
        ]
        assert all(root / s.name == s.image for s in listed)
        assert [s.mask.paths[0].name for s in listed if s.label] == ["000.png", "001.png"]


def test_missing_masks_and_images(tmp_path):
    make(tmp_path)
    (tmp_path / "candle/Data/Masks/Anomaly/001.png").unlink()
    with pytest.raises(DataError, match=r"'candle': no mask for .*Anomaly/001\.JPG; looked for .*001\.png"):
        list(samples(tmp_path, "candle"))
    (tmp_path / "candle/Data/Images/Normal/0003.JPG").unlink()
    with pytest.raises(DataError, match=r"1 images of .*1cls\.csv are not there, first .*0003\.JPG; unpack"):
        list(samples(tmp_path, "candle"))
    assert len(list(samples(tmp_path, "pipe_fryum"))) == 8  # a damaged category hides no other


def test_without_the_split_file(tmp_path):
    make(tmp_path)
    shutil.rmtree(tmp_path / "split_csv")
    with pytest.raises(
        DataError, match=r"no .*split_csv/1cls\.csv, .* copy split_csv from VisA's repository"
    ):
        list(samples(tmp_path, "candle"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("object,split", "category,part", r"1cls\.csv has the columns category, part, label, image, mask"),
        ("candle,train,normal", "candle,validation,normal", r"row 2 has the split 'validation'"),
        (",normal,candle", ",good,candle", r"row 2 has .* the label 'good'; wanted train or test"),
        ("candle/Data/Images/Normal/0003", "../../secret", r"row 2 names the file '\.\./\.\./secret\.JPG'"),
        ("candle/Data/Images/Normal/0003", "/etc/secret", r"row 2 names the file '/etc/secret\.JPG'"),
        ("0003.JPG,", "0003.JPG", r"row 2 has 4 cells; wanted 5"),
    ],
)
def test_wrong_tables(tmp_path, old, new, said):
    make(tmp_path)
    table = tmp_path / "split_csv" / "1cls.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=said):
        list(samples(tmp_path, "candle"))


def test_other_layouts(tmp_path):
    make(tmp_path)
    with pytest.raises(CategoryMissing, match=r"no category 'pcb1' at .*pcb1 \(3 entries: candle/"):
        list(samples(tmp_path, "pcb1"))
    (tmp_path / "candle/Data").rename(tmp_path / "candle/data")
    with pytest.raises(DataError, match=r"no folder Data in .*candle \(2 entries: data/, image_anno\.csv\)"):
        list(samples(tmp_path, "candle"))


def test_counts(tmp_path):
    config = yaml.safe_load((CONF / "visa.yaml").read_text())
    assert list(config["counts"]) == config["categories"]
    totals = {key: sum(c[key] for c in config["counts"].values()) for key in config["counts"]["candle"]}
    assert totals == {"train": 8659, "test_normal": 962, "test_anomalous": 1200}
    make(tmp_path)
    dataset = described("visa", tmp_path)
    assert dataset.available() == ["candle", "pipe_fryum"]
    problems = " ".join(dataset.check("candle").problems)
    assert "'candle' should have 900 train images (published counts); found 4" in problems

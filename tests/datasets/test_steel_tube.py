"""Steel pipe welds: YOLO's shares and VOC's corners become boxes; no normal images."""

import numpy as np
import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.steel_tube import samples
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, Boxes
from tests.datasets.trees import BOX, described, image
from tests.datasets.trees.neu import annotation
from tests.datasets.trees.steel_tube import make

YOLO = "steel-tube-dataset-all/yolo"


def test_layout(tmp_path):
    make(tmp_path)
    listed = list(samples(tmp_path, "steel_tube", filled=False))
    assert [(s.name, s.defect) for s in listed] == [
        (f"{YOLO}/images/train2021/air-hole1-13.jpg", "air-hole"),
        (f"{YOLO}/images/train2021/broken-arc3(air-hole)-282.jpg", "air-hole+broken-arc"),
        (f"{YOLO}/images/train2021/crack043.jpg", "crack"),
        (f"{YOLO}/images/val2021/air-hole10-026.jpg", "air-hole"),
        (f"{YOLO}/images/val2021/unfused29.jpg", "unfused"),
    ]
    assert {(s.split, s.label) for s in listed} == {("test", ANOMALOUS)}
    assert [len(s.mask.boxes) for s in listed] == [1, 2, 1, 2, 1]
    assert not any(s.mask.filled for s in listed)


def test_shares_are_of_each_images_own_size(tmp_path):
    make(tmp_path)
    sizes = set()
    for sample in samples(tmp_path, "steel_tube", filled=True):
        height, width = decode(sample.image).shape[:2]
        sizes.add((height, width))
        for box in sample.mask.boxes:
            np.testing.assert_allclose(box, (16, 12, 36, 24), atol=1e-3)
        inner = read_mask(sample.mask, (height, width), sample.name)[BOX]
        assert inner.all()
    assert len(sizes) == 3


def test_voc_half(tmp_path):
    image(tmp_path / "JPEGImages" / "overlap089.jpg", defect=True)
    annotation(tmp_path / "Annotations" / "overlap089.xml", "overlap")
    (sample,) = samples(tmp_path, "steel_tube", filled=True)
    assert (sample.name, sample.defect) == ("JPEGImages/overlap089.jpg", "overlap")
    assert sample.mask == Boxes(((16, 12, 36, 24),), filled=True)


def test_no_box_is_normal(tmp_path):
    make(tmp_path)
    (tmp_path / YOLO / "labels/train2021/crack043.txt").write_text("\n")
    by_name = {s.image.stem: s for s in samples(tmp_path, "steel_tube", filled=False)}
    assert (by_name["crack043"].label, by_name["crack043"].mask) == (0, None)


def test_counts(tmp_path):
    make(tmp_path)
    report = described("steel_tube", tmp_path).check("steel_tube", deep=True)
    assert report.problems == (
        "'steel_tube' should have 3408 test_anomalous images (published counts); found 5",
    )


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (
            "8 0.5 0.5 0.1 0.1",
            r"crack043\.txt, line 1 is '8 0\.5 0\.5 0\.1 0\.1'; wanted a defect from 0 to 7",
        ),
        ("-1 0.5 0.5 0.1 0.1", "line 1 is '-1 "),
        ("3 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.1", "line 2 is '3 0.5 0.5 0.1'"),
        ("3 0.5 0.5 0 0.1", "line 1 is"),
        ("3 nan 0.5 0.1 0.1", "line 1 is"),
        ("crack 0.5 0.5 0.1 0.1", "line 1 is 'crack"),
    ],
)
def test_wrong_labels(tmp_path, label, said):
    make(tmp_path)
    (tmp_path / YOLO / "labels/train2021/crack043.txt").write_text(label)
    with pytest.raises(DataError, match=said):
        list(samples(tmp_path, "steel_tube", filled=False))


def test_missing_labels_and_broken_images(tmp_path):
    make(tmp_path)
    picture = tmp_path / YOLO / "images/val2021/unfused29.jpg"
    picture.write_bytes(b"<html>")
    with pytest.raises(
        DataError, match=r"cannot read the size of .*unfused29\.jpg: .*; fetch the file again"
    ):
        list(samples(tmp_path, "steel_tube", filled=False))
    (tmp_path / YOLO / "labels/val2021/unfused29.txt").unlink()
    with pytest.raises(DataError, match=r"no annotation for .*unfused29\.jpg; looked for .*unfused29\.txt"):
        list(samples(tmp_path, "steel_tube", filled=False))


def test_other_layouts(tmp_path):
    (tmp_path / "json").mkdir()
    with pytest.raises(
        CategoryMissing, match=r"no steel pipe welds in .* \(1 entries: json/\); .*yolo/images"
    ):
        list(samples(tmp_path, "steel_tube", filled=False))

"""SSGD: COCO boxes of two parts; images without a box, and files that are refused."""

import json

import numpy as np
import pytest

from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.ssgd import samples
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, Boxes
from tests.datasets.trees import BOX, described
from tests.datasets.trees.ssgd import SIZE, make


def changed(root, **content):
    """lb101.json with some keys replaced."""
    path = root / "annotations_lb101" / "lb101.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def test_layout(tmp_path):
    make(tmp_path)
    listed = list(samples(tmp_path, "ssgd", filled=False))
    assert [(s.name, s.defect) for s in listed] == [
        ("lb101/lb101_0001.jpg", "crack"),
        ("lb101/lb101_0002.jpg", "scratch"),
        ("lb101/lb101_0003.jpg", "crack+scratch"),
        ("lb201/lb201_0001.jpg", "broken-membrane"),
        ("lb201/lb201_0002.jpg", "spot"),
    ]
    assert {(s.split, s.label) for s in listed} == {("test", ANOMALOUS)}
    assert listed[4].mask == Boxes(((16, 12, 36, 24), (16, 12, 36, 24)), filled=False)


def test_boxes_become_their_pixels(tmp_path):
    make(tmp_path)
    wanted = np.zeros(SIZE, bool)
    wanted[BOX] = True
    for sample in samples(tmp_path, "ssgd", filled=True):
        np.testing.assert_array_equal(read_mask(sample.mask, SIZE, sample.name), wanted)


def test_no_box_is_normal(tmp_path):
    make(tmp_path)
    changed(tmp_path, annotations=[])
    listed = list(samples(tmp_path, "ssgd", filled=False))
    assert [(s.label, s.mask, s.defect) for s in listed[:3]] == [(0, None, "good")] * 3
    assert {s.split for s in listed} == {"test"}
    assert all(s.label for s in listed[3:])


def test_archive_folder_may_stay(tmp_path):
    make(tmp_path / "SSGD")
    assert next(iter(samples(tmp_path, "ssgd", filled=False))).name == "SSGD/lb101/lb101_0001.jpg"


def test_counts(tmp_path):
    make(tmp_path)
    dataset = described("ssgd", tmp_path)
    assert len(dataset.samples("ssgd")) == 5
    assert dataset.check("ssgd").problems == (
        "'ssgd' should have 2504 test images (published counts); found 5",
    )


def test_missing_parts(tmp_path):
    make(tmp_path)
    (tmp_path / "lb201/lb201_0002.jpg").unlink()
    with pytest.raises(DataError, match=r"no image .*lb201_0002\.jpg, which .*lb201\.json names; unpack"):
        list(samples(tmp_path, "ssgd", filled=False))
    (tmp_path / "annotations_lb201/lb201.json").rename(tmp_path / "annotations_lb201/all.json")
    with pytest.raises(DataError, match=r"no .*annotations_lb201/lb201\.json \(4 entries: .*unpack both"):
        list(samples(tmp_path, "ssgd", filled=False))


def test_other_layouts(tmp_path):
    (tmp_path / "images_lb101").mkdir()
    with pytest.raises(
        CategoryMissing, match=r"no SSGD in .* \(1 entries: images_lb101/\); that folder should"
    ):
        list(samples(tmp_path, "ssgd", filled=False))


BOX_OF_2 = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"annotations": [{"image_id": 1, "category_id": 1}]},
            r"lb101\.json is not as COCO's .*KeyError: 'bbox'",
        ),
        ({"annotations": [BOX_OF_2 | {"image_id": 9}]}, "KeyError: 9"),
        ({"annotations": [BOX_OF_2 | {"category_id": 9}]}, "KeyError: 9"),
        ({"annotations": [BOX_OF_2 | {"bbox": [1, 1, 0, 2]}]}, r"the bbox \[1, 1, 0, 2\] has no area"),
        ({"annotations": [BOX_OF_2 | {"bbox": [1, 1]}]}, "ValueError"),
        ({"annotations": 7}, "TypeError"),
        (
            {"images": [{"id": 1, "file_name": "../../x.jpg"}], "annotations": []},
            r"names the file '\.\./\.\./x",
        ),
    ],
)
def test_wrong_annotations(tmp_path, content, said):
    make(tmp_path)
    changed(tmp_path, **content)
    with pytest.raises(DataError, match=said):
        list(samples(tmp_path, "ssgd", filled=False))


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[]", "holds list; wanted a JSON object")])
def test_no_json_object(tmp_path, text, said):
    make(tmp_path)
    (tmp_path / "annotations_lb101/lb101.json").write_text(text)
    with pytest.raises(DataError, match=said):
        list(samples(tmp_path, "ssgd", filled=False))

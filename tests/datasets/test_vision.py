"""VISION: COCO outlines, splits without a normal image, and what is said of another layout."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.vision import samples
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX
from tests.datasets.trees.vision import make

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def changed(root: Path, change) -> None:
    path = root / "Ring/val/_annotations.coco.json"
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def test_splits_and_defects(root):
    listed = list(samples(root, "Ring"))
    assert [s.name for s in listed] == [
        f"Ring/{split}/{index:06}.jpg" for split in ("train", "val") for index in range(4)
    ]
    assert [s.split for s in listed] == ["train"] * 4 + ["test"] * 4
    assert Counter(s.defect for s in listed) == {
        "contamination": 4,
        "unfinished_surface": 2,
        "contamination+unfinished_surface": 2,
    }


def test_outlines_become_pixels(root):
    for sample in samples(root, "Casting"):
        pixels = read_mask(sample.mask, (48, 64), sample.name)
        assert pixels[BOX].all()
        assert pixels.sum() == pixels[BOX].size
    assert len(sample.mask.polygons) == 2  # one of each kind on the last image


def test_an_image_without_a_defect_is_normal_and_a_line_encloses_nothing(root):
    def change(coco):
        coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] != 1]
        coco["annotations"][0]["segmentation"].append([1, 1, 9, 9])

    changed(root, change)
    listed = {s.name: s for s in samples(root, "Ring")}
    normal, marked = listed["Ring/val/000001.jpg"], listed["Ring/val/000000.jpg"]
    assert (normal.label, normal.defect, normal.mask) == (0, "good", None)
    assert len(marked.mask.polygons) == 1


def test_another_name_of_the_only_json_file(root):
    before = list(samples(root, "Ring"))
    path = root / "Ring/val/_annotations.coco.json"
    path.rename(path.with_name("val.json"))
    assert list(samples(root, "Ring")) == before
    (root / "Ring/val/other.json").write_text("{}")
    with pytest.raises(DataError, match=r"no _annotations\.coco\.json in .*Ring/val, and 2 other JSON files"):
        list(samples(root, "Ring"))


def test_other_layouts_are_described(root):
    with pytest.raises(CategoryMissing, match=r"no category 'Wood' at .*Wood \(.*Casting/, Ring/\)"):
        list(samples(root, "Wood"))
    (root / "Ring/val").rename(root / "Ring/valid")
    with pytest.raises(
        DataError, match=r"no folder val in .*Ring \(.*valid/\); .*unpack Ring\.tar\.gz again"
    ):
        list(samples(root, "Ring"))


def test_lost_images_are_named(root):
    for index in (0, 2):
        (root / f"Ring/val/{index:06}.jpg").unlink()
    with pytest.raises(DataError, match=r"lists .*Ring/val/000000\.jpg and 1 more, which is not there"):
        list(samples(root, "Ring"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda coco: coco.pop("images"), r"no COCO file \(KeyError: 'images'\)"),
        (lambda coco: coco["annotations"][0].update(category_id=9), r"no COCO file \(KeyError: 9\)"),
        (
            lambda coco: coco["annotations"][0].update(segmentation={"counts": []}),
            "has a dict as segmentation",
        ),
    ],
)
def test_other_files_are_no_coco_files(root, change, said):
    changed(root, change)
    with pytest.raises(DataError, match=said):
        list(samples(root, "Ring"))


def test_a_broken_json_file_is_named(root):
    (root / "Ring/train/_annotations.coco.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot read .*Ring/train/_annotations\.coco\.json"):
        list(samples(root, "Ring"))


def test_counts_and_what_cannot_be_measured(root):
    made = DataSet.from_config(yaml.safe_load((CONF / "vision.yaml").read_text()) | {"root": str(root)})
    assert made.available() == ["Casting", "Ring"]
    report = made.check("Casting")
    assert [text.split(" (")[0] for text in report.problems] == [
        "'Casting' should have 108 train images",
        "'Casting' should have 102 test_anomalous images",
    ]
    assert "'Casting' has no normal test images; AUROC and AUPR are undefined" in report.warnings

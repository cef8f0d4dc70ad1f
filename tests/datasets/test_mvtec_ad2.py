"""MVTec AD 2: the three public splits, what stays out, and what is said of another layout."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.mvtec_ad2 import samples
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX
from tests.datasets.trees.mvtec_ad2 import make

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def test_splits_and_what_is_private(root):
    listed = list(samples(root, "can"))
    assert Counter((s.split, s.defect) for s in listed) == {
        ("train", "good"): 3,
        ("validation", "good"): 2,
        ("test", "bad"): 2,
        ("test", "good"): 2,
    }
    assert not [s for s in listed if "private" in s.name]
    assert [s.name for s in listed if s.label] == [
        "can/test_public/bad/000_overexposed.png",
        "can/test_public/bad/000_regular.png",
    ]
    assert all(s.image == root / s.name for s in listed)


@pytest.mark.parametrize("category", ["can", "vial"])
def test_masks(root, category):
    for sample in samples(root, category):
        if sample.label:
            pixels = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
            assert pixels[BOX].all()
            assert pixels.sum() == pixels[BOX].size
        else:
            assert sample.mask is None


def test_the_folder_of_the_archive_will_do(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outer")
    root.rename(outside / "mvtec_ad_2")
    names = [sample.name for sample in samples(outside, "vial")]
    assert len(names) == 9
    assert names[0] == "mvtec_ad_2/vial/train/good/000_regular.png"


def test_a_lost_mask_is_named(root):
    (root / "can/test_public/ground_truth/bad/000_regular_mask.png").unlink()
    with pytest.raises(DataError, match=r"bad/000_regular\.png; looked for .*bad/000_regular_mask\.png"):
        list(samples(root, "can"))


def test_other_layouts_are_described(root):
    with pytest.raises(CategoryMissing, match=r"no category 'rice' at .*rice \(.*can/, .*test_public"):
        list(samples(root, "rice"))
    (root / "can/test_public").rename(root / "can/test")
    with pytest.raises(DataError, match=r"no folder test_public in .*can \(.*use dataset=mvtec"):
        list(samples(root, "can"))


def test_counts_are_the_published_ones(root):
    node = yaml.safe_load((CONF / "mvtec_ad2.yaml").read_text())
    assert list(node["counts"]) == node["categories"]
    keys = ("train", "validation", "test_normal", "test_anomalous")
    totals = tuple(sum(counts[key] for counts in node["counts"].values()) for key in keys)
    assert totals == (2528, 302, 379, 705)
    made = DataSet.from_config(node | {"root": str(root)})
    assert made.available() == ["can", "vial"]
    problems = made.check("can").problems
    assert [text.split(" (")[0] for text in problems] == [
        "'can' should have 412 train images",
        "'can' should have 46 validation images",
        "'can' should have 72 test_normal images",
        "'can' should have 90 test_anomalous images",
    ]

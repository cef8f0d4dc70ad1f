"""AeBAD: four test domains over one training set, the videos, and what is said of a damaged copy."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from ad_bench.datasets.aebad import samples, videos
from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX
from tests.datasets.trees.aebad import DEFECTS, DOMAINS, make

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.fixture
def blades(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def test_domains_share_one_training_set(blades):
    trained = []
    for domain in DOMAINS:
        listed = list(samples(blades, domain, mask_above=0))
        train, test = ([s for s in listed if s.split == split] for split in ("train", "test"))
        trained.append([sample.name for sample in train])
        assert Counter(s.defect for s in test) == {"good": 2, **dict.fromkeys(DEFECTS, 1)}
        assert all(s.name.split("/")[3] == domain for s in test)
        assert {s.category for s in listed} == {domain}
        assert [s.name for s in test] == sorted(s.name for s in test)
    assert trained.count(trained[0]) == 4
    assert trained[0] == [
        f"AeBAD_S/train/good/{domain}/IMG_{7100 + index}.png"
        for domain in ("background", "illumination", "view")
        for index in range(2)
    ]


def test_masks_have_the_name_of_their_image(blades):
    for sample in samples(blades, "view", mask_above=0):
        if sample.label:
            (path,) = sample.mask.paths
            assert path == blades / sample.name.replace("/test/", "/ground_truth/")
            pixels = read_mask(sample.mask, (48, 64), sample.name)
            assert pixels[BOX].all()
            assert pixels.sum() == pixels[BOX].size
        else:
            assert sample.mask is None


def test_videos_have_labels_and_no_masks(blades):
    listed = list(videos(blades, "video2"))
    assert Counter((s.split, s.defect) for s in listed) == {
        ("train", "good"): 6,  # the frames of both training videos
        ("test", "good"): 2,
        ("test", "anomaly"): 2,
    }
    assert all(s.mask is None and s.name.startswith("AeBAD_V/") for s in listed)
    assert {s.name.split("/")[2] for s in listed if s.split == "test"} == {"video2"}
    with pytest.raises(CategoryMissing, match=r"no folder video3 in .*test \(2 entries: video1/, video2/\)"):
        list(videos(blades, "video3"))


def test_a_lost_mask_is_named(blades):
    (blades / "AeBAD_S/ground_truth/groove/same/IMG_5203.png").unlink()
    with pytest.raises(
        DataError, match=r"'same': no mask .*test/groove/same/IMG_5203\.png; looked for .*truth"
    ):
        list(samples(blades, "same", mask_above=0))
    assert len(list(samples(blades, "view", mask_above=0))) == 12  # the other domains are whole


def test_other_roots_and_spellings_are_described(blades):
    with pytest.raises(
        CategoryMissing, match=r"no folder AeBAD_S in .*AeBAD_S \(3 entries: ground_truth/.*root"
    ):
        list(samples(blades / "AeBAD_S", "same", mask_above=0))
    for folder in DEFECTS + ("good",):
        (blades / "AeBAD_S/test" / folder / "illumination").rename(blades / "AeBAD_S/test" / folder / "light")
    with pytest.raises(CategoryMissing, match=r"no folder illumination .*test/<defect>/illumination/\*\.png"):
        list(samples(blades, "illumination", mask_above=0))
    (blades / "AeBAD_S/train/good").rename(blades / "AeBAD_S/train/ok")
    with pytest.raises(DataError, match=r"no folder .*train/good \(.*ok/\); .* unpack the archive again"):
        list(samples(blades, "same", mask_above=0))


def test_the_check_says_what_is_missing(blades):
    node = yaml.safe_load((CONF / "aebad.yaml").read_text())
    node["samples"] = {"_target_": "ad_bench.datasets.aebad.samples", "_partial_": True, "mask_above": 0}
    made = DataSet.from_config(node | {"root": str(blades), "title": "AeBAD-S"})
    assert made.available() == node["categories"]
    report = made.check("view")
    assert report.problems == ("'view' should have 521 train images (published counts); found 6",)

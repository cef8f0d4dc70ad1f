"""The MVTec layout: what is listed, in which order, and what is said of a damaged copy."""

from pathlib import Path

import pytest
import yaml

from ad_bench.datasets.mvtec import samples
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import MaskFiles

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()  # an adapter opens no pixel: empty files do


def test_layout(tmp_path):
    touch(
        tmp_path,
        "nut/train/good/001.png",
        "nut/train/good/000.png",
        "nut/test/good/000.png",
        "nut/test/bent/000.png",
        "nut/ground_truth/bent/000_mask.png",
        "nut/readme.txt",
        "nut/test/bent/notes.txt",
    )
    listed = list(samples(tmp_path, "nut"))
    assert [s.name for s in listed] == [
        "nut/train/good/000.png",
        "nut/train/good/001.png",
        "nut/test/bent/000.png",
        "nut/test/good/000.png",
    ]
    assert [(s.split, s.label, s.defect) for s in listed] == [
        ("train", 0, "good"),
        ("train", 0, "good"),
        ("test", 1, "bent"),
        ("test", 0, "good"),
    ]
    assert [s.mask for s in listed if s.label == 0] == [None] * 3
    assert listed[2].mask == MaskFiles((tmp_path / "nut/ground_truth/bent/000_mask.png",))
    assert all(s.image == tmp_path / s.name and s.category == "nut" for s in listed)


def test_other_suffixes_and_hidden_files(tmp_path):
    touch(
        tmp_path,
        "nut/train/good/000.PNG",
        "nut/train/good/._000.PNG",  # macOS leaves these
        "nut/train/good/Thumbs.db",
        "nut/test/bent/a.b.JPG",
        "nut/ground_truth/bent/a.b_mask.Png",
        "nut/test/cut/001.jpeg",
        "nut/ground_truth/cut/001.png",  # some copies drop the suffix _mask
        "nut/test/.ipynb_checkpoints/001.png",
    )
    listed = list(samples(tmp_path, "nut"))
    assert [s.image.name for s in listed] == ["000.PNG", "a.b.JPG", "001.jpeg"]
    assert [s.mask.paths[0].name for s in listed if s.mask] == ["a.b_mask.Png", "001.png"]


def test_missing_masks_are_named_together(tmp_path):
    touch(tmp_path, "nut/train/good/000.png", *(f"nut/test/bent/{i:03}.png" for i in range(3)))
    touch(tmp_path, "nut/ground_truth/bent/001_mask.png")
    with pytest.raises(DataError, match=r"bent/000\.png and 1 more images; looked for .*bent/000_mask\.png"):
        list(samples(tmp_path, "nut"))


def test_absent_category(tmp_path):
    with pytest.raises(CategoryMissing, match=r"no category 'nut' at .*nut"):
        list(samples(tmp_path, "nut"))


def test_counts_are_the_published_ones():
    config = yaml.safe_load((CONF / "mvtec.yaml").read_text())
    assert list(config["counts"]) == config["categories"]
    assert len(config["categories"]) == 15
    assert set(config["textures"]) < set(config["categories"])
    totals = {
        key: sum(counts[key] for counts in config["counts"].values()) for key in config["counts"]["bottle"]
    }
    assert totals == {"train": 3629, "test_normal": 467, "test_anomalous": 1258}


def test_bottle(unpacked):
    listed = list(samples(unpacked("mvtec_bottle/bottle_300.tar"), "bottle"))
    counts = {"broken_large": 20, "broken_small": 22, "contamination": 21}
    assert sum(s.split == "train" for s in listed) == 209
    assert {d: sum(s.defect == d for s in listed) for d in counts} == counts
    assert all((s.mask is not None) == (s.label == 1) for s in listed)
    assert all(s.mask.paths[0].is_file() for s in listed if s.mask)

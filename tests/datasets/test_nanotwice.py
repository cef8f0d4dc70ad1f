"""NanoTWICE: three folders, TIFF images and PNG masks."""

import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.nanotwice import samples
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX, described, nanotwice


@pytest.fixture
def tree(tmp_path):
    nanotwice.make(tmp_path / "nanotwice")
    return tmp_path / "nanotwice"


def test_every_image(tree):
    listed = list(samples(tree, "nanotwice"))
    assert [s.name for s in listed] == [
        *(f"Normal/ER_N{i}.tif" for i in range(3)),
        *(f"Anomalous/images/ER_C{i}.tif" for i in range(4)),
    ]
    assert [(s.split, s.label, s.defect) for s in listed] == [("train", 0, "good")] * 3 + [
        ("test", 1, "anomalous")
    ] * 4
    for sample in listed:
        mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert mask.sum() == (240 if sample.label else 0)
        assert mask[BOX].all() == bool(sample.label)
        assert decode(sample.image)[mask].min(initial=255) >= 235


def test_the_yaml_states_the_counts(tree):
    made = described("nanotwice", tree)
    assert made.available() == ["nanotwice"]
    report = made.check("nanotwice", deep=True)
    assert report.expected == {"train": 5, "test_normal": 0, "test_anomalous": 40}
    assert [text.split("; ")[1] for text in report.problems] == ["found 3", "found 4"]
    assert any("no normal test images" in text for text in report.warnings)


def test_a_missing_mask_and_one_of_another_name(tree):
    masks = tree / "Anomalous/gt"
    (masks / "ER_C1_gt.png").rename(masks / "ER_C1_mask.png")
    with pytest.raises(DataError, match=r"no mask for .*images/ER_C1\.tif; looked for .*gt/ER_C1_gt\.png"):
        list(samples(tree, "nanotwice"))


def test_other_layouts_are_described(tree):
    (tree / "Anomalous/images").rename(tree / "Anomalous/Images")
    with pytest.raises(DataError, match=r"no folder images in .*Anomalous \(2 entries: Images/, gt/\)"):
        list(samples(tree, "nanotwice"))
    (tree / "Normal").rename(tree / "normal")
    with pytest.raises(CategoryMissing, match=r"no folder Normal in .* \(2 entries: Anomalous/, normal/\)"):
        list(samples(tree, "nanotwice"))

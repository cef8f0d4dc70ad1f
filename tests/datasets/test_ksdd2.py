"""KolektorSDD2: labels that only the masks tell, and the files that the archive holds twice."""

import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.ksdd2 import samples
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX, described, image, ksdd2

SETTINGS = {"mask_above": 0, "excluded": ["train/10301 (copy).png", "train/10301_GT (copy).png"]}


@pytest.fixture
def tree(tmp_path):
    ksdd2.make(tmp_path)
    return tmp_path


def test_every_image(tree):
    listed = list(samples(tree, "ksdd2", **SETTINGS))
    assert [s.name for s in listed] == [
        f"{split}/{number}.png" for split, numbers in ksdd2.NUMBERS.items() for number in numbers
    ]
    assert {int(s.image.stem) for s in listed if s.label} == ksdd2.DEFECTIVE
    assert [(s.split, s.label) for s in listed].count(("train", 1)) == 1
    assert all((s.mask is None) == (s.label == 0) for s in listed)


def test_masks(tree):
    for sample in (s for s in samples(tree, "ksdd2", **SETTINGS) if s.label):
        pixels = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert pixels[BOX].all()
        assert pixels.sum() == 240


def test_an_image_without_mask(tree):
    image(tree / "test/20009.png", size=ksdd2.SIZE)
    with pytest.raises(DataError, match=r"no mask for .*20009\.png; looked for .*20009_GT\.png.*unpack"):
        list(samples(tree, "ksdd2", **SETTINGS))


def test_copies_are_left_out_by_name_alone(tree):
    # Without the list of the YAML they are images without a mask: no file is passed over in silence.
    with pytest.raises(DataError, match=r"no mask for .*10301 \(copy\)\.png and 1 more images"):
        list(samples(tree, "ksdd2", mask_above=0, excluded=[]))


def test_other_layouts_are_described(tree):
    (tree / "test").rename(tree / "Test images")
    with pytest.raises(CategoryMissing, match=r"no folder test in .*\(2 entries: Test images/, train/\)"):
        list(samples(tree, "ksdd2", **SETTINGS))


def test_published_counts(tree):
    report = described("ksdd2", tree).check("ksdd2")
    assert "'ksdd2' should have 246 train_anomalous images (published counts); found 1" in report.problems

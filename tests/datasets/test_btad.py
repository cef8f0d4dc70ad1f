"""BTAD: ok and ko, and masks that end otherwise than their images."""

import shutil

import pytest

from ad_bench.datasets.btad import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX, btad, described


@pytest.fixture
def tree(tmp_path):
    btad.make(tmp_path / "btad")
    return tmp_path / "btad"


@pytest.mark.parametrize("product", ["01", "02", "03"])
def test_every_image(tree, product):
    listed = list(samples(tree, product, mask_above=0))
    assert [(s.split, s.label) for s in listed] == [("train", 0)] * 4 + [("test", 1)] * 2 + [("test", 0)] * 2
    assert {s.defect for s in listed} == {"good", "ko"}
    pictures, masks = btad.ENDINGS[product]
    assert {s.image.suffix for s in listed} == {f".{pictures}"}
    assert {s.mask.paths[0].suffix for s in listed if s.mask} == {f".{masks}"}
    assert listed[4].name == f"{product}/test/ko/0000.{pictures}"


@pytest.mark.parametrize(("product", "second"), [("01", 240), ("02", 240), ("03", 0)])
def test_masks(tree, product, second):
    found = []
    for sample in (s for s in samples(tree, product, mask_above=0) if s.label):
        pixels = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        found.append(int(pixels.sum()))
        assert pixels[BOX].all() == bool(found[-1])
    assert found == [240, second]


def test_the_folder_of_the_archive(tree, tmp_path):
    (tmp_path / "download").mkdir()
    shutil.move(tree, tmp_path / "download/BTech_Dataset_transformed")
    listed = list(samples(tmp_path / "download", "02", mask_above=0))
    assert len(listed) == 8
    assert listed[0].name == "BTech_Dataset_transformed/02/train/ok/0000.png"


def test_missing_mask(tree):
    (tree / "01/ground_truth/ko/0001.png").unlink()
    with pytest.raises(DataError, match=r"no mask for .*0001\.bmp; looked for .*ground_truth/ko/0001\.png"):
        list(samples(tree, "01", mask_above=0))
    shutil.rmtree(tree / "01/ground_truth")
    with pytest.raises(DataError, match=r"no mask for .*0000\.bmp and 1 more"):
        list(samples(tree, "01", mask_above=0))


def test_other_layouts_are_described(tree):
    (tree / "01/train/ok").rename(tree / "01/train/good")
    with pytest.raises(DataError, match=r"no folder train/ok in .*btad/01 .*calls normal images ok"):
        list(samples(tree, "01", mask_above=0))
    with pytest.raises(CategoryMissing, match=r"no category '04' at .*04 or in BTech_Dataset_transformed"):
        list(samples(tree, "04", mask_above=0))


def test_published_counts(tree):
    report = described("btad", tree).check("02")
    assert not report.ok
    assert "'02' should have 399 train images (published counts); found 4" in report.problems

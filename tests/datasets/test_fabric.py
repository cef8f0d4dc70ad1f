"""The fabric images of Hong Kong: the drawn split, kinds of defects in names, masks or none."""

import shutil

import pytest

from ad_bench.datasets.fabric import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError, UsageError
from tests.datasets.trees import BOX, described, fabric

SETTINGS = {"train_share": 0.8, "split_seed": 0, "mask_dir": "mask", "mask_above": 0}


@pytest.fixture
def tree(tmp_path):
    fabric.make(tmp_path)
    return tmp_path


@pytest.mark.parametrize("pattern", ["box", "dot", "star"])
def test_split(tree, pattern):
    listed = list(samples(tree, pattern, **SETTINGS))
    assert [(s.split, s.label) for s in listed] == (
        [("train", 0)] * 5 + [("test", 1)] * 2 + [("test", 0)]  # names of `defective` come first
    )
    assert [s.defect for s in listed if s.label] == ["bn", "h"]
    for sample in (s for s in listed if s.label):
        pixels = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert (pixels[BOX].all(), pixels.sum()) == (True, 240)


def test_split_is_pinned(tree):
    # Written down once: no version of Python or numpy may move an image to the other side.
    def held_out(seed):
        listed = samples(tree, "box", **(SETTINGS | {"split_seed": seed}))
        return [s.image.stem for s in listed if s.split == "test" and not s.label]

    assert [held_out(seed) for seed in range(3)] == [["box_0"], ["box_4"], ["box_2"]]


def test_without_masks(tree):
    shutil.rmtree(tree / "dot/defective/mask")
    with pytest.raises(DataError, match=r"no mask for .*dot_bn_0\.bmp and 1 more.*mask_dir=null"):
        list(samples(tree, "dot", **SETTINGS))
    listed = list(samples(tree, "dot", **(SETTINGS | {"mask_dir": None})))
    assert [s.mask for s in listed if s.label] == [None, None]


def test_other_layouts_are_described(tree):
    with pytest.raises(CategoryMissing, match=r"no category 'check' at .*\(3 entries: box/, dot/, star/\)"):
        list(samples(tree, "check", **SETTINGS))
    (tree / "star/normal").rename(tree / "star/good")
    with pytest.raises(DataError, match=r"no folder normal in .*star .*dataset=folder"):
        list(samples(tree, "star", **SETTINGS))


@pytest.mark.parametrize("share", [0, 1, 80])
def test_share_out_of_range(tree, share):
    with pytest.raises(UsageError, match="train_share is a share"):
        list(samples(tree, "box", **(SETTINGS | {"train_share": share})))


def test_no_counts_are_claimed(tree):
    report = described("fabric", tree).check("box", deep=True)
    assert (report.ok, report.expected) == (True, {})
    assert report.found["masks"] == 2

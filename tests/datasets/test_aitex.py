"""AITEX: the drawn split, several masks of a strip, and the one strip without any."""

import pytest

from ad_bench.datasets.aitex import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError, UsageError
from tests.datasets.trees import BOX, aitex, described

SETTINGS = {"train_share": 0.8, "split_seed": 0, "mask_above": 127, "excluded": ["0100_025_08"]}


@pytest.fixture
def tree(tmp_path):
    aitex.make(tmp_path)
    return tmp_path


def test_split(tree):
    listed = list(samples(tree, "aitex", **SETTINGS))
    train, test = ([s for s in listed if s.split == split] for split in ("train", "test"))
    assert (len(train), sum(s.label == 0 for s in test), sum(s.label for s in test)) == (8, 2, 3)
    assert listed == train + test
    for part in (train, test):
        assert [s.name for s in part] == sorted(s.name for s in part)
    assert {s.image.stem: s.defect for s in test if s.label} == {
        "0001_002_00": "broken_end",
        "0044_019_04": "fuzzyball",
        "0097_030_03": "nep",
    }


def test_split_is_pinned(tree):
    # Written down once: no version of Python or numpy may move an image to the other side.
    def held_out(seed):
        listed = samples(tree, "aitex", **(SETTINGS | {"split_seed": seed}))
        return [s.name for s in listed if s.split == "test" and not s.label]

    a, b = "NODefect_images/2306881-210020u", "NODefect_images/2311694-2040n7u"
    assert held_out(0) == [f"{a}/0000_000_02.png", f"{b}/0001_000_04.png"]
    assert held_out(1) == [f"{b}/0000_000_04.png", f"{b}/0002_000_04.png"]


def test_masks_of_a_strip_are_joined(tree):
    by_stem = {s.image.stem: s for s in samples(tree, "aitex", **SETTINGS) if s.label}
    both = by_stem["0044_019_04"]
    assert [path.name for path in both.mask.paths] == ["0044_019_04_mask1.png", "0044_019_04_mask2.png"]
    pixels = read_mask(both.mask, decode(both.image).shape[:2], both.name)
    assert pixels.shape == aitex.STRIP
    assert pixels[BOX].all()
    assert pixels.sum() == 240


def test_missing_mask(tree):
    (tree / "Mask_images/0001_002_00_mask.png").unlink()
    with pytest.raises(
        DataError, match=r"no mask for .*0001_002_00\.png; looked for .*0001_002_00_mask\.png"
    ):
        list(samples(tree, "aitex", **SETTINGS))


def test_the_strip_without_mask_is_left_out_by_name_alone(tree):
    with pytest.raises(DataError, match=r"no mask for the defect image .*0100_025_08\.png; looked for"):
        list(samples(tree, "aitex", **(SETTINGS | {"excluded": []})))


def test_other_layouts_are_described(tree):
    for folder, end in (("Defect_images", ""), ("Mask_images", "_mask")):
        (tree / folder / f"0001_002_00{end}.png").rename(tree / folder / f"0001_099_00{end}.png")
    with pytest.raises(DataError, match=r"0001_099_00\.png does not name its defect: wanted nnnn_ddd_ff"):
        list(samples(tree, "aitex", **SETTINGS))
    (tree / "Mask_images").rename(tree / "masks")
    with pytest.raises(DataError, match=r"no folder Mask_images in .*three archives"):
        list(samples(tree, "aitex", **SETTINGS))
    (tree / "NODefect_images").rename(tree / "normal")
    with pytest.raises(CategoryMissing, match=r"no folder NODefect_images in .* should hold NODefect_images"):
        list(samples(tree, "aitex", **SETTINGS))


@pytest.mark.parametrize("share", [0, 1, 80])
def test_share_out_of_range(tree, share):
    with pytest.raises(UsageError, match="train_share is a share"):
        list(samples(tree, "aitex", **(SETTINGS | {"train_share": share})))


def test_published_counts(tree):
    report = described("aitex", tree).check("aitex")
    assert "'aitex' should have 113 train images (published counts); found 8" in report.problems

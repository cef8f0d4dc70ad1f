"""KolektorSDD: labels that only the masks tell, and the drawn split."""

import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.ksdd import samples
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError, UsageError
from tests.datasets.trees import BOX, described, ksdd, mask

SPLIT = {"train_share": 0.8, "split_seed": 0, "mask_above": 0}


@pytest.fixture
def tree(tmp_path):
    ksdd.make(tmp_path)
    return tmp_path


def test_split(tree):
    listed = list(samples(tree, "ksdd", **SPLIT))
    train, test = ([s for s in listed if s.split == split] for split in ("train", "test"))
    assert (len(train), sum(s.label == 0 for s in test)) == (10, 2)  # of 12 normal ones
    assert listed == train + test
    for part in (train, test):
        assert [s.name for s in part] == sorted(s.name for s in part)
    assert [s.name for s in test if s.label] == [f"{item}/Part2.jpg" for item in ("kos01", "kos02", "kos50")]
    assert all(s.group == s.image.parent.name for s in listed)
    assert all((s.mask is None, s.defect) == (True, "good") for s in listed if not s.label)


def test_split_is_pinned(tree):
    # Written down once: no version of Python or numpy may move an image to the other side.
    def held_out(seed):
        listed = samples(tree, "ksdd", **(SPLIT | {"split_seed": seed}))
        return [s.name for s in listed if s.split == "test" and not s.label]

    assert held_out(0) == ["kos01/Part1.jpg", "kos01/Part4.jpg"]
    assert held_out(1) == ["kos50/Part0.jpg", "kos50/Part3.jpg"]


def test_masks(tree):
    for sample in (s for s in samples(tree, "ksdd", **SPLIT) if s.label):
        pixels = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert pixels[BOX].all()
        assert pixels.sum() == 240


def test_the_mask_decides(tree):
    mask(tree / "kos01/Part0_label.bmp", value=1, size=ksdd.SURFACE)
    listed = {s.name: s for s in samples(tree, "ksdd", **SPLIT)}
    assert (listed["kos01/Part0.jpg"].label, listed["kos01/Part0.jpg"].split) == (1, "test")
    listed = {s.name: s for s in samples(tree, "ksdd", **(SPLIT | {"mask_above": 1}))}
    assert listed["kos01/Part0.jpg"].label == 0


def test_missing_mask(tree):
    (tree / "kos02/Part1_label.bmp").unlink()
    with pytest.raises(DataError, match=r"no mask for .*kos02/Part1\.jpg; looked for .*Part1_label\.bmp"):
        list(samples(tree, "ksdd", **SPLIT))


def test_other_layouts_are_described(tree):
    with pytest.raises(CategoryMissing, match=r"no folders kos01 to kos50 in .*kos01 \(10 entries: Part0"):
        list(samples(tree / "kos01", "ksdd", **SPLIT))
    with pytest.raises(CategoryMissing, match=r"in .*/nowhere \(no such folder\)"):
        list(samples(tree / "nowhere", "ksdd", **SPLIT))


@pytest.mark.parametrize("share", [0, 1, 80])
def test_share_out_of_range(tree, share):
    with pytest.raises(UsageError, match="train_share is a share"):
        list(samples(tree, "ksdd", **(SPLIT | {"train_share": share})))


def test_published_counts(tree):
    report = described("ksdd", tree).check("ksdd")
    assert "'ksdd' should have 52 test_anomalous images (published counts); found 3" in report.problems

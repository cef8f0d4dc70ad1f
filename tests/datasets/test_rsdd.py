"""RSDDs: two types of rails, JPEG masks, no normal images."""

import numpy as np
import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.rsdd import samples
from ad_bench.errors import CategoryMissing, DataError, UsageError
from ad_bench.samples import ANOMALOUS
from tests.datasets.trees import BOX, described
from tests.datasets.trees.rsdd import SIZES, make


@pytest.mark.parametrize(("category", "folder"), list(zip(("type_1", "type_2"), SIZES, strict=True)))
def test_layout(tmp_path, category, folder):
    make(tmp_path)
    listed = list(samples(tmp_path, category, mask_above=127))
    assert [s.name for s in listed] == [f"{folder}/Rail surface images/rail_{n}.jpg" for n in (1, 2, 3)]
    assert {(s.split, s.label, s.defect, s.category) for s in listed} == {
        ("test", ANOMALOUS, "defect", category)
    }
    assert [s.mask.paths[0] for s in listed] == [
        tmp_path / folder / "GroundTruth" / s.image.name for s in listed
    ]


def test_grey_edges_of_jpeg_masks_are_cut_at_half(tmp_path):
    make(tmp_path)
    for category in ("type_1", "type_2"):
        for sample in samples(tmp_path, category, mask_above=127):
            size = decode(sample.image).shape[:2]
            wanted = np.zeros(size, bool)
            wanted[BOX] = True
            np.testing.assert_array_equal(read_mask(sample.mask, size, sample.name), wanted)
    loose = next(iter(samples(tmp_path, "type_1", mask_above=0)))  # JPEG leaves specks around the defect
    assert read_mask(loose.mask, SIZES["Type-I RSDDs dataset"], loose.name).sum() > 12 * 20


def test_counts(tmp_path):
    make(tmp_path)
    dataset = described("rsdd", tmp_path)
    assert sum(counts["test_anomalous"] for counts in dataset.counts.values()) == 195
    report = dataset.check("type_2", deep=True)
    assert report.problems == ("'type_2' should have 128 test_anomalous images (published counts); found 3",)


def test_archive_folder_may_stay(tmp_path):
    make(tmp_path / "RSDDs dataset")
    names = [s.name for s in samples(tmp_path, "type_1", mask_above=127)]
    assert names[0] == "RSDDs dataset/Type-I RSDDs dataset/Rail surface images/rail_1.jpg"


def test_missing_masks(tmp_path):
    make(tmp_path)
    (tmp_path / "Type-I RSDDs dataset/GroundTruth/rail_2.jpg").unlink()
    with pytest.raises(DataError, match=r"no mask for .*rail_2\.jpg; looked for .*GroundTruth/rail_2\.jpg"):
        list(samples(tmp_path, "type_1", mask_above=127))


def test_other_spellings(tmp_path):
    make(tmp_path)
    home = tmp_path / "Type-I RSDDs dataset"
    (home / "GroundTruth").rename(home / "groundtruth_")
    with pytest.raises(DataError, match=r"no folder 'GroundTruth' in .*; the layout is .*rename the folder"):
        list(samples(tmp_path, "type_1", mask_above=127))
    home.rename(tmp_path / "Type1")
    with pytest.raises(CategoryMissing, match=r"no folder .*Type-I RSDDs dataset \(2 entries: .*Type1/\)"):
        list(samples(tmp_path, "type_1", mask_above=127))
    with pytest.raises(UsageError, match="no category 'I'; it has type_1, type_2"):
        list(samples(tmp_path, "I", mask_above=127))

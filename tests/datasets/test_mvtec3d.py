"""MVTec 3D-AD: the colour images are listed, their points lie beside them, the masks are not quite white."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.mvtec3d import samples
from ad_bench.datasets.points import read_points
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX, described, mvtec3d


@pytest.fixture
def tree(tmp_path):
    mvtec3d.make(tmp_path / "mvtec3d")
    return tmp_path / "mvtec3d"


def test_every_colour_image(tree):
    listed = list(samples(tree, "bagel"))
    assert [s.name for s in listed] == [
        *(f"bagel/train/good/rgb/00{i}.png" for i in range(3)),
        *(f"bagel/validation/good/rgb/00{i}.png" for i in range(2)),
        *(f"bagel/test/combined/rgb/00{i}.png" for i in range(3)),
        *(f"bagel/test/good/rgb/00{i}.png" for i in range(2)),
        *(f"bagel/test/hole/rgb/00{i}.png" for i in range(3)),
    ]
    assert [s.split for s in listed] == ["train"] * 3 + ["validation"] * 2 + ["test"] * 8
    assert [s.label for s in listed] == [int(s.defect != "good") for s in listed]
    assert {s.defect for s in listed} == {"good", "combined", "hole"}


def test_masks_of_253_to_255_are_read_in_full(tree):
    values = set()
    for sample in samples(tree, "rope"):
        assert (sample.mask is None) == (sample.label == 0)
        mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert mask.sum() == (240 if sample.label else 0)
        assert mask[BOX].all() == bool(sample.label)
        if sample.mask:
            values.add(int(np.asarray(Image.open(sample.mask.paths[0])).max()))
    assert values == {253, 254, 255}


def test_points_are_extra_and_fit_their_image(tree):
    for sample in samples(tree, "rope"):
        ((role, path),) = sample.extra
        assert role == "points"
        assert path == sample.image.parent.parent / "xyz" / f"{sample.image.stem}.tiff"
        assert read_points(path).shape == decode(sample.image).shape


def test_the_yaml_states_the_published_counts(tree):
    made = described("mvtec3d", tree)
    assert made.available() == ["bagel", "rope"]
    report = made.check("rope")
    assert report.found["validation"] == 2
    assert [text.split("; ")[1] for text in report.problems] == ["found 3", "found 2", "found 2", "found 3"]
    assert list(made.counts) == list(made.categories)
    totals = {key: sum(counts[key] for counts in made.counts.values()) for key in report.expected}
    assert totals == {"train": 2656, "validation": 294, "test_normal": 249, "test_anomalous": 948}


def test_lost_points_are_found_by_the_check(tree):
    (tree / "bagel/test/hole/xyz/001.tiff").unlink()
    problems = described("mvtec3d", tree).check("bagel").problems
    assert any("no points" in text and "hole/xyz/001.tiff" in text for text in problems)


def test_a_missing_mask(tree):
    shutil.rmtree(tree / "bagel/test/hole/gt")
    with pytest.raises(
        DataError, match=r"hole/rgb/000\.png and 2 more images; looked for .*hole/gt/000\.png"
    ):
        list(samples(tree, "bagel"))


def test_other_layouts_are_described(tree):
    with pytest.raises(CategoryMissing, match=r"no category 'cable gland' at .*2 entries: bagel/, rope/"):
        list(samples(tree, "cable gland"))
    (tree / "bagel/test/hole/rgb").rename(tree / "bagel/test/hole/images")
    with pytest.raises(DataError, match=r"no folder rgb in .*test/hole \(3 entries: gt/, images/, xyz/\)"):
        list(samples(tree, "bagel"))

"""Eyecandies: one of six lights, the truth of the public test set, depth and normals beside the image."""

import shutil

import pytest

from ad_bench.datasets.eyecandies import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError, UsageError
from tests.datasets.trees import BOX, described, eyecandies

DATA = "CandyCane/test_public/data"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("eyecandies")
    eyecandies.make(root)
    return root


@pytest.fixture
def tree(written, tmp_path):
    return shutil.copytree(written, tmp_path / "eyecandies")


def test_every_image_once_under_one_light(tree):
    listed = list(samples(tree, "CandyCane", light=4))
    assert [s.name for s in listed] == [
        *(f"CandyCane/train/data/00{i}_image_4.png" for i in range(3)),
        "CandyCane/val/data/00_image_4.png",
        *(f"{DATA}/0{i}_image_4.png" for i in range(4)),
    ]
    assert [s.split for s in listed] == ["train"] * 3 + ["validation"] + ["test"] * 4
    assert [(s.label, s.defect) for s in listed[4:]] == [
        (1, "bumps"),
        (0, "good"),
        (1, "colors+dents"),
        (0, "good"),
    ]
    assert all(s.label == 0 and s.defect == "good" for s in listed[:4])
    other = list(samples(tree, "CandyCane", light=0))
    assert [s.name.replace("image_0", "image_4") for s in other] == [s.name for s in listed]


def test_masks_are_those_of_all_kinds_together(tree):
    listed = [s for s in samples(tree, "Lollipop", light=4) if s.split == "test"]
    assert [s.mask is not None for s in listed] == [True, False, True, False]
    for sample in listed:
        mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert mask.sum() == (240 if sample.label else 0)
        assert mask[BOX].all() == bool(sample.label)


def test_depth_and_normals_are_extra(tree):
    for sample in samples(tree, "CandyCane", light=2):
        stem = sample.image.stem.removesuffix("_image_2")
        assert sample.extra == tuple(
            (role, sample.image.with_name(f"{stem}_{role}.png")) for role in ("depth", "normals")
        )
        assert all(path.is_file() for _, path in sample.extra)


def test_the_yaml_lists_it_and_the_counts_are_checked(tree):
    made = described("eyecandies", tree)
    assert made.available() == ["CandyCane", "Lollipop"]
    assert made.samples("CandyCane")[0].name.endswith("_image_4.png")
    assert len(made.counts) == len(made.categories) == 10
    report = made.check("CandyCane")
    assert report.expected == {"train": 1000, "validation": 100, "test_normal": 25, "test_anomalous": 25}
    assert [text.rsplit("; ", 1)[1] for text in report.problems] == [
        "found 3",
        "found 1",
        "found 2",
        "found 2",
    ]


@pytest.mark.parametrize("said", ["anomalous: true\n", "anomalous: 1\nbumps: 0\n"])
def test_an_anomaly_whose_kind_is_not_said(tree, said):
    (tree / DATA / "00_metadata.yaml").write_text(said)
    assert [s.defect for s in samples(tree, "CandyCane", light=4) if s.label] == ["anomalous", "colors+dents"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (None, "no .*00_metadata.yaml: it says whether the image is anomalous"),
        ("label: 1\n", "00_metadata.yaml has no entry 'anomalous' of 0 or 1, but {'label': 1}"),
        ("anomalous: maybe\n", "no entry 'anomalous' of 0 or 1"),
        ("- 1\n", "no entry 'anomalous'"),
        ("a: [\n", "cannot read .*00_metadata.yaml"),
    ],
)
def test_metadata_that_do_not_say_it(tree, said, error):
    path = tree / DATA / "00_metadata.yaml"
    path.unlink()
    if said is not None:
        path.write_text(said)
    with pytest.raises(DataError, match=error):
        list(samples(tree, "CandyCane", light=4))


def test_a_missing_mask(tree):
    (tree / DATA / "02_mask.png").unlink()
    with pytest.raises(DataError, match=r"no mask for .*02_image_4\.png; looked for .*02_mask\.png"):
        list(samples(tree, "CandyCane", light=4))


def test_other_layouts_are_described(tree):
    with pytest.raises(CategoryMissing, match=r"no category 'candy_cane' at .*2 entries: CandyCane/"):
        list(samples(tree, "candy_cane", light=4))
    shutil.rmtree(tree / "CandyCane/val")
    with pytest.raises(DataError, match=r"no folder val in .*CandyCane \(3 entries: test_private/"):
        list(samples(tree, "CandyCane", light=4))
    for file in (tree / "Lollipop/train/data").iterdir():  # without data/, as some converters leave it
        file.rename(tree / "Lollipop/train" / file.name)
    (tree / "Lollipop/train/data").rmdir()
    with pytest.raises(DataError, match=r"no folder .*Lollipop/train/data .*000_image_4\.png: unpack"):
        list(samples(tree, "Lollipop", light=4))


@pytest.mark.parametrize("light", [-1, 6])
def test_lights_are_six(tree, light):
    with pytest.raises(UsageError, match=f"light is a light from 0 to 5; got {light}"):
        list(samples(tree, "CandyCane", light=light))

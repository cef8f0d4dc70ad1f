"""NEU-DET: both copies, VOC boxes, no normal images; and the annotation files that are refused."""

from collections import Counter

import numpy as np
import pytest

from ad_bench.datasets.annotations import voc_objects
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.neu import samples
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, Boxes
from tests.datasets.trees import BOX, described, image
from tests.datasets.trees.neu import DEFECTS, annotation, make, make_copy


def test_official_layout(tmp_path):
    make(tmp_path)
    listed = list(samples(tmp_path, "neu", filled=False))
    assert [s.name for s in listed][:3] == [
        "IMAGES/crazing_1.jpg",
        "IMAGES/crazing_2.jpg",
        "IMAGES/inclusion_1.jpg",
    ]
    assert {(s.split, s.label) for s in listed} == {("test", ANOMALOUS)}
    assert Counter(s.defect for s in listed) == dict.fromkeys(DEFECTS, 2)
    assert {s.mask for s in listed} == {Boxes(((16, 12, 36, 24),), filled=False)}


def test_copy_with_a_torn_pair(tmp_path):
    make_copy(tmp_path)
    listed = list(samples(tmp_path, "neu", filled=False))
    assert len(listed) == 13
    assert [s.name for s in listed] == sorted(s.name for s in listed)
    torn = next(s for s in listed if s.image.stem == "crazing_240")
    assert torn.name == "NEU-DET/train/images/crazing/crazing_240.jpg"
    assert torn.mask == Boxes(((16, 12, 36, 24),))
    (tmp_path / "NEU-DET/validation/annotations/patches_2.xml").unlink()
    with pytest.raises(
        DataError, match=r"no annotation for .*patches_2\.jpg; looked for .*validation/annotations"
    ):
        list(samples(tmp_path, "neu", filled=False))


def test_boxes_become_their_pixels(tmp_path):
    make(tmp_path)
    sample = next(iter(samples(tmp_path, "neu", filled=True)))
    assert sample.mask.filled
    wanted = np.zeros((200, 200), bool)
    wanted[BOX] = True
    np.testing.assert_array_equal(read_mask(sample.mask, (200, 200), sample.name), wanted)


def test_a_data_set_without_normal_images(tmp_path):
    make(tmp_path)
    dataset = described("neu", tmp_path)
    assert len(dataset.samples("neu")) == 12
    report = dataset.check("neu", deep=True)
    assert report.problems == ("'neu' should have 1800 test_anomalous images (published counts); found 12",)
    assert any("no normal test images" in warning for warning in report.warnings)


def test_missing_annotations(tmp_path):
    make(tmp_path)
    for number in (1, 2):
        (tmp_path / f"ANNOTATIONS/patches_{number}.xml").unlink()
    with pytest.raises(
        DataError, match=r"no annotation for .*patches_1\.jpg and 1 more images; looked for .*xml"
    ):
        list(samples(tmp_path, "neu", filled=False))
    for path in (tmp_path / "ANNOTATIONS").iterdir():
        path.unlink()
    (tmp_path / "ANNOTATIONS").rmdir()
    with pytest.raises(DataError, match=r"no folder .*ANNOTATIONS \(1 entries: IMAGES/\); unpack it there"):
        list(samples(tmp_path, "neu", filled=False))


def test_other_layouts(tmp_path):
    (tmp_path / "NEU-CLS").mkdir()
    with pytest.raises(
        CategoryMissing, match=r"no NEU-DET in .* \(1 entries: NEU-CLS/\); that folder should"
    ):
        list(samples(tmp_path, "neu", filled=False))
    image(tmp_path / "IMAGES" / "Cr_1.bmp")
    annotation(tmp_path / "ANNOTATIONS" / "Cr_1.xml", "crazing")
    with pytest.raises(DataError, match=r"Cr_1\.bmp has none of NEU-DET's names\."):
        list(samples(tmp_path, "neu", filled=False))


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB + "<annotation>&c;</annotation>", "has a DOCTYPE, which no VOC annotation needs"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "has a DOCTYPE"),
        ("<annotation><object>", r"a\.xml is not XML: "),
        ("", r"a\.xml is not XML: "),
        (
            "<annotation><object><name>x</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax>"
            "</bndbox></object></annotation>",
            r"object 1 is x at 9, 1, 3, 2; wanted a name and a bndbox with xmin <= xmax",
        ),
        ("<annotation><object><name>x</name></object></annotation>", r"object 1 is x at , , , ; wanted"),
        ("<annotation><object/></annotation>", r"object 1 is without a name"),
    ],
)
def test_refused_annotations(tmp_path, content, said):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(DataError, match=said):
        voc_objects(tmp_path / "a.xml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_no_encoding_hides_an_entity(tmp_path, encoding):
    (tmp_path / "a.xml").write_bytes((BOMB + "<annotation>&c;</annotation>").encode(encoding))
    with pytest.raises(DataError, match=r"a\.xml is not UTF-8 text"):
        voc_objects(tmp_path / "a.xml")

"""DeepPCB: the pairs of the lists, boxes that are no masks, templates; on real boards too."""

from collections import Counter

import numpy as np
import pytest

from ad_bench.datasets.deeppcb import samples
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import Boxes
from tests.datasets.trees import BOX, deeppcb, described


@pytest.fixture
def tree(tmp_path):
    deeppcb.make(tmp_path)
    return tmp_path


def test_every_pair(tree):
    listed = list(samples(tree, "deeppcb", filled=False))
    assert Counter((s.split, s.label) for s in listed) == {
        ("train", 0): 3,
        ("train", 1): 3,
        ("test", 0): 2,
        ("test", 1): 2,
    }
    assert [s.name for s in listed if s.split == "test"] == [
        "PCBData/group20085/20085/20085291_temp.jpg",
        "PCBData/group20085/20085/20085291_test.jpg",
        "PCBData/group44000/44000/44000012_temp.jpg",
        "PCBData/group44000/44000/44000012_test.jpg",
    ]
    for sample in listed:
        ending = "test" if sample.label else "temp"
        assert sample.image.stem.endswith(ending)
        template = sample.image.with_name(sample.image.name.replace("_test", "_temp"))
        assert sample.extra == ((("template", template),) if sample.label else ())
    assert {s.defect for s in listed if s.label} == {"mousebite", "combined"}


def test_boxes(tree):
    board = next(s for s in samples(tree, "deeppcb", filled=False) if s.name.endswith("44000012_test.jpg"))
    assert board.mask == Boxes(((16, 12, 36, 24), (40, 2, 60, 20)), filled=False)
    board = next(s for s in samples(tree, "deeppcb", filled=True) if s.name.endswith("20085291_test.jpg"))
    pixels = read_mask(board.mask, decode(board.image).shape[:2], board.name)
    assert (pixels[BOX].all(), pixels.sum()) == (True, 240)


def test_commas_as_in_the_readme(tree):
    (tree / "PCBData/group44000/44000_not/44000012.txt").write_text("16,12,36,24,1\n\n")
    board = next(s for s in samples(tree, "deeppcb", filled=False) if s.name.endswith("44000012_test.jpg"))
    assert (board.mask.boxes, board.defect) == (((16, 12, 36, 24),), "open")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "16 12 36 24\n",
            r"44000012\.txt, line 1 is '16 12 36 24'; wanted left, top, right, bottom",
        ),
        ("16 12 36 24 7\n", r"line 1 is"),
        ("16 12 x 24 1\n", r"line 1 is"),
        ("", r"44000012\.txt holds no box"),
    ],
)
def test_broken_annotation(tree, text, error):
    (tree / "PCBData/group44000/44000_not/44000012.txt").write_text(text)
    with pytest.raises(DataError, match=error):
        list(samples(tree, "deeppcb", filled=False))


@pytest.mark.parametrize(
    "file", ["44000/44000012_temp.jpg", "44000/44000012_test.jpg", "44000_not/44000012.txt"]
)
def test_incomplete_pair(tree, file):
    (tree / "PCBData/group44000" / file).unlink()
    with pytest.raises(DataError, match=rf"test\.txt names a pair without .*{file}; get the repository"):
        list(samples(tree, "deeppcb", filled=False))


def test_other_layouts_are_described(tree):
    with (tree / "PCBData/test.txt").open("a") as file:
        file.write("\n../44000012.jpg ../44000012.txt\n")
    with pytest.raises(DataError, match=r"test\.txt, line 3 is '\.\./44000012\.jpg.*wanted 'group"):
        list(samples(tree, "deeppcb", filled=False))
    (tree / "PCBData/test.txt").unlink()
    with pytest.raises(DataError, match=r"no test\.txt in .*PCBData .*gives the split"):
        list(samples(tree, "deeppcb", filled=False))
    with pytest.raises(CategoryMissing, match=r"no folder PCBData in .*PCBData \(3 entries: group20085/"):
        list(samples(tree / "PCBData", "deeppcb", filled=False))


def test_published_counts(tree):
    report = described("deeppcb", tree).check("deeppcb", deep=True)
    assert report.problems[0] == "'deeppcb' should have 2000 train images (published counts); found 6"
    assert len(report.problems) == 4  # one a number, and nothing else


def test_real_boards(unpacked):
    root = unpacked("deeppcb_subset/deeppcb_subset.tar")
    listed = list(samples(root, "deeppcb", filled=True))
    assert Counter((s.split, s.label) for s in listed) == {
        ("train", 0): 261,
        ("train", 1): 261,
        ("test", 0): 66,
        ("test", 1): 66,
    }
    assert len({s.name for s in listed}) == 654
    boards = [s for s in listed if s.label]
    assert sum(len(s.mask.boxes) for s in boards) == 1965
    assert {s.defect for s in boards} == {"combined", "copper"}
    for board in boards[::40]:
        # Template and board are aligned, so the boxes must lie where the two differ.
        pixels, template = (decode(p).astype(int) for p in (board.image, dict(board.extra)["template"]))
        assert pixels.shape == (640, 640, 3)
        inside = read_mask(board.mask, pixels.shape[:2], board.name)
        changed = np.abs(pixels - template).max(axis=2) > 128
        assert changed[inside].mean() > 4 * changed[~inside].mean()

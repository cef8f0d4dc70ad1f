"""Real-IAD: what the JSON files list, views and objects, the noisy lists, and damaged copies."""

import json
from collections import Counter
from pathlib import Path

import pytest

from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.real_iad import samples
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX
from tests.datasets.trees.real_iad import make

PLAIN = {"images": "realiad_1024", "jsons": "realiad_jsons", "views": None, "noise_as_normal": True}
FUIAD = PLAIN | {"jsons": "realiad_jsons_fuiad_0.4"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def test_splits_and_defects_are_those_of_the_list(root):
    listed = list(samples(root, "audiojack", **PLAIN))
    assert Counter((s.split, s.defect) for s in listed) == {
        ("train", "good"): 10,
        ("test", "good"): 5 + 2 * 3,  # the sides of broken objects that do not show it are normal
        ("test", "BX"): 2,
        ("test", "HS"): 2,
    }
    assert [s.split for s in listed] == ["train"] * 10 + ["test"] * 15
    tests = [s.name for s in listed if s.split == "test"]
    assert tests == sorted(tests)
    assert tests[0] == "realiad_1024/audiojack/NG/BX/S0001/audiojack_0001_NG_BX_C1_20230921103301.jpg"


def test_five_views_make_an_object(root):
    groups = Counter(s.group for s in samples(root, "bottle_cap", **PLAIN))
    assert groups == {
        f"bottle_cap/bottle_cap_{name}": 5
        for name in ("0000_OK", "0001_OK", "0002_OK", "0001_NG_BX", "0002_NG_HS")
    }


def test_masks(root):
    for sample in samples(root, "audiojack", **PLAIN):
        if sample.label:
            assert sample.mask.paths == (sample.image.with_suffix(".png"),)
            pixels = read_mask(sample.mask, (64, 64), sample.name)
            assert pixels[BOX].all()
            assert pixels.sum() == pixels[BOX].size
        else:
            assert sample.mask is None


@pytest.mark.parametrize(("views", "count"), [("C1", 5), (["C1", "C3"], 10), ([], 0)])
def test_some_views(root, views, count):
    listed = list(samples(root, "audiojack", **(PLAIN | {"views": views})))
    assert len(listed) == count
    assert {s.name.split("_")[-2] for s in listed} == ({views} if isinstance(views, str) else set(views))
    single = list(samples(root, "audiojack", **(PLAIN | {"jsons": "realiad_jsons_sv"})))
    assert {s.name.split("_")[-2] for s in single if s.split == "train"} == {"C1"}


def test_noise_of_a_training_list_counts_as_normal_unless_told_otherwise(root):
    noisy = [s for s in samples(root, "audiojack", **FUIAD) if s.split == "train"]
    assert (len(noisy), sum(s.label for s in noisy)) == (15, 0)
    assert all(s.mask is None and s.defect == "good" for s in noisy)
    told = [
        s for s in samples(root, "audiojack", **(FUIAD | {"noise_as_normal": False})) if s.split == "train"
    ]
    assert [s.name for s in told] == [s.name for s in noisy]
    assert Counter(s.defect for s in told) == {"good": 13, "BX": 2}


def test_the_lists_may_lie_one_folder_deeper(root):
    before = list(samples(root, "audiojack", **FUIAD))
    inner = root / "realiad_jsons" / FUIAD["jsons"]
    (root / FUIAD["jsons"]).rename(inner)
    assert list(samples(root, "audiojack", **FUIAD)) == before


def test_absent_categories_and_folders(root):
    with pytest.raises(
        CategoryMissing, match=r"no 'zipper' at .*realiad_jsons/zipper\.json \(.*bottle_cap\.json"
    ):
        list(samples(root, "zipper", **PLAIN))
    with pytest.raises(CategoryMissing, match=r"no 'audiojack' at .*realiad_512/audiojack .*no such folder"):
        list(samples(root, "audiojack", **(PLAIN | {"images": "realiad_512"})))


def test_lost_files_are_named(root):
    bad = root / "realiad_1024/audiojack/NG/HS/S0002"
    mask = next(bad.glob("*_C2_*.png"))
    mask.unlink()
    with pytest.raises(DataError, match=rf"no mask .*_C2_.*jpg; looked for {mask}"):
        list(samples(root, "audiojack", **PLAIN))
    for image in bad.glob("*.jpg"):
        image.unlink()
    with pytest.raises(DataError, match=r"audiojack\.json lists .*S0002/.* and 4 more, not there; unpack"):
        list(samples(root, "audiojack", **PLAIN))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read .*audiojack.json"),
        ("[]", "no list of Real-IAD .*wanted meta with prefix"),
        ('{"train": [], "test": []}', r"\(it holds: train, test\)"),
        (
            '{"meta": {"prefix": "", "normal_class": "OK"}, "train": [{"image": "a"}], "test": []}',
            "every entry",
        ),
    ],
)
def test_other_files_are_no_lists(root, text, said):
    (root / "realiad_jsons/audiojack.json").write_text(text)
    with pytest.raises(DataError, match=said):
        list(samples(root, "audiojack", **PLAIN))


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", None])
def test_a_list_leads_nowhere_else(root, name):
    path = root / "realiad_jsons/audiojack.json"
    lists = json.loads(path.read_text())
    lists["test"][0]["image_path"] = name
    path.write_text(json.dumps(lists))
    with pytest.raises(DataError, match="wanted one below the category's folder"):
        list(samples(root, "audiojack", **PLAIN))

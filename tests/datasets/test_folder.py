"""Anyone's own images."""

from pathlib import Path

import pytest

from ad_bench.datasets.folder import samples
from ad_bench.errors import DataError, UsageError

OPTIONS = {
    "normal_dir": "good",
    "abnormal_dirs": None,
    "mask_dir": None,
    "normal_test_dir": None,
    "normal_test_share": 0.2,
    "split_seed": 0,
    "mask_above": 0,
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def mugs(tmp_path) -> Path:
    return touch(
        tmp_path,
        *(f"good/{i:02}.jpg" for i in range(10)),
        *(f"crack/{i}.png" for i in range(3)),
        *(f"chip/c{i}.PNG" for i in range(2)),
        "notes.txt",
    )


def listed(root: Path, **options):
    return list(samples(root, "mugs", **(OPTIONS | options)))


def names(found, split: str, label: int) -> list[str]:
    return [s.name for s in found if s.split == split and s.label == label]


def test_every_other_folder_is_a_defect(mugs):
    found = listed(mugs)
    assert len(names(found, "train", 0)) == 8
    assert len(names(found, "test", 0)) == 2
    assert names(found, "test", 1) == [
        "chip/c0.PNG",
        "chip/c1.PNG",
        "crack/0.png",
        "crack/1.png",
        "crack/2.png",
    ]
    assert {s.defect for s in found} == {"good", "chip", "crack"}
    assert all(s.mask is None and s.category == "mugs" for s in found)
    assert len({s.name for s in found}) == 15


def test_share_is_seeded(mugs):
    drawn = [tuple(names(listed(mugs, split_seed=seed), "test", 0)) for seed in range(8)]
    assert drawn == [tuple(names(listed(mugs, split_seed=seed), "test", 0)) for seed in range(8)]
    assert len(set(drawn)) > 3


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(2, 0.01, 1), (2, 0.99, 1), (1, 0.5, 0), (10, 0.5, 5)]
)
def test_both_sides_get_an_image(tmp_path, count, share, held_out):
    touch(tmp_path, *(f"good/{i}.png" for i in range(count)))
    found = listed(tmp_path, normal_test_share=share)
    assert len(names(found, "test", 0)) == held_out
    assert len(names(found, "train", 0)) == count - held_out


def test_own_normal_test_folder(mugs):
    touch(mugs, "good_test/a.png")
    found = listed(mugs, normal_test_dir="good_test")
    assert len(names(found, "train", 0)) == 10
    assert names(found, "test", 0) == ["good_test/a.png"]
    assert "good_test" not in {s.defect for s in found}


def test_named_defect_folders(mugs):
    assert {s.defect for s in listed(mugs, abnormal_dirs=["chip"])} == {"good", "chip"}
    assert {s.defect for s in listed(mugs, abnormal_dirs="chip")} == {"good", "chip"}


def test_masks_by_defect_folder_and_by_common_folder(mugs):
    touch(
        mugs,
        "masks/crack/0_mask.png",
        "masks/crack/1.png",
        "masks/2.png",
        "masks/c0.png",
        "masks/c1_mask.PNG",
    )
    found = listed(mugs, mask_dir="masks", mask_above=9)
    masks = {s.name: s.mask.paths[0].relative_to(mugs).as_posix() for s in found if s.label}
    assert masks == {
        "crack/0.png": "masks/crack/0_mask.png",
        "crack/1.png": "masks/crack/1.png",
        "crack/2.png": "masks/2.png",
        "chip/c0.PNG": "masks/c0.png",
        "chip/c1.PNG": "masks/c1_mask.PNG",
    }
    assert {s.mask.above for s in found if s.label} == {9}
    assert all(s.mask is None for s in found if not s.label)


def test_missing_mask(mugs):
    touch(mugs, "masks/0.png", "masks/c0.png", "masks/c1.png")
    with pytest.raises(
        DataError, match=r"crack/1\.png and 1 more images; looked for .*masks/crack/1_mask\.png"
    ):
        listed(mugs, mask_dir="masks")


def test_a_mask_for_two_images_is_refused(mugs):
    touch(mugs, "chip/0.png", "masks/0.png", "masks/1.png", "masks/2.png", "masks/c0.png", "masks/c1.png")
    with pytest.raises(DataError, match=r"masks/0\.png could be the mask of 2 abnormal images"):
        listed(mugs, mask_dir="masks")


def test_mask_folder_is_not_taken_for_defects(mugs):
    touch(mugs, "Masks/0.png")
    with pytest.raises(DataError, match=r"Masks looks like a folder of masks.*mask_dir=Masks"):
        listed(mugs)


def test_wrong_folder_names_offer_what_is_there(mugs):
    with pytest.raises(DataError, match=r"no folder 'god' in .*normal_dir names\. Did you mean good"):
        listed(mugs, normal_dir="god")
    with pytest.raises(DataError, match=r"abnormal_dirs names\. There are: chip, crack, good"):
        listed(mugs, abnormal_dirs=["xyz"])


def test_empty_normal_folder(tmp_path):
    touch(tmp_path, "good/readme.txt")
    with pytest.raises(DataError, match=r"no images in the normal folder .*good \(1 entries: readme\.txt\)"):
        listed(tmp_path)


def test_outside_of_the_root(mugs):
    with pytest.raises(UsageError, match=r"lies outside of dataset\.root"):
        listed(mugs / "good", normal_dir="../crack")


@pytest.mark.parametrize("share", [0, 1, 20])
def test_share_out_of_range(mugs, share):
    with pytest.raises(UsageError, match="normal_test_share is a share"):
        listed(mugs, normal_test_share=share)

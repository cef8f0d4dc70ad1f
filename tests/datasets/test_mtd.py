"""Magnetic tiles: the layout of the repository and the drawn split."""

from pathlib import Path

import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.mtd import samples
from ad_bench.errors import CategoryMissing, DataError, UsageError

SPLIT = {"train_share": 0.8, "split_seed": 0, "mask_above": 127}


def tiles(root: Path, free: int = 10, broken: int = 3) -> Path:
    for folder, count in (("MT_Free", free), ("MT_Break", broken)):
        (root / folder / "Imgs").mkdir(parents=True)
        for index in range(count):
            for suffix in ("jpg", "png"):
                (root / folder / "Imgs" / f"exp1_num_{index}.{suffix}").touch()
    return root


def test_split(tmp_path):
    listed = list(samples(tiles(tmp_path), "mtd", **SPLIT))
    train = [s for s in listed if s.split == "train"]
    test = [s for s in listed if s.split == "test"]
    assert (len(train), sum(s.label == 0 for s in test), sum(s.label for s in test)) == (8, 2, 3)
    assert {s.defect for s in test if s.label} == {"break"}
    assert all(s.mask.above == 127 and s.mask.paths[0].suffix == ".png" for s in test if s.label)
    assert all(s.mask is None for s in listed if not s.label)
    for part in (train, test):
        assert [s.name for s in part] == sorted(s.name for s in part)
    assert len({s.name for s in listed}) == 13


def test_split_is_pinned(tmp_path):
    # Written down once: no version of Python or numpy may move an image to the other side.
    def held_out(seed: int) -> set[str]:
        listed = samples(tmp_path, "mtd", **(SPLIT | {"split_seed": seed}))
        return {s.image.stem for s in listed if s.split == "test" and s.label == 0}

    tiles(tmp_path)
    assert held_out(0) == {"exp1_num_4", "exp1_num_8"}
    assert held_out(1) == {"exp1_num_3", "exp1_num_6"}


def test_missing_mask(tmp_path):
    (tiles(tmp_path) / "MT_Break/Imgs/exp1_num_1.png").unlink()
    with pytest.raises(DataError, match=r"no mask for .*exp1_num_1\.jpg; looked for .*exp1_num_1\.png"):
        list(samples(tmp_path, "mtd", **SPLIT))


def test_other_layouts_are_described(tmp_path):
    (tmp_path / "archive").mkdir()
    with pytest.raises(CategoryMissing, match=r"no folder MT_Free in .* \(1 entries: archive/\)"):
        list(samples(tmp_path, "mtd", **SPLIT))
    (tmp_path / "MT_Free").mkdir()
    with pytest.raises(DataError, match=r"no folder Imgs in .*MT_Free \(an empty folder\)"):
        list(samples(tmp_path, "mtd", **SPLIT))


@pytest.mark.parametrize("share", [0, 1, 80])
def test_share_out_of_range(tmp_path, share):
    with pytest.raises(UsageError, match="train_share is a share"):
        list(samples(tiles(tmp_path), "mtd", **(SPLIT | {"train_share": share})))


def test_real_tiles(unpacked):
    listed = list(samples(unpacked("mtd/mtd.tar"), "mtd", **SPLIT))
    assert sum(s.split == "train" for s in listed) == 762
    counts = {"good": 190, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
    test = [s for s in listed if s.split == "test"]
    assert {d: sum(s.defect == d for s in test) for d in counts} == counts
    # the four defects whose masks hold no pixel above 127, and one that has its share
    black = {"exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057"}
    found = set()
    for sample in (s for s in test if s.defect == "uneven"):
        mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        if not mask.any():
            found.add(sample.image.stem)
    assert found == black

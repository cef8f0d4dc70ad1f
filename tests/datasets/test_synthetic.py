"""The synthetic set: the same bytes everywhere, exact masks, and a folder that is whole or not there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.datasets import synthetic
from ad_bench.datasets.dataset import DataSet
from ad_bench.errors import AdbenchError, CategoryMissing, DataError

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "synthetic-v1"
    synthetic.prepare(root)  # raises if the digest of the files is not the committed one
    return root


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A root for a set of nine images that takes a blink to make."""
    monkeypatch.setattr(synthetic, "CATEGORIES", ("weave",))
    monkeypatch.setattr(synthetic, "TRAIN", 3)
    monkeypatch.setattr(synthetic, "TEST_NORMAL", 1)
    monkeypatch.setattr(synthetic, "TEST_PER_DEFECT", 1)
    synthetic._write_set(tmp_path / "trial")
    monkeypatch.setattr(synthetic, "DIGEST", synthetic.folder_digest(tmp_path / "trial"))
    return tmp_path / "data" / "few"


def test_the_files_are_the_committed_ones_byte_for_byte(made: Path) -> None:
    assert synthetic.folder_digest(made) == synthetic.DIGEST


def test_pixels_do_not_depend_on_what_was_drawn_before(made: Path) -> None:
    for name in ("mosaic/test/stain/005.png", "chip/train/good/039.png", "gear/test/warp/000.png"):
        category, split, defect, number = Path(name).with_suffix("").parts
        drawn = synthetic.draw(category, split, defect, int(number)).image
        np.testing.assert_array_equal(np.asarray(Image.open(made / name)), drawn)


def test_raw_numbers_are_those_of_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 0, as published with its reference code.
    draws = synthetic.Draws()
    assert [int(v) for v in draws.raw(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_sine_is_a_sine() -> None:
    turns = np.linspace(-3, 3, 1001)
    assert np.abs(synthetic._sine(turns) - np.sin(2 * np.pi * turns)).max() < 0.0012


def test_noise_has_mean_0_and_deviation_1() -> None:
    noise = synthetic.Draws(5).grain(3, 200, 200)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


def test_layout_and_counts_are_those_of_the_yaml(made: Path) -> None:
    from omegaconf import OmegaConf

    node = OmegaConf.create({"dataset": OmegaConf.load(CONF / "dataset" / "synthetic.yaml")})
    node.paths = {"cache": str(made.parent)}
    dataset = DataSet.from_config(node.dataset)
    assert dataset.root == made
    assert dataset.categories == synthetic.CATEGORIES
    assert dataset.textures == synthetic.TEXTURES
    assert dataset.input == {"size": [synthetic.SIZE, synthetic.SIZE]}
    for category in dataset.categories:
        report = dataset.check(category, deep=True)
        assert report.ok, report.problems
        assert not report.warnings
        assert report.found == {"train": 40, "test_normal": 20, "test_anomalous": 30, "masks": 30}
        kinds = Counter(sample.defect for sample in dataset.samples(category) if sample.label)
        assert kinds == dict.fromkeys(synthetic.DEFECTS, 6)


def test_samples_come_in_name_order_and_name_their_masks(made: Path) -> None:
    listed = list(synthetic.samples(made, "gear"))
    for split in ("train", "test"):
        names = [sample.name for sample in listed if sample.split == split]
        assert names == sorted(names)
    sample = next(sample for sample in listed if sample.defect == "stain")
    assert sample.name == "gear/test/stain/000.png"
    assert sample.mask is not None
    assert sample.mask.paths == (made / "gear/ground_truth/stain/000_mask.png",)
    assert {s.label for s in listed if s.split == "train"} == {0}
    assert all(s.mask is None for s in listed if s.label == 0)


@pytest.mark.parametrize("category", synthetic.CATEGORIES)
@pytest.mark.parametrize("defect", synthetic.DEFECTS)
def test_masks_hold_what_the_defect_changed(made: Path, category: str, defect: str) -> None:
    for index in range(synthetic.TEST_PER_DEFECT):
        picture = synthetic.draw(category, "test", defect, index)
        stored = Image.open(made / category / "ground_truth" / defect / f"{index:03d}_mask.png")
        np.testing.assert_array_equal(np.asarray(stored), picture.mask * 255)
        change = np.abs(picture.image.astype(int) - picture.clean.astype(int)).max(axis=2)
        assert not change[~picture.mask].any()
        assert (change[picture.mask] >= synthetic.VISIBLE).mean() > 0.4  # the rest: holes that were closed
        assert 90 < picture.mask.sum() < 0.05 * picture.mask.size


@pytest.mark.parametrize("category", synthetic.CATEGORIES)
def test_normal_images_hold_no_defect_and_are_all_different(category: str) -> None:
    seen = set()
    for split, count in (("train", synthetic.TRAIN), ("test", synthetic.TEST_NORMAL)):
        for index in range(count):
            picture = synthetic.draw(category, split, "good", index)
            assert picture.image is picture.clean
            assert not picture.mask.any()
            seen.add(picture.image.tobytes())
    assert len(seen) == synthetic.TRAIN + synthetic.TEST_NORMAL


def test_no_defect_is_a_matter_of_brightness(made: Path) -> None:
    # The mean level under the masks lies among those of the same places in normal images.
    for category in synthetic.CATEGORIES:
        normal = np.stack([synthetic.draw(category, "test", "good", i).image.mean(axis=2) for i in range(8)])
        beyond = 0
        for defect in synthetic.DEFECTS:
            picture = synthetic.draw(category, "test", defect, 0)
            level = picture.image.mean(axis=2)[picture.mask].mean()
            usual = normal[:, picture.mask].mean(axis=1)
            beyond += not usual.min() - 15 <= level <= usual.max() + 15
        assert beyond <= 2, category


def test_whole_set_is_left_alone(few: Path) -> None:
    synthetic.prepare(few)
    before = {path: path.stat().st_mtime_ns for path in few.rglob("*")}
    synthetic.prepare(few)
    assert {path: path.stat().st_mtime_ns for path in few.rglob("*")} == before


@pytest.mark.parametrize("harm", ["missing", "altered", "extra", "cut"])
def test_damaged_set_is_made_anew(few: Path, harm: str) -> None:
    synthetic.prepare(few)
    victim = few / "weave" / "train" / "good" / "001.png"
    if harm == "missing":
        victim.unlink()
    elif harm == "altered":
        content = bytearray(victim.read_bytes())
        content[500] ^= 1
        victim.write_bytes(content)
    elif harm == "extra":
        victim.with_name("003.png").write_bytes(victim.read_bytes())
    else:
        victim.write_bytes(victim.read_bytes()[:1000])
    synthetic.prepare(few)
    assert synthetic.folder_digest(few) == synthetic.DIGEST
    assert [path.name for path in few.parent.iterdir()] == [few.name]


def test_foreign_folder_is_refused_and_kept(few: Path) -> None:
    few.mkdir(parents=True)
    (few / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match=r"dataset\.root"):
        synthetic.prepare(few)
    assert [path.name for path in few.iterdir()] == ["mine.txt"]


def test_empty_folder_is_filled_and_a_file_is_refused(few: Path) -> None:
    few.mkdir(parents=True)
    synthetic.prepare(few)
    assert synthetic.folder_digest(few) == synthetic.DIGEST
    file = few.with_name("file")
    file.write_text("")
    with pytest.raises(DataError, match="is a file"):
        synthetic.prepare(file)


def test_other_pixels_than_the_committed_are_refused(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "DIGEST", "0" * 64)
    with pytest.raises(AdbenchError, match="digest"):
        synthetic.prepare(few)
    assert not any(few.parent.iterdir())


def test_killed_process_leaves_nothing_that_counts(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, pixels: np.ndarray) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_write_png", killed)
        with pytest.raises(KeyboardInterrupt):
            synthetic.prepare(few)
    assert not few.exists()
    old = few.with_name(f".{few.name}-making-1-aaaa")  # as kill -9 would leave it
    old.mkdir()
    (old / "part.png").write_bytes(b"")
    os.utime(old, (time.time() - 7200,) * 2)
    synthetic.prepare(few)
    assert [path.name for path in few.parent.iterdir()] == [few.name]


def test_two_processes_may_prepare_at_once(tmp_path: Path) -> None:
    root = tmp_path / "synthetic-v1"
    code = "import sys; from pathlib import Path; from ad_bench.datasets import synthetic as s; "
    code += "s.CATEGORIES = ('gear',); s.TRAIN = 4; s.TEST_NORMAL = s.TEST_PER_DEFECT = 1; "
    code += "s.DIGEST = sys.argv[2]; s.prepare(Path(sys.argv[1]))"
    small = "from pathlib import Path; import sys; from ad_bench.datasets import synthetic as s; "
    small += "s.CATEGORIES = ('gear',); s.TRAIN = 4; s.TEST_NORMAL = s.TEST_PER_DEFECT = 1; "
    small += "s._write_set(Path(sys.argv[1])); print(s.folder_digest(Path(sys.argv[1])))"
    env = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    alone = subprocess.run(
        [sys.executable, "-c", small, str(tmp_path / "alone")], env=env, capture_output=True, text=True
    )
    digest = alone.stdout.strip()
    running = [subprocess.Popen([sys.executable, "-c", code, str(root), digest], env=env) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert synthetic.folder_digest(root) == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "synthetic-v1"]


def test_loser_of_a_race_keeps_the_winner_s_set(few: Path) -> None:
    synthetic.prepare(few)
    marker = few / "weave" / "train" / "good" / "000.png"
    before = marker.stat().st_ino
    late = few.with_name(f".{few.name}-making-2-bbbb")
    synthetic._write_set(late)
    synthetic._put_in_place(late, few)
    assert marker.stat().st_ino == before


def test_what_is_not_there_is_said_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(CategoryMissing, match="data prepare dataset=synthetic"):
        list(synthetic.samples(tmp_path, "gear"))
    with pytest.raises(CategoryMissing, match=r"'weav'.* Did you mean weave"):
        list(synthetic.samples(tmp_path, "weav"))


def test_png_is_read_back_by_pillow(tmp_path: Path) -> None:
    grey = np.arange(70, dtype=np.uint8).reshape(7, 10)
    synthetic._write_png(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grey.png")), grey)
    wide = (np.arange(3 * 300 * 200) % 251).astype(np.uint8).reshape(200, 300, 3)  # more than two blocks
    synthetic._write_png(tmp_path / "wide.png", wide)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "wide.png")), wide)
    first = hashlib.sha256((tmp_path / "grey.png").read_bytes()).hexdigest()
    assert first == "e031f3db95c6deb1cd5a891f8da486c5ed96df75a6b9366764de79f313f66cb8"

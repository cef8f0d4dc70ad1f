"""The image store: the same bits with and without it, whole or absent. Processes: test_store_processes.py."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.datasets import building, probes
from ad_bench.datasets import store as module
from ad_bench.datasets.images import decode
from ad_bench.datasets.store import open_store, verify
from ad_bench.errors import DataError, ResultsError
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample

SQUARE = Geometry(size=(16, 24))


def make(root: Path, count: int = 12, shape: tuple[int, int] | None = None) -> list[Sample]:
    random = np.random.default_rng(5)
    samples = []
    for index in range(count):
        size = shape or tuple(random.integers(5, 60, 2))
        path = root / f"{index:03}.png"
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, path.name, "nut", "train", 0))
    return samples


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    (tmp_path / "data").mkdir()
    return make(tmp_path / "data")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "images").iterdir())


@pytest.mark.parametrize("workers", [1, 3, None])
def test_on_disk_equals_in_memory_equals_one_by_one(samples, cache, workers):
    expected = np.stack([SQUARE.forward(decode(sample.image)) for sample in samples])
    memory, disk = (open_store(samples, SQUARE, place, workers) for place in (None, cache))
    for store in (memory, disk):
        assert store.images.dtype == np.uint8
        assert np.array_equal(store.images, expected)
        assert store.original_sizes.tolist() == [list(decode(s.image).shape[:2]) for s in samples]
        assert len(store) == 12
        assert np.array_equal(store[3], expected[3])
        assert np.array_equal(store[[5, 2]], expected[[5, 2]])
        with pytest.raises(ValueError, match="read-only"):
            store.images[0] = 0
    assert memory.path is None
    assert isinstance(disk.images, np.memmap)
    assert json.loads((disk.path / "store.json").read_text())["images"] == 12


def test_second_time_decodes_nothing(samples, cache, monkeypatch):
    first = open_store(samples, SQUARE, cache)
    monkeypatch.setattr(module, "decode", lambda path: pytest.fail(f"decoded {path} again"))
    again = open_store(samples, SQUARE, cache)
    assert again.path == first.path
    assert np.array_equal(again.images, first.images)
    assert left(cache) == [first.path.name]


def test_progress_counts_up(samples, cache):
    seen: list[tuple[int, int]] = []
    open_store(samples, SQUARE, cache, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


def test_what_changes_the_key(samples, cache):
    def key(which=samples, geometry=SQUARE) -> str:
        return open_store(which, geometry, cache).path.name

    keys = [key()]
    keys += [
        key(geometry=geometry)
        for geometry in (
            Geometry(size=(16, 25)),
            Geometry(size=(16, 24), interpolation="bicubic"),
            Geometry(size=(16, 24), channel_order="bgr"),
            Geometry(size=(16, 24), antialias=False),
        )
    ]
    keys += [key(samples[:-1]), key(samples[::-1])]
    assert len(set(keys)) == 7
    # One byte in a file of the same size, and its time put back: the content counts, not the clock.
    path = samples[4].image
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"004\.png"):  # the checksum of the PNG no longer holds
        key()
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    assert key() == keys[0]  # and another time of the same content is the same


def test_moved_data_finds_its_store(samples, cache, tmp_path):
    first = open_store(samples, SQUARE, cache)
    moved = Path(shutil.copytree(tmp_path / "data", tmp_path / "elsewhere"))
    again = [Sample(moved / s.name, s.name, "nut", "train", 0) for s in samples]
    assert open_store(again, SQUARE, cache).path == first.path


@pytest.mark.parametrize("row", [0, 150, 299])
def test_every_byte_of_a_large_file_counts(tmp_path, cache, row):
    path = tmp_path / "big.bmp"  # not compressed: 270 kB, whatever its pixels are
    pixels = np.zeros((300, 300, 3), np.uint8)
    stores = []
    for value in (0, 1):
        pixels[row, 150] = value
        Image.fromarray(pixels).save(path)
        os.utime(path, ns=(10**18, 10**18))
        stores.append(open_store([Sample(path, "big.bmp", "nut", "train", 0)], Geometry(), cache))
    assert stores[0].path != stores[1].path
    assert stores[1].images[0, row, 150].tolist() == [1, 1, 1]


def test_a_file_replaced_by_an_older_one_of_the_same_size_is_noticed(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(probes, "SETTLING", -(10**12))  # as if all had been there for long
    paths = [tmp_path / name for name in ("a.bmp", "b.bmp")]
    for value, path in enumerate(paths):
        Image.new("RGB", (8, 8), (value, value, value)).save(path)
        os.utime(path, ns=(10**18, 10**18))
    sample = [Sample(paths[0], "a.bmp", "nut", "train", 0)]
    assert open_store(sample, Geometry(), cache).images.max() == 0
    paths[1].replace(paths[0])
    assert open_store(sample, Geometry(), cache).images.max() == 1


@pytest.mark.parametrize("settling", [probes.SETTLING, -(10**12)])
def test_a_file_that_changes_while_it_is_read_leaves_no_store(samples, cache, monkeypatch, settling):
    monkeypatch.setattr(probes, "SETTLING", settling)

    def meanwhile(done, total):
        if done == 8:
            Image.new("RGB", (9, 9)).save(samples[7].image)

    with pytest.raises(DataError, match=r"007\.png changed while the images were read"):
        open_store(samples, SQUARE, cache, progress=meanwhile)
    assert left(cache) == []
    assert (open_store(samples, SQUARE, cache).images[7] == 0).all()


def test_touched_files_are_no_change(samples, cache, monkeypatch):
    first = open_store(samples, SQUARE, cache)
    for sample in samples:
        os.utime(sample.image)
    monkeypatch.setattr(module, "decode", lambda path: pytest.fail(f"decoded {path} again"))
    assert open_store(samples, SQUARE, cache).path == first.path


@pytest.mark.parametrize("workers", [1, 3])
def test_a_broken_image_is_named_and_nothing_stays(samples, cache, workers):
    samples[7].image.write_bytes(samples[7].image.read_bytes()[:-30])
    for place in (cache, None):
        with pytest.raises(DataError, match=r"007\.png is damaged"):
            open_store(samples, SQUARE, place, workers)
    assert left(cache) == []


def test_the_first_broken_image_is_the_one_named(samples, cache):
    for index in (9, 3):
        samples[index].image.write_text("no image")
    for _ in range(5):
        with pytest.raises(DataError, match=r"003\.png"):
            open_store(samples, SQUARE, cache, 4)


def test_an_absent_image_is_named(samples, cache):
    samples[2].image.unlink()
    with pytest.raises(DataError, match=r"no such file: .*002\.png"):
        open_store(samples, SQUARE, cache)


@pytest.mark.parametrize(
    ("geometry", "text"), [(Geometry(short=16), "input.short=16"), (Geometry(), "original")]
)
def test_different_shapes_are_refused_where_the_geometry_keeps_them(tmp_path, cache, geometry, text):
    samples = make(tmp_path, 2, (20, 30))
    Image.new("RGB", (33, 21)).save(samples[1].image)
    with pytest.raises(DataError, match=rf"{text}.*000\.png is 20x30, 001\.png is 21x33.*set input\.size"):
        open_store(samples, geometry, cache)
    assert left(cache) == []


def test_equal_shapes_pass_without_a_crop(tmp_path, cache):
    samples = make(tmp_path, 3, (20, 30))
    assert open_store(samples, Geometry(short=16), cache).images.shape == (3, 16, 24, 3)
    assert open_store(samples, Geometry(), None).images.shape == (3, 20, 30, 3)


def test_no_samples():
    with pytest.raises(ValueError, match="at least one sample"):
        open_store([], SQUARE, None)


def test_disk_too_small_is_said_before_writing(samples, cache, monkeypatch):
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ResultsError, match=r"12 images need 0\.00 GB.*free some space.*store=false"):
        open_store(samples, SQUARE, cache)
    assert left(cache) == []


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full (Linux)"
)
def test_disk_full_while_writing(samples, cache, monkeypatch):
    real_open = Path.open

    def full(path, mode="r", *rest, **options):
        return real_open(
            Path("/dev/full") if path.name == "images.npy" and "w" in mode else path, mode, *rest, **options
        )

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResultsError, match=f"{os.strerror(errno.ENOSPC)}.*free some space") as caught:
        open_store(samples, SQUARE, cache)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert left(cache) == []


def test_a_cache_that_is_a_file(samples, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(ResultsError, match=r"cannot keep images below .*point paths\.cache elsewhere"):
        open_store(samples, SQUARE, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "empty", "sizes", "gone"])
def test_a_damaged_store_is_made_again(samples, cache, damage):
    first = open_store(samples, SQUARE, cache)
    expected, images = np.array(first.images), first.path / "images.npy"
    if damage == "sizes":
        np.save(first.path / "sizes.npy", first.original_sizes[:-1])
    elif damage == "gone":
        images.unlink()
    else:
        data = images.read_bytes()
        images.unlink()  # and not written in place: `first` is mapped from it
        images.write_bytes(data[:-1] if damage == "cut" else b"")
    again = open_store(samples, SQUARE, cache)
    assert np.array_equal(again.images, expected)
    assert left(cache) == [first.path.name]


def test_losing_the_race_uses_the_winners_store(samples, cache, monkeypatch):
    # Another process finishes while this one decodes its last image.
    winner = open_store(samples, SQUARE, cache)
    aside = winner.path.with_name("aside")
    winner.path.rename(aside)

    def meanwhile(done, total):
        if done == total:
            aside.rename(winner.path)

    number = (winner.path.parent / "aside").stat().st_ino
    store = open_store(samples, SQUARE, cache, progress=meanwhile)
    assert store.path.stat().st_ino == number
    assert np.array_equal(store.images, winner.images)
    assert left(cache) == [winner.path.name]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name an open file")
def test_all_is_on_the_disk_before_it_has_its_name(samples, cache, monkeypatch):
    steps: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(handle):
        steps.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real_sync(handle)

    def rename(path, target):
        steps.append("renamed")
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    open_store(samples, SQUARE, cache)
    before = steps[: steps.index("renamed")]
    assert sorted(before)[1:] == ["images.npy", "sizes.npy", "store.json", "sums.npy"]
    assert before[-1].startswith(building.PREFIX)  # the folder's own entries, last
    assert steps[len(before) :] == ["renamed", "images"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name an open file")
def test_a_file_that_does_not_reach_the_disk_gets_no_name(samples, cache, monkeypatch):
    real = os.fsync

    def broken(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().name == "images.npy":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ResultsError, match=os.strerror(errno.EIO)):
        open_store(samples, SQUARE, cache)
    assert left(cache) == []


def test_verify_names_the_images_whose_bits_have_changed(samples, cache):
    store = open_store(samples, SQUARE, cache)
    assert verify(store) == []
    with (store.path / "images.npy").open("r+b") as file:
        for index in (3, 11):
            file.seek(-(12 - index) * 16 * 24 * 3 + 100, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 64]))
    assert verify(store) == [3, 11]
    sizes = np.load(store.path / "sizes.npy")
    sizes[5, 0] += 1
    np.save(store.path / "sizes.npy", sizes)
    assert verify(open_store(samples, SQUARE, cache)) == [3, 5, 11]
    assert verify(open_store(samples, SQUARE, None)) == []


@pytest.mark.parametrize("damage", ["gone", "short", "cut"])
def test_what_cannot_be_verified(samples, cache, damage):
    store = open_store(samples, SQUARE, cache)
    sums = store.path / "sums.npy"
    if damage == "gone":
        sums.unlink()
    elif damage == "short":
        np.save(sums, np.load(sums)[:-1])
    else:
        (store.path / "images.npy").unlink()
        (store.path / "images.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be verified.*delete the folder"):
        verify(store)


def test_a_read_only_cache_serves_what_it_has(guarded, monkeypatch):
    data, cache = guarded / "data", guarded / "cache"
    data.mkdir()
    samples = make(data)
    expected = np.array(open_store(samples, SQUARE, cache).images)
    for path in (*cache.rglob("*"), cache):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert np.array_equal(open_store(samples, SQUARE, cache).images, expected)
    with pytest.raises(ResultsError, match=f"{os.strerror(errno.EACCES)}.*point paths\\.cache elsewhere"):
        open_store(samples[1:], SQUARE, cache)


def test_bottle_and_tiles(unpacked, cache):
    from ad_bench.datasets import mtd, mvtec

    bottle = list(mvtec.samples(unpacked("mvtec_bottle/bottle_300.tar"), "bottle"))[200:220]
    made = open_store(bottle, Geometry(short=256, crop=224), cache)
    assert made.images.shape == (20, 224, 224, 3)
    assert (made.original_sizes == 300).all()
    tiles = list(mtd.samples(unpacked("mtd/mtd.tar"), "mtd", 0.8, 0, 127))[::50]
    made = open_store(tiles, Geometry(size=(256, 256)), cache)
    assert made.images.shape == (27, 256, 256, 3)
    assert len(np.unique(made.original_sizes, axis=0)) > 20
    with pytest.raises(DataError, match="differ in shape"):
        open_store(tiles, Geometry(short=256), cache)

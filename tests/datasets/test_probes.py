"""What is remembered of files: no change is missed, no unchanged file is read, no damage matters."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from ad_bench.datasets import probes as module
from ad_bench.datasets.probes import contents
from ad_bench.errors import DataError


@pytest.fixture
def files(tmp_path) -> list[Path]:
    (tmp_path / "data").mkdir()
    paths = [tmp_path / "data" / f"{index:03}.png" for index in range(20)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * (1000 * index))
    return paths


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "probes"


@pytest.fixture
def settled(monkeypatch) -> None:
    """As if every file had been there for long."""
    monkeypatch.setattr(module, "SETTLING", -(10**12))


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are read from now on."""
    names: list[str] = []
    real = module._read

    def counted(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(module, "_read", counted)
    return names


def truth(paths: list[Path]) -> list[tuple[int, str]]:
    return [(len(data), hashlib.sha256(data).hexdigest()) for data in (path.read_bytes() for path in paths)]


@pytest.mark.parametrize("threads", [1, 3])
def test_sizes_and_sums(files, folder, threads, settled):
    for _ in range(2):
        assert contents(files, folder, threads) == truth(files)
        assert contents(files[:1], folder, threads) == truth(files[:1])
        assert contents(files[::-1], folder, threads) == truth(files)[::-1]


def test_unchanged_files_are_not_read(files, folder, settled, read):
    contents(files, folder, 1)
    assert len(read) == 20
    contents(files, folder, 1)
    assert len(read) == 20


@pytest.mark.parametrize("change", ["same size", "same size and mtime", "replaced", "longer", "touched"])
def test_a_changed_file_alone_is_read(files, folder, settled, read, change):
    contents(files, folder, 1)
    read.clear()
    path, before = files[7], files[7].stat()
    if change == "touched":
        os.utime(path)
    elif change == "replaced":
        other = path.with_name("other")
        other.write_bytes(b"x" * before.st_size)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)
    else:
        path.write_bytes(b"x" * (before.st_size + (change == "longer")))
        if change == "same size and mtime":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents(files, folder, 1) == truth(files)
    assert read == ["007.png"]
    contents(files, folder, 1)
    assert read == ["007.png"]


def test_a_young_file_is_read_again_until_its_clock_has_moved_on(files, folder, read, monkeypatch):
    contents(files, folder, 1)
    contents(files, folder, 1)
    assert len(read) == 40
    later = time.time_ns() + module.SETTLING + 10**9
    monkeypatch.setattr(module.time, "time_ns", lambda: later)
    contents(files, folder, 1)
    assert len(read) == 60
    contents(files, folder, 1)
    assert len(read) == 60


def test_a_change_within_the_same_tick_of_the_clock(files, folder):
    # No wait between the writes: their times may be equal, and the sizes are.
    for value in range(50):
        files[5].write_bytes(bytes([value]) * 5000)
        [(_, found)] = contents(files[5:6], folder, 1)
        assert found == hashlib.sha256(bytes([value]) * 5000).hexdigest()


def test_a_file_written_while_it_is_read_is_not_remembered(files, folder, settled, read, monkeypatch):
    real = hashlib.file_digest

    def slow(file, name):
        found = real(file, name)
        if Path(file.name).name == "003.png":
            with files[3].open("ab") as growing:
                growing.write(b"more")
        return found

    monkeypatch.setattr(module.hashlib, "file_digest", slow)
    contents(files, folder, 1)
    monkeypatch.undo()
    monkeypatch.setattr(module, "SETTLING", -(10**12))
    assert contents(files, folder, 1) == truth(files)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "zeros", "longer", "gone", "folder"])
def test_a_damaged_index_is_made_again(files, folder, settled, read, damage):
    contents(files, folder, 1)
    [index] = folder.iterdir()
    whole = index.read_bytes()
    index.unlink()
    flipped = bytearray(whole)
    flipped[-1] ^= 1  # in the last digest: without the checksum a wrong one would be believed
    data = {"cut": whole[:-1], "empty": b"", "flipped": flipped, "zeros": bytes(len(whole))}
    data["longer"] = whole + b"x"
    if damage in data:
        index.write_bytes(data[damage])
    elif damage == "folder":
        index.mkdir()
    read.clear()
    assert contents(files, folder, 1) == truth(files)
    assert len(read) == 20
    if damage != "folder":  # that stays in the way; the answer is right all the same
        assert index.read_bytes() == whole
        contents(files, folder, 1)
        assert len(read) == 20
    assert [path.name for path in folder.iterdir()] == [index.name]


def test_an_index_that_is_being_read_stays_whole(files, folder, settled):
    contents(files, folder, 1)
    [index] = folder.iterdir()
    whole = index.read_bytes()
    with index.open("rb") as reader:
        files[0].write_bytes(b"new")
        contents(files, folder, 1)
        assert index.read_bytes() != whole
        assert reader.read() == whole


def test_data_sets_with_the_same_names_do_not_share(files, folder, tmp_path, settled):
    other = tmp_path / "other"
    other.mkdir()
    copies = [other / path.name for path in files]
    for path in copies:
        path.write_bytes(path.name.encode())
    for _ in range(2):
        assert contents(files, folder, 1) == truth(files)
        assert contents(copies, folder, 1) == truth(copies)
    assert len(list(folder.iterdir())) == 2


def test_relative_paths_mean_the_folder_they_are_read_in(files, folder, tmp_path, settled, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text(name)
    for name in ("one", "two", "one"):
        monkeypatch.chdir(tmp_path / name)
        assert contents([Path("a.png")], folder, 1) == truth([tmp_path / name / "a.png"])


def test_an_absent_file_is_named_and_the_first_of_several(files, folder, settled):
    contents(files, folder, 3)
    for index in (9, 4, 15):
        files[index].unlink()
    with pytest.raises(DataError, match=r"no such file: .*004\.png"):
        contents(files, folder, 3)


def test_a_folder_that_cannot_be_written_only_costs_time(files, tmp_path, settled, read):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert contents(files, tmp_path / "file" / "probes", 1) == truth(files)
    assert len(read) == 40


def test_slow_file_systems_are_asked_by_threads(tmp_path, folder, settled, monkeypatch):
    (tmp_path / "data").mkdir()
    paths = [tmp_path / "data" / f"{index:04}" for index in range(module.MANY + 100)]
    for path in paths:
        path.touch()
    expected = contents(paths, folder, 1)
    real, askers = os.stat, set()

    def distant(path, *rest, **options):
        askers.add(threading.get_ident())
        time.sleep(0.001)
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "stat", distant)
    monkeypatch.setattr(module, "_read", lambda path: pytest.fail(f"read {path} again"))
    assert contents(paths, folder, 1) == expected
    assert len(askers) > 8

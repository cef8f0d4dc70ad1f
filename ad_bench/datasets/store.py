"""The image store: every file of a list decoded and brought to a geometry once, then read from there.

On disk a store is one folder `<cache>/images/<key>/` with `images.npy` (N, h, w, 3), `sizes.npy` (N, 2),
`sums.npy` (N,) for `verify`, and a `store.json` for people. The key covers the geometry, the Pillow version,
and name, size and content of every file (`probes.py` says how a change is noticed). It is written to a
temporary folder and moved in one step when all of it is on the disk: a store is whole or absent. Of processes
that want the same one at once the first builds and the others wait (`building.py`). It takes N * h * w * 3
bytes: 0.8 GB for all of MVTec AD at 224 pixels. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from ad_bench.datasets.building import claim, discard, release, sweep, temporary, wait
from ad_bench.datasets.images import decode
from ad_bench.datasets.probes import Content, contents
from ad_bench.datasets.threads import ahead, cores
from ad_bench.errors import DataError, ResultsError
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample

RULES = 1  # raise it when decode or Geometry.forward give other pixels: old stores are then not found

Progress = Callable[[int, int], None]
Decoded = tuple[NDArray[np.uint8], tuple[int, int]]


@dataclass(frozen=True)
class ImageStore:
    """The images of a list of samples, in its order."""

    images: NDArray[np.uint8]  # (N, h, w, 3), read-only, memory-mapped where `path` is set
    original_sizes: NDArray[np.int64]  # (N, 2): height, width of the decoded originals
    path: Path | None = None  # the folder on disk, None where the store is off

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | Sequence[int]) -> NDArray[np.uint8]:
        return self.images[index]


def open_store(
    samples: Sequence[Sample],
    geometry: Geometry,
    cache: Path | None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """The samples' images under a geometry, decoded only if `cache` does not hold them yet.

    Without `cache` all is kept in memory, with the same bits. `workers` threads decode, one per core by
    default; `progress(done, total)` is called as images come, from another process too. A broken image raises
    DataError, a cache that is full or cannot be written ResultsError; nothing stays.
    """
    if not samples:
        raise ValueError("a store needs at least one sample; got none")
    threads = workers if workers else cores()
    if cache is None:
        return _in_memory(samples, geometry, threads, progress)
    home = Path(cache).expanduser() / "images"

    def read() -> list[Content]:
        return contents([sample.image for sample in samples], home.with_name("probes"), threads)

    files = read()
    found = home / _key(samples, geometry, files)
    try:
        store = _read(found, len(samples))
        if store is None:
            store = _made(
                found, samples, geometry, threads, progress, lambda: _unchanged(samples, files, read())
            )
    except OSError as error:
        raise ResultsError(
            f"cannot keep images below {home}: {error.strerror or error}; free some space, point paths.cache "
            "elsewhere, or run with store=false"
        ) from error
    if store is None:
        raise DataError(
            f"the image store {found} cannot be read back; run with store=false and check the disk"
        )
    with suppress(OSError):  # when it was last used, for whoever makes room; a shared cache may be read-only
        os.utime(found / "store.json")
    return store


def verify(store: ImageStore) -> list[int]:
    """The indices of the images that are no longer what was written, in order; reads all of them.

    Empty for a store in memory. DataError where the folder cannot be read or has no sums.
    """
    if store.path is None:
        return []
    try:
        sums = np.load(store.path / "sums.npy", allow_pickle=False)
        if sums.shape != (len(store),):
            raise ValueError(f"{sums.shape} sums for {len(store)} images")
        length, damaged = int(store.images[0].nbytes), []
        # Plain reads: a broken disk is then an OSError; through a memory map it would kill the process.
        with (store.path / "images.npy").open("rb") as file:
            file.seek(-length * len(store), os.SEEK_END)
            for index, (size, expected) in enumerate(zip(store.original_sizes, sums, strict=True)):
                if _sum(file.read(length), size) != expected:
                    damaged.append(index)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the image store {store.path} cannot be verified: {error}; delete the folder, it is made again"
        ) from error
    return damaged


def _sum(pixels: bytes | memoryview, size: Sequence[int] | NDArray[np.int64]) -> int:
    """CRC-32 of an image's pixels and original size."""
    return zlib.crc32(pixels, zlib.crc32(np.asarray(size, dtype="<i8").tobytes()))


def _in_memory(
    samples: Sequence[Sample], geometry: Geometry, threads: int, progress: Progress | None
) -> ImageStore:
    images: NDArray[np.uint8] | None = None
    sizes = np.empty((len(samples), 2), dtype=np.int64)
    for index, (pixels, size) in enumerate(_decoded(samples, geometry, threads, progress)):
        if images is None:
            images = np.empty((len(samples), *pixels.shape), dtype=np.uint8)
        images[index], sizes[index] = pixels, size
    assert images is not None  # open_store refuses an empty list
    images.flags.writeable = sizes.flags.writeable = False
    return ImageStore(images, sizes)


def _made(
    found: Path,
    samples: Sequence[Sample],
    geometry: Geometry,
    threads: int,
    progress: Progress | None,
    check: Callable[[], None],
) -> ImageStore | None:
    """The store, built here or by another process; None where it is damaged as soon as it is made."""
    found.parent.mkdir(parents=True, exist_ok=True)
    mine, waited = temporary(found), None
    try:
        while True:
            builder = claim(found, mine)
            store = _read(found, len(samples))
            if store is not None:
                return store
            if builder is None or builder == waited:
                break
            wait(found, builder, partial(_watched, builder, len(samples), progress))
            waited = builder
        sweep(found.parent)
        _build(mine, samples, geometry, threads, progress)
        check()
        _move(mine, found)
    finally:
        release(found, mine)
        shutil.rmtree(mine, ignore_errors=True)
    return _read(found, len(samples))


def _build(
    folder: Path, samples: Sequence[Sample], geometry: Geometry, threads: int, progress: Progress | None
) -> None:
    folder.mkdir()
    sizes = np.empty((len(samples), 2), dtype=np.int64)
    sums = np.empty(len(samples), dtype=np.uint32)
    # Plain writes: a full disk is then an OSError; through a memory map it would kill the process.
    with (folder / "images.npy").open("wb") as file:
        for index, (pixels, size) in enumerate(_decoded(samples, geometry, threads, progress)):
            if index == 0:
                _start(file, (len(samples), *pixels.shape))
            file.write(pixels.data)
            sizes[index], sums[index] = size, _sum(pixels.data, size)
    np.save(folder / "sizes.npy", sizes)
    np.save(folder / "sums.npy", sums)
    about = {
        "images": len(samples),
        "categories": sorted({sample.category for sample in samples}),
        "splits": sorted({sample.split for sample in samples}),
        "geometry": asdict(geometry),
        "first": samples[0].name,
        "pillow": PIL.__version__,
    }
    (folder / "store.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _move(folder: Path, found: Path) -> None:
    """Give a whole folder its name, after its bytes are on the disk: no loss of power leaves it torn."""
    for path in folder.iterdir():
        _sync(path)
    with suppress(OSError):  # not every file system can do it for folders, and does without
        _sync(folder)
    try:
        folder.rename(found)
    except OSError:
        if not found.is_dir():
            raise
        return  # Another process was first. Same key, same content.
    with suppress(OSError):
        _sync(found.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _watched(builder: Path, total: int, progress: Progress | None) -> int:
    """How many images another process has written so far; shown as one's own progress."""
    done = 0
    with suppress(OSError, ValueError), (builder / "images.npy").open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        done = (os.fstat(file.fileno()).st_size - file.tell()) // int(np.prod(shape[1:]))
    if done and progress is not None:
        progress(done, total)
    return done


def _start(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file, after a look at the disk's space."""
    needed = int(np.prod(shape))
    free = shutil.disk_usage(Path(file.name).parent).free
    if needed > free:
        raise OSError(f"{shape[0]} images need {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB left")
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _read(found: Path, count: int) -> ImageStore | None:
    """The store in a folder; None where there is none, and where it is damaged, which removes it."""
    try:
        images = np.load(found / "images.npy", mmap_mode="r", allow_pickle=False)
        sizes = np.load(found / "sizes.npy", allow_pickle=False)
        if len(images) != count or sizes.shape != (count, 2):
            raise ValueError("wrong length")
    except FileNotFoundError:
        if not found.is_dir():
            return None
    except (ValueError, EOFError):  # cut short, by a full disk or a loss of power
        pass
    else:
        sizes.flags.writeable = False
        return ImageStore(images, sizes, found)
    discard(found)
    return None


def _decoded(
    samples: Sequence[Sample], geometry: Geometry, threads: int, progress: Progress | None
) -> Iterator[Decoded]:
    """Image and original size of every sample, in order; all of one shape."""
    first: tuple[str, tuple[int, int], tuple[int, ...]] | None = None
    for index, (pixels, size) in enumerate(ahead(lambda sample: _one(sample, geometry), samples, threads)):
        name = samples[index].name
        if first is None:
            first = name, size, pixels.shape
        elif pixels.shape != first[2]:
            rule = f"input.short={geometry.short} without a crop" if geometry.short else "the original size"
            raise DataError(
                f"the images differ in shape, and {rule} keeps that: {first[0]} is {_text(first[1])}, "
                f"{name} is {_text(size)} (height x width); "
                "set input.size to squeeze them to one shape, or input.crop"
            )
        yield pixels, size
        if progress is not None:
            progress(index + 1, len(samples))


def _one(sample: Sample, geometry: Geometry) -> Decoded:
    pixels = decode(sample.image)
    size = (pixels.shape[0], pixels.shape[1])
    return geometry.forward(pixels), size


def _key(samples: Sequence[Sample], geometry: Geometry, files: Sequence[Content]) -> str:
    head = [RULES, PIL.__version__, asdict(geometry)]
    key = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for sample, content in zip(samples, files, strict=True):
        key.update(json.dumps([sample.name, *content]).encode())
    return key.hexdigest()[:24]


def _unchanged(samples: Sequence[Sample], before: Sequence[Content], after: Sequence[Content]) -> None:
    """DataError where a file is another than the one that the key was made from."""
    for sample, old, new in zip(samples, before, after, strict=True):
        if old != new:
            raise DataError(
                f"{sample.image} changed while the images were read; run the same command again when the "
                "data set is complete"
            )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

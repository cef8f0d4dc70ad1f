"""The image store: every file of a list decoded and brought to a geometry once, then read from there.

On disk a store is one folder `<cache>/images/<key>/` with `images.npy` (N, h, w, 3), `sizes.npy` (N, 2) and a
`store.json` for people. The key covers the geometry, the Pillow version, and name, size and content of every
file. It is written to a temporary folder and moved in one step, so that processes may build it at once. It
takes N * h * w * 3 bytes: 0.8 GB for all of MVTec AD at 224 pixels. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from ad_bench.datasets.images import decode
from ad_bench.errors import DataError
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample

RULES = 1  # raise it when decode or Geometry.forward give other pixels: old stores are then not found
PROBE = 64 * 1024  # bytes that are hashed at each end of a file
DAY = 24 * 3600.0
TEMPORARY = ".building-"

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
    default; `progress(done, total)` is called as images come. A broken image raises DataError; nothing stays.
    """
    if not samples:
        raise ValueError("a store needs at least one sample; got none")
    threads = workers if workers else cores()
    if cache is None:
        return _in_memory(samples, geometry, threads, progress)
    home = Path(cache).expanduser() / "images"
    found = home / _key(samples, geometry, threads)
    try:
        store = _read(found, len(samples))
        if store is None:
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            _build(found, samples, geometry, threads, progress)
            store = _read(found, len(samples))
    except OSError as error:
        raise DataError(
            f"cannot keep images below {home}: {error.strerror or error}; free some space, point paths.cache "
            "elsewhere, or run with store=false"
        ) from error
    if store is None:
        raise DataError(
            f"the image store {found} cannot be read back; run with store=false and check the disk"
        )
    with suppress(OSError):  # when it was last used, for `adbench clean`; a shared cache may be read-only
        os.utime(found / "store.json")
    return store


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


def _build(
    found: Path, samples: Sequence[Sample], geometry: Geometry, threads: int, progress: Progress | None
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=found.parent))
    try:
        sizes = np.empty((len(samples), 2), dtype=np.int64)
        # Plain writes: a full disk is then an OSError; through a memory map it would kill the process.
        with (temporary / "images.npy").open("wb") as file:
            for index, (pixels, size) in enumerate(_decoded(samples, geometry, threads, progress)):
                if index == 0:
                    _start(file, (len(samples), *pixels.shape))
                file.write(pixels.data)
                sizes[index] = size
        np.save(temporary / "sizes.npy", sizes)
        about = {
            "images": len(samples),
            "categories": sorted({sample.category for sample in samples}),
            "splits": sorted({sample.split for sample in samples}),
            "geometry": asdict(geometry),
            "first": samples[0].name,
            "pillow": PIL.__version__,
        }
        (temporary / "store.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp gives it to its owner alone, and a cache may be shared
        try:
            temporary.rename(found)
        except OSError:
            if not found.is_dir():
                raise
            # Another process was first. Same key, same content.
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    shutil.rmtree(found, ignore_errors=True)
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


def ahead(work: Callable, items: Sequence, threads: int) -> Iterator:
    """work(item) of every item in order, done by threads that run a few items ahead.

    Threads and not processes: Pillow decodes and resizes without the interpreter's lock; nothing is pickled.
    """
    if threads == 1 or len(items) == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        waiting: deque[Future] = deque()  # bounded: a slow disk must not gather all images in memory
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _key(samples: Sequence[Sample], geometry: Geometry, threads: int) -> str:
    head = [RULES, PIL.__version__, asdict(geometry)]
    key = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for sample, probe in zip(samples, ahead(_probe, [s.image for s in samples], threads), strict=True):
        key.update(json.dumps([sample.name, *probe]).encode())
    return key.hexdigest()[:24]


def _probe(path: Path) -> tuple[int, str]:
    """Size and hash of a file: of all its bytes if it is small, else of its first and last 64 KiB.

    A compressed image that changes anywhere changes its size or its end in all but contrived cases.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = hashlib.sha256(file.read(PROBE))
            if size > PROBE:
                file.seek(max(PROBE, size - PROBE))
                content.update(file.read(PROBE))
    except OSError:
        decode(path)  # says what is wrong, in the words of all image errors
        raise
    return size, content.hexdigest()


def _sweep(home: Path) -> None:
    """Remove the temporary folders of processes that were killed more than a day ago."""
    for folder in home.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - newest > DAY:
                shutil.rmtree(folder, ignore_errors=True)


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

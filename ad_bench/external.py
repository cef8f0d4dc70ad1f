"""Anomaly maps and image scores that another program wrote, brought into the order of the test samples."""

from __future__ import annotations

import csv
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ad_bench.errors import DataError
from ad_bench.samples import Sample

SUFFIXES = (".npy", ".npz", ".tiff", ".tif")  # looked for in this order
ARCHIVE = "maps.npz"
# RuntimeError: an encrypted member or an unknown compression; MemoryError: a header that claims terabytes
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
_T = TypeVar("_T")


def read_maps(folder: Path, samples: Sequence[Sample]) -> list[NDArray[Any]]:
    """One map (H, W) for each sample, in their order and in the floating type of the file.

    A map is `<folder>/<name>.npy` (or .npz with one array, .tiff, .tif), where <name> is the sample's name
    without its suffix, with or without the leading category, or `<category>/test/<defect>/<stem>`, the layout
    of MVTec's evaluation code. Or all are in one archive, `<folder>/maps.npz` or `folder` itself, keyed by
    these names or by the sample's full name. (1, H, W) and (H, W, 1) are read as (H, W), integers as floats
    that hold them: float32 for 8 and 16 bits, else float64.
    -inf stands for pixels that were never seen; NaN and +inf are refused.
    """
    folder = Path(folder)
    archive = folder if folder.is_file() else folder / ARCHIVE
    if archive.is_file():
        return _from_archive(archive, samples)
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder}: --maps wants the folder with the anomaly maps, or an .npz of them"
        )
    found: dict[Sample, Path] = {}
    for sample in samples:
        tries = (folder / f"{name}{suffix}" for name in _names(sample) for suffix in SUFFIXES)
        path = next((path for path in tries if path.is_file()), None)
        if path is not None:
            found[sample] = path
    example = (
        f"wanted for the first {folder / next(_names(samples[0]))}.npy (or .npz, .tiff, .tif)"
        if samples
        else ""
    )
    _refuse_missing("map", folder, samples, found, example)
    _refuse_shared({sample: str(path) for sample, path in found.items()})
    return [_read(found[sample]) for sample in samples]


def find_maps(folder: Path) -> dict[str, Callable[[], NDArray[Any]]]:
    """Every map below a folder, or in its archive, by its name there, in name order; a call reads one.

    Names have slashes and keep their suffix, `crack/000.tiff`; an archive's are its keys. A map is read as by
    `read_maps`.
    """
    folder = Path(folder)
    archive = folder if folder.is_file() else folder / ARCHIVE
    if archive.is_file():
        keys = _opened(archive, lambda arrays: sorted(arrays.files))
        found: dict[str, Callable[[], NDArray[Any]]] = {
            str(PurePosixPath(key.replace("\\", "/"))): partial(_read_entry, archive, key) for key in keys
        }
        if len(found) != len(keys):
            raise DataError(f"{archive} has several keys for one image, as a/0 and a\\0; give each its own")
        return found
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder}: --maps wants the folder with the anomaly maps, or an .npz of them"
        )
    return {name: partial(_read, folder / name) for name in files_below(folder, SUFFIXES)}


def files_below(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Names relative to `folder`, with slashes and in order, of the files that end so in any case.

    Hidden ones are left out. Links to folders are followed, but never back into a folder they lie in. Raises
    DataError for a folder that cannot be read.
    """
    found: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        name, above = waiting.pop()
        try:
            status = (folder / name).stat()
            here = (status.st_dev, status.st_ino)
            entries = [] if here in above else [e.name for e in os.scandir(folder / name)]
        except OSError as error:
            raise DataError(
                f"cannot read the folder {folder / name}: {error.strerror}; check that you may read it"
            ) from error
        for entry in entries:
            inside = f"{name}/{entry}" if name else entry
            if entry.startswith("."):
                continue
            if (folder / inside).is_dir():
                waiting.append((inside, above | {here}))
            elif PurePosixPath(entry).suffix.lower() in suffixes:
                found.append(inside)
    return sorted(found)


def read_scores(path: Path, samples: Sequence[Sample], suffixes: Sequence[str] = ()) -> NDArray[np.float64]:
    """(N,) image scores in the order of the samples, from a CSV with the columns `path` and `score`.

    `path` is a sample's name, with or without its suffix (or with one of `suffixes` instead) and its leading
    category. Other columns, and images that are not asked for, are passed over.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"path", "score"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}; it lacks "
                    f"{' and '.join(sorted(missing))} (the first line must name `path` and `score`)"
                )
            rows: dict[str, float] = {}
            for row in reader:
                key = str(PurePosixPath((row["path"] or "").replace("\\", "/")))
                if key in rows:
                    raise DataError(f"{path}, line {reader.line_num}: {key} has a score already")
                rows[key] = _score(row["score"], f"{path}, line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the scores in {path}: {error}") from error
    keys = {sample: found for sample in samples if (found := _key(sample, rows, suffixes)) is not None}
    example = f"wanted for the first a line with the path {samples[0].name}" if samples else ""
    _refuse_missing("score", path, samples, keys, example)
    _refuse_shared(keys)
    return np.array([rows[keys[sample]] for sample in samples], np.float64)


def _names(sample: Sample) -> Iterator[str]:
    """What a sample's map may be called, without a suffix, the surest name first."""
    stem = sample.name.removesuffix(PurePosixPath(sample.name).suffix)
    yield stem
    inner = stem.removeprefix(f"{sample.category}/")
    if inner != stem:
        yield inner
    bare = PurePosixPath(stem).name
    yield f"{sample.category}/test/{sample.defect}/{bare}"
    yield f"test/{sample.defect}/{bare}"


def _key(sample: Sample, known: Mapping[str, object], suffixes: Sequence[str] = ()) -> str | None:
    """The entry of an archive or a table that is meant for a sample."""
    endings = (PurePosixPath(sample.name).suffix, "", *suffixes)
    names = (f"{name}{ending}" for name in _names(sample) for ending in endings)
    return next((name for name in names if name in known), None)


def _from_archive(archive: Path, samples: Sequence[Sample]) -> list[NDArray[Any]]:
    def read(arrays: Any) -> list[NDArray[Any]]:
        entries = dict.fromkeys(arrays.files)
        keys = {sample: key for sample in samples if (key := _key(sample, entries)) is not None}
        example = f"wanted for the first the key {samples[0].name}" if samples else ""
        _refuse_missing("map", archive, samples, keys, example)
        _refuse_shared(keys)
        return [_as_map(arrays[keys[sample]], f"{archive}, key {keys[sample]}") for sample in samples]

    return _opened(archive, read)


def _read_entry(archive: Path, key: str) -> NDArray[Any]:
    return _opened(archive, lambda arrays: _as_map(arrays[key], f"{archive}, key {key}"))


def _opened(archive: Path, use: Callable[[Any], _T]) -> _T:
    """What `use` makes of an open archive; whatever a damaged one raises becomes a DataError."""
    try:
        arrays = np.load(archive, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{archive} holds a single array; wanted an .npz with one array for each image")
        with arrays:
            return use(arrays)
    except DAMAGED as error:
        raise DataError(f"cannot read the maps in {archive}: {error}") from error


def _read(path: Path) -> NDArray[Any]:
    """The map in a file of its own."""
    if path.suffix.lower() in (".tiff", ".tif"):
        return _as_map(_read_tiff(path), str(path))
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            return _as_map(content, str(path))
        with content:
            if len(content.files) != 1:
                raise DataError(f"{path} holds {len(content.files)} arrays; wanted one, the map of one image")
            return _as_map(content[content.files[0]], str(path))
    except DAMAGED as error:
        raise DataError(f"cannot read the map {path}: {error}") from error


def _read_tiff(path: Path) -> NDArray[Any]:
    from tifffile import imread

    try:
        return imread(path)
    except Exception as error:  # a damaged file fails anywhere in the parser: struct.error, KeyError, ...
        raise DataError(f"cannot read the map {path}: {error}") from error


def _as_map(array: NDArray[Any], where: str) -> NDArray[Any]:
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):
        array = array[0] if shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.size == 0:
        raise DataError(f"{where} has shape {shape}; an anomaly map is (H, W), (1, H, W) or (H, W, 1)")
    if array.dtype.kind in "iub":
        array = array.astype(np.result_type(np.float32, array.dtype))
    if array.dtype.kind != "f":
        raise DataError(f"{where} holds {array.dtype}; an anomaly map holds real numbers")
    bad = np.isnan(array) | (array == np.inf)
    if bad.any():
        nan = int(np.isnan(array).sum())
        raise DataError(
            f"{where} holds {nan} NaN and {int(bad.sum()) - nan} +inf among {array.size} values; "
            "scores must be numbers below +inf (-inf for pixels never seen)"
        )
    return array


def _score(text: str | None, where: str) -> float:
    try:
        score = float(text or "")
    except ValueError:
        score = math.nan
    if math.isnan(score) or score == math.inf:
        raise DataError(f"{where}: the score is {text!r}; wanted a number below +inf")
    return score


def _refuse_missing(
    what: str, where: Path, samples: Sequence[Sample], found: Mapping[Sample, object], example: str
) -> None:
    missing = [sample.name for sample in samples if sample not in found]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"{where} has no {what} for {len(missing)} of {len(samples)} images: {names}; {example}"
        )


def _refuse_shared(found: Mapping[Sample, str]) -> None:
    """Refuse one map for two images, which short names of several categories lead to."""
    owners: dict[str, Sample] = {}
    for sample, source in found.items():
        other = owners.setdefault(source, sample)
        if other is not sample:
            raise DataError(
                f"{source} would serve both {other.name} and {sample.name}; "
                "give each its full name, with the category"
            )

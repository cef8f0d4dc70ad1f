"""Records in one archive: packed for another lab, and merged from one that is not trusted.

An archive holds `manifest.json` (size and SHA-256 of each file) and cells as they lie in a results folder.
The same records give the same bytes. What is read is unpacked beside the records, checked, and moved in cell
by cell, each in one step: a broken import leaves whole cells or nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from ad_bench import records
from ad_bench.datasets.unpack import Limits, unpack
from ad_bench.errors import DataError, ResultsError, UsageError, closest
from ad_bench.foreign import FILES, GIB, LARGEST, MIB, RECORD_SIZE, check_record, is_origin, require
from ad_bench.records import Record
from ad_bench.report.rows import origin_of, without_folders

MANIFEST, RECORD = "manifest.json", "record.json"
KIND, VERSION = "adbench results", 1
ALWAYS = (RECORD, "config.yaml", "samples.csv", "curves.json")
EXTRAS = {
    "maps": ("maps.npz",),
    "models": ("model.safetensors",),
    "pictures": ("pictures.json", "inputs.jpg", "truth.png", "maps.png"),  # parts of the data set's images
}
SELECT = ("dataset", "method", "protocol")
LIMITS = Limits(ratio=200, free=GIB, total=1 << 40, files=2_000_000, largest=LARGEST, links=False)
MANIFEST_SIZE = 64 * MIB
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can hold


@dataclass
class Packed:
    """What an export wrote; `left_out`: why records are not in it."""

    cells: int = 0
    files: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass
class Merged:
    """What became of an archive's records. Conflicting ones are kept beside those that were there."""

    lab: str
    new: int = 0
    there: int = 0
    conflicting: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def export_records(
    archive: Path,
    results: Path,
    select: Mapping[str, Sequence[str]] | None = None,
    extras: Sequence[str] = (),
    lab: str | None = None,
) -> Packed:
    """Write the records that `select` names (keys of SELECT; default: all) with their files into an archive.

    Debug runs stay out. Raises UsageError for an unknown name or suffix, ResultsError where it cannot write.
    """
    write = _writer(archive)
    _check_lab(lab)
    for extra in extras:
        if extra not in EXTRAS:
            raise UsageError(f"--with {extra}: expected {', '.join(EXTRAS)}.{closest(extra, EXTRAS)}")
    names = (*ALWAYS, *(name for extra in EXTRAS if extra in extras for name in EXTRAS[extra]))
    packed = Packed()
    content: dict[str, Path | bytes] = {}
    for folder, record in _chosen(results, select or {}, packed):
        packed.cells += 1
        for name in names:
            if (folder / name).is_file():
                content[f"{folder.relative_to(results).as_posix()}/{name}"] = _portable_file(
                    folder / name, record
                )
    if not packed.cells:
        raise UsageError(f"no records to pack in {results / 'cells'}; adbench run makes them")
    packed.files = len(content)
    files = {name: _facts(content[name]) for name in sorted(content)}
    manifest = {"kind": KIND, "version": VERSION, **({"lab": lab} if lab else {}), "files": files}
    text = json.dumps(manifest, indent=0, ensure_ascii=True) + "\n"
    try:
        records.replace_file(
            archive,
            lambda path: write(path, {MANIFEST: text.encode(), **{name: content[name] for name in files}}),
        )
    except OSError as error:
        raise ResultsError(f"cannot write {archive}: {error.strerror or error}; name another file") from error
    return packed


def _chosen(
    results: Path, select: Mapping[str, Sequence[str]], packed: Packed
) -> Iterator[tuple[Path, Record]]:
    found: list[tuple[Path, Record]] = []
    for folder in records.folders(results, packed.left_out):
        try:
            record, cell = check_record((folder / RECORD).read_bytes())
            require(cell.folder(results) == folder.parent, f"is of {cell}, which lies elsewhere")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            packed.left_out.append(f"{folder.relative_to(results)}: {error}")
            continue
        if "debug" not in (record.get("marks") or ()):
            found.append((folder, record))
    for key, wanted in select.items():
        known = {name for _, record in found for name in _names(record, key)}
        for name in wanted:
            if name not in known:
                hint = closest(name, known, f"There are: {', '.join(sorted(known)) or 'none'}")
                raise UsageError(f"{key}={name}: no record in {results} has that.{hint}")
    for folder, record in found:
        if all(_names(record, key) & set(wanted) for key, wanted in select.items()):
            yield folder, record


def _names(record: Record, key: str) -> set[str]:
    """What a record may be called by: a method also with its variant, a protocol also without its numbers."""
    name = str(record[key])
    if key == "method" and record["variant"]:
        return {name, f"{name}@{record['variant']}"}
    return {name, name.partition("-")[0]} if key == "protocol" else {name}


def _portable_file(path: Path, record: Record) -> Path | bytes:
    """The file as it goes out: without the folders of this machine."""
    if path.name == RECORD:
        plain = portable(record)
        if plain != record:
            return (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode()
    elif path.name == "config.yaml":
        text = path.read_text(encoding="utf-8")
        # A value that is an absolute path: weights, textures.
        plain_text = re.sub(
            r"(?m)^(\s*(?:- )*(?:[^\s:#]+: )?['\"]?)(?:/[^\s/'\"]+)+/(?=[^\s/'\"])", r"\1…/", text
        )
        if plain_text != text:
            return plain_text.encode()
    return path


def portable(record: Record) -> Record:
    """The record without the folders of a machine, which tracebacks and warnings name."""
    told = ("error", "reason", "warnings", "notes")
    return {key: _without(value) if key in told else value for key, value in record.items()}


def _without(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, list):
        return [_without(inner) for inner in value]
    return {key: _without(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _facts(content: Path | bytes) -> dict[str, int | str]:
    digest, size = hashlib.sha256(), 0
    with _opened(content) as stream:
        while chunk := stream.read(MIB):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


@contextmanager
def _opened(content: Path | bytes) -> Iterator[IO[bytes]]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
        yield stream


def _writer(archive: Path) -> Callable[[Path, Mapping[str, Path | bytes]], None]:
    if archive.name.endswith(".zip"):
        return _write_zip
    if archive.name.endswith((".tar.gz", ".tgz")):
        return _write_tar
    raise UsageError(f"{archive}: an archive ends in .zip or .tar.gz")


def _write_zip(path: Path, content: Mapping[str, Path | bytes]) -> None:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, what in content.items():
            member = zipfile.ZipInfo(name, EPOCH)
            member.create_system, member.external_attr = 3, 0o100644 << 16
            packed = name.endswith((".npz", ".jpg", ".png"))
            member.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            with _opened(what) as stream, bundle.open(member, "w", force_zip64=True) as out:
                shutil.copyfileobj(stream, out, MIB)


def _write_tar(path: Path, content: Mapping[str, Path | bytes]) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as bundle,
    ):
        for name, what in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(what) if isinstance(what, bytes) else what.stat().st_size
            with _opened(what) as source:
                bundle.addfile(member, source)


def import_records(archive: Path, results: Path, lab: str | None = None) -> Merged:
    """Merge the records of an archive into `results`, marked with the lab's name (default: the archive's).

    A record that is there already is passed over; one of a cell that has another record is kept beside that.
    Raises UsageError without an archive, DataError for one that is refused as a whole, ResultsError on a full
    disk.
    """
    if not archive.is_file():
        raise UsageError(f"no archive at {archive}; adbench results export {archive.name} makes one")
    _check_lab(lab)
    try:
        records.sweep_leftovers(results)
        with records.scratch(results) as inside:
            unpack(archive, inside, limits=LIMITS)
            manifest = _manifest(archive, inside)
            merged = Merged(lab or manifest.get("lab") or _lab_of(archive))
            cells: dict[str, list[str]] = {}
            for name in sorted(manifest["files"]):
                cell, _, file = name.rpartition("/")
                cells.setdefault(cell, []).append(file)
            for place, files in cells.items():
                try:
                    _merge(inside / place, place, files, results, merged)
                except ValueError as error:
                    merged.refused.append(f"{place}: {error}")
        return merged
    except OSError as error:
        raise ResultsError(
            f"cannot write to {results}: {error.strerror or error}. Cells that were merged before are whole;"
            " make room (or set paths.results) and import again"
        ) from error


def _manifest(archive: Path, inside: Path) -> dict[str, Any]:
    """The archive's list of files; DataError where it is none, or not a list of what is there to the byte."""

    def refused(why: str) -> DataError:
        return DataError(f"{archive} {why}. Nothing of it was kept")

    path = inside / MANIFEST
    if not path.is_file() or path.stat().st_size > MANIFEST_SIZE:
        raise refused(f"has no {MANIFEST}: it was not made by adbench results export")
    try:
        manifest = orjson.loads(path.read_bytes())
    except ValueError as error:
        raise refused(f"has a {MANIFEST} that is no JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND or manifest.get("version") != VERSION:
        raise refused(f"has another kind of {MANIFEST}; this version reads {KIND!r}, version {VERSION}")
    if manifest.get("lab") is not None and not is_origin(manifest["lab"]):
        raise refused("gives no lab's name as its lab; --as LAB and a new export mend that")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(facts, dict) for facts in files.values()):
        raise refused(f"has a {MANIFEST} without files")
    there = {
        Path(home, name).relative_to(inside).as_posix()
        for home, _, names in os.walk(inside)
        for name in names
    } - {MANIFEST}
    if there != files.keys():
        odd = sorted(there ^ files.keys())
        state = "not in its manifest" if odd[0] in there else "missing"
        raise refused(f"and its {MANIFEST} differ in {len(odd)} files: {odd[0]!r} is {state}")
    for name, facts in files.items():
        parts = name.split("/")
        if len(parts) != 7 or parts[0] != "cells":
            raise refused(f"holds {name!r}, which is no file of a cell")
        if _facts(inside / name) != {"bytes": facts.get("bytes"), "sha256": facts.get("sha256")}:
            raise refused(f"holds {name!r} with another size or SHA-256 than its {MANIFEST} says: damaged?")
    return manifest


def _merge(source: Path, place: str, files: Sequence[str], results: Path, merged: Merged) -> None:
    """One cell of the archive into the results. Raises ValueError where it is refused."""
    require(RECORD in files, f"has no {RECORD}")
    require((source / RECORD).stat().st_size <= RECORD_SIZE, f"{RECORD} is larger than {RECORD_SIZE:,} bytes")
    record, cell = check_record((source / RECORD).read_bytes())
    wanted = cell.folder(Path()) / record["fingerprint"]["cell"]
    require(wanted.as_posix() == place, f"{RECORD} is of {cell}, which lies elsewhere")
    others = [name for name in files if name != RECORD]
    for name in others:
        require(name in FILES, f"{name!r} is no file of a cell")
        largest, check = FILES[name]
        require((source / name).stat().st_size <= largest, f"{name} is larger than {largest:,} bytes")
        try:
            check(source / name)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        except Exception as error:  # whatever else a decoder makes of bytes that were made to upset it
            raise ValueError(f"{name} cannot be read ({type(error).__name__}: {error})") from None
    origin, content = record.get("origin") or merged.lab, _content(record)
    held = list(_held(cell.folder(results)))
    if any(_content(old) == content for old in held):
        merged.there += 1
        return
    name = record["fingerprint"]["cell"].partition("+")[0]
    if (cell.folder(results) / name).exists():
        name += f"+{content[:8]}"
    record = {**record, "origin": origin, "fingerprint": {**record["fingerprint"], "cell": name}}
    with records.writing(results, cell, name) as folder:
        for file in others:
            (source / file).replace(folder / file)
        records.write_json(folder / RECORD, record)
    if any(origin_of(old) != origin for old in held):
        merged.conflicting.append(str(cell))
    else:
        merged.new += 1


def _held(home: Path) -> Iterator[Record]:
    """The records of a cell that are there; those that cannot be read are no obstacle."""
    for path in sorted(home.glob("*/record.json")):
        try:
            yield records.read(path)
        except (OSError, ValueError):
            continue


def _content(record: Record) -> str:
    """A hash of all that a record says, whoever brought it and wherever it lies."""
    plain = {key: value for key, value in portable(record).items() if key != "origin"}
    fingerprint = plain.get("fingerprint")
    if isinstance(fingerprint, dict):
        plain["fingerprint"] = {**fingerprint, "cell": str(fingerprint.get("cell")).partition("+")[0]}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _check_lab(lab: str | None) -> None:
    if lab is not None and not is_origin(lab):
        raise UsageError(f"--as {lab!r}: a lab's name is up to 40 letters, digits, blanks and . _ + -")


def _lab_of(archive: Path) -> str:
    """A name from the file's own."""
    stem = re.sub(r"\.(zip|tgz|tar\.gz)$", "", archive.name)
    return re.sub(r"[^A-Za-z0-9 ._+-]", "-", stem).lstrip(" ._+-")[:40].rstrip() or "imported"


def print_packed(archive: str, packed: Packed) -> None:
    """Say what is in the archive, and what is not."""
    print(f"{archive}: {packed.cells} records, {packed.files} files")
    for text in packed.left_out:
        print(f"left out: {_plain(text)}")


def print_merged(merged: Merged) -> bool:
    """Say what became of the records; True where some were refused."""
    conflicting = len(merged.conflicting)
    counts = f"{merged.new} new, {merged.there} already there, {conflicting} conflicting"
    print(f"records of {merged.lab}: {counts}, {len(merged.refused)} refused")
    for cell in merged.conflicting:
        print(f"both kept: {_plain(cell)}")
    for text in merged.refused:
        print(f"refused: {_plain(text)}")
    return bool(merged.refused)


def _plain(text: str) -> str:
    """On one line, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)

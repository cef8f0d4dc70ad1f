"""Downloads that go on where they stopped: HTTP ranges, retries, checksums.

Ours and not pooch's: that starts from the first byte again after every broken connection, which an archive of
5 GB on a slow line never survives.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ad_bench import __version__
from ad_bench.errors import DataError, UsageError

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 6  # in a row that bring nothing; one that brings bytes starts the count anew
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all if known


@dataclass(frozen=True)
class Archive:
    """One entry of a YAML's `archives`."""

    file: str  # the name that it is kept under
    url: str
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None
    into: str = "."  # the folder below the data set's root in which it is unpacked

    @classmethod
    def from_config(cls, node: Mapping[str, Any], where: str) -> Archive:
        """The entry, checked; UsageError names what is wrong with it."""
        unknown = set(node) - set(cls.__dataclass_fields__)
        if unknown or not {"file", "url"} <= set(node):
            raise UsageError(
                f"{where} has the keys {', '.join(map(str, node))}; wanted file and url, and of "
                f"{', '.join(list(cls.__dataclass_fields__)[2:])} what is known"
            )
        made = cls(**{str(key): value for key, value in node.items()})
        into = PurePosixPath(made.into)
        for key, good, wanted in (
            ("file", re.fullmatch(r"[^/\\.][^/\\]*", str(made.file)), "a plain file name"),
            ("url", re.match(r"https?://[^/]", str(made.url)), "an http or https address"),
            ("sha256", made.sha256 is None or re.fullmatch("[0-9a-fA-F]{64}", str(made.sha256)), "64 digits"),
            ("md5", made.md5 is None or re.fullmatch("[0-9a-fA-F]{32}", str(made.md5)), "32 digits"),
            (
                "bytes",
                made.bytes is None or (type(made.bytes) is int and made.bytes > 0),
                "a number of bytes",
            ),
            ("into", not into.is_absolute() and ".." not in into.parts, "a folder below the root"),
        ):
            if not good:
                raise UsageError(f"{where}: {key} is {getattr(made, key)!r}; wanted {wanted}")
        return made


def download(
    archive: Archive, folder: Path, progress: Progress, attempts: int = ATTEMPTS, pause: float = PAUSE
) -> Path:
    """The archive's file in the folder, whole and verified; DataError if it cannot be had.

    What has come stays in `<file>.part`, and the next call goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / archive.file, folder / f"{archive.file}.part"
    if whole.is_file():
        if _wrong(archive, whole) is None:
            return whole
        whole.unlink()  # an older version, or not ours
    resumed = part.is_file()
    _transfer(archive, part, progress, attempts, pause)
    wrong = _wrong(archive, part)
    if wrong and resumed:  # the first half may be of another version of the file
        _discard(part)
        _transfer(archive, part, progress, attempts, pause)
        wrong = _wrong(archive, part)
    if wrong:
        _discard(part)
        raise DataError(
            f"{archive.url} gave {wrong}. The file was changed there or on the way, and was deleted here; "
            "try again, and if that does not help, look at the download page for what changed"
        )
    part.rename(whole)
    _note(part).unlink(missing_ok=True)
    return whole


def digest(path: Path, kind: str = "sha256") -> str:
    """The hash of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _wrong(archive: Archive, path: Path) -> str | None:
    """What differs from the published size and checksum."""
    size = path.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        return f"{size:,} bytes instead of {archive.bytes:,}"
    for kind, wanted in (("sha256", archive.sha256), ("md5", archive.md5)):
        if wanted and (got := digest(path, kind)) != wanted.lower():
            return f"a file with the {kind} {got} instead of {wanted.lower()}"
    return None


def _transfer(archive: Archive, part: Path, progress: Progress, attempts: int, pause: float) -> None:
    """Fill `part`, in as many requests as it takes."""
    failures = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            if _request(archive, part, before, progress):
                return
            error: Exception = ConnectionError("the connection broke off")
        except urllib.error.HTTPError as refused:
            refused.close()
            if refused.code < 500 and refused.code not in (408, 425, 429):
                raise DataError(
                    f"{archive.url} answers {refused.code} {refused.reason}; the file may have moved: look "
                    "at the download page"
                ) from refused
            error = refused
        except (OSError, http.client.HTTPException) as broken:  # no name, no route, no answer, cut off
            error = broken
        failures = 0 if part.is_file() and part.stat().st_size > before else failures + 1
        if failures >= attempts:
            raise DataError(
                f"cannot get {archive.url}: {getattr(error, 'reason', None) or error}, {attempts} times in a "
                "row. What has come is kept; the same command goes on from there"
            ) from error
        time.sleep(pause * 2 ** max(failures - 1, 0))


def _request(archive: Archive, part: Path, start: int, progress: Progress) -> bool:
    """One request from byte `start`; True once the file is whole."""
    note = _read_note(part)
    version = note.get("version")
    if start and not (version or archive.sha256 or archive.md5):
        start = 0  # nothing would tell that the two halves are of one file
    if start and note.get("total") == start:
        return True
    headers = {"User-Agent": f"adbench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()  # the part reaches beyond the file
        _discard(part)
        return False
    with answer:
        if answer.status != 206:
            start = 0  # the server knows no ranges, or the file has changed
        total = _total(answer, start)
        if archive.bytes is not None and total is not None and total != archive.bytes:
            raise DataError(
                f"{archive.url} now has {total:,} bytes, {archive.bytes:,} were published; look at the "
                "download page for what changed"
            )
        _write_note(part, {"version": _version(answer), "total": total})
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            return _copy(answer, file, start, total or archive.bytes, progress)


def _copy(
    answer: http.client.HTTPResponse, file: BinaryIO, done: int, total: int | None, progress: Progress
) -> bool:
    """Write what comes; True if it is all, as far as anybody knows."""
    progress(done, total)
    try:
        while chunk := answer.read(CHUNK):
            _write(file, chunk)
            done += len(chunk)
            progress(done, total)
    except http.client.IncompleteRead:
        return False
    return total is None or done == total


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()  # a full disk shows here and not when the file is closed
    except OSError as error:
        raise DataError(
            f"cannot write {file.name}: {error.strerror}; free some space or set paths.data to another disk. "
            "What has come is kept"
        ) from error


def _total(answer: http.client.HTTPResponse, start: int) -> int | None:
    """Bytes of the whole file; DataError where the server sends another part than was asked for."""
    if answer.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != start:
            raise http.client.HTTPException(
                f"the server sent {answer.headers.get('Content-Range')!r} when asked from byte {start}"
            )
        return None if span[2] == "*" else int(span[2])
    length = answer.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _version(answer: http.client.HTTPResponse) -> str | None:
    """What tells this version of the file from others; a weak ETag may not (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(part: Path, note: Mapping[str, Any]) -> None:
    _note(part).write_text(json.dumps(note), encoding="utf-8")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)

"""Archives to plain files and folders below one folder, whatever the archive's maker had in mind.

Nothing is written outside, no link or device is ever made, and what swells beyond reason is stopped. A link
to a file of the same archive becomes a copy of that file.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ad_bench.errors import DataError

CHUNK = 1 << 20
LONGEST_HEADER = 1 << 20  # bytes of a name with its attributes
LONG_TYPES = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)

Progress = Callable[[int, int], None]  # bytes of the archive read, and in all


@dataclass(frozen=True)
class Limits:
    """When an archive is taken for a bomb. [ours]: images hardly shrink, masks and bitmaps by 10 to 50."""

    ratio: int = 200  # bytes unpacked for one packed ...
    free: int = 1 << 28  # ... which small archives of empty masks may exceed up to here
    total: int = 2 << 40  # bytes; the largest data set of the field has under 1.5 TB
    files: int = 5_000_000
    largest: int = 2 << 40  # bytes of one file
    links: bool = True  # copied; else refused


def unpack(archive: Path, into: Path, progress: Progress | None = None, limits: Limits | None = None) -> int:
    """Unpack tar (plain, gzip, xz, bzip2) or zip into a folder, other files are copied; the number of files.

    Raises DataError for what is refused or damaged; `into` then holds a part, which the caller throws away.
    """
    into.mkdir(parents=True, exist_ok=True)
    target = _Target(archive, into, limits or Limits())
    tell = progress or (lambda done, total: None)
    with archive.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        try:
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                _unzip(target, file, tell)
            elif head.startswith((b"7z\xbc\xaf'\x1c", b"Rar!")):
                raise target.refused("is a 7z or RAR archive, which is not unpacked here; do it by hand")
            elif (opener := _opener(head)) or head[257:262] == b"ustar" or archive.suffix == ".tar":
                _untar(target, file, opener, tell)
            else:
                target.file(archive.name, file, lambda: None)
        except (
            *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
            *(gzip.BadGzipFile, NotImplementedError, UnicodeError),
        ) as error:
            raise DataError(f"{archive} is damaged or of an unknown kind: {error}; fetch it again") from error
    return target.files


class _Target:
    """The folder that an archive is unpacked into: every name and every byte passes here."""

    def __init__(self, archive: Path, into: Path, limits: Limits) -> None:
        self.archive, self.into, self.limits = archive, into, limits
        self.allowed = min(max(limits.ratio * archive.stat().st_size, limits.free), limits.total)
        self.written = self.files = 0
        self.links: dict[str, str] = {}

    def refused(self, why: str) -> DataError:
        return DataError(f"{self.archive} {why}. Nothing of it was kept")

    def inside(self, name: str) -> str:
        """The name as a plain relative path with slashes, "" for the folder itself."""
        if name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
            raise self.refused(f"holds {name!r}, which is no plain relative path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refused(f"holds {name!r}, which leads out of its folder")
        return "/".join(parts)

    def count(self, size: int) -> None:
        """Note so many unpacked bytes; DataError beyond the limits."""
        self.written += size
        if self.written > self.allowed:
            raise self.refused(
                f"swells from {self.archive.stat().st_size:,} to more than {self.allowed:,} bytes: taken for "
                "a bomb"
            )

    def folder(self, name: str) -> None:
        """A folder of the archive."""
        self._one_more()
        self._write(name, lambda path: path.mkdir(parents=True, exist_ok=True))

    def file(self, name: str, content: IO[bytes], each: Callable[[], None]) -> int:
        """A file of the archive, as many bytes as its content gives."""
        inside, size = self.inside(name), 0
        if not inside:
            raise self.refused(f"holds a file without a name ({name!r})")
        self._one_more()

        def write(path: Path) -> None:
            nonlocal size
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                while chunk := content.read(CHUNK):
                    size += len(chunk)
                    if size > self.limits.largest:
                        raise self.refused(f"holds {name!r} of more than {self.limits.largest:,} bytes")
                    self.count(len(chunk))
                    out.write(chunk)
                    each()

        self._write(inside, write)
        return size

    def link(self, name: str, target: str) -> None:
        """A link of the archive, whose target is already a name from the archive's root."""
        inside = self.inside(name)
        if not self.limits.links:
            raise self.refused(f"holds {name!r}, a link")
        self._one_more()
        plain = posixpath.normpath(target)
        if target.startswith("/") or plain == ".." or plain.startswith("../") or "\\" in target:
            raise self.refused(f"holds {name!r}, a link that leads out to {target!r}")
        self.links[inside] = plain

    def copy_links(self) -> None:
        """Put a copy of its file in place of each link."""
        for name, target in self.links.items():
            seen = {name}
            while target in self.links and target not in seen:  # a link to a link
                seen.add(target)
                target = self.links[target]
            if not (self.into / target).is_file():
                raise self.refused(f"holds {name!r}, a link to {target!r}, which is no file of it")
            self.count((self.into / target).stat().st_size)

            def copy(path: Path, source: Path = self.into / target) -> None:
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, path)

            self._write(name, copy)

    def _one_more(self) -> None:
        self.files += 1
        if self.files > self.limits.files:
            raise self.refused(f"holds more than {self.limits.files:,} files: taken for a bomb")

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        path = self.into / self.inside(name)
        try:
            write(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise self.refused(f"holds {name!r} as a file and as a folder") from error
        except OSError as error:
            if error.filename is None and error.errno is None:  # of the archive's stream, not of the disk
                raise DataError(f"{self.archive} is damaged: {error}; fetch it again") from error
            raise DataError(
                f"cannot unpack {name!r} of {self.archive}: {error.strerror or error}; free some space or "
                "name a folder on another disk. Nothing of it was kept"
            ) from error


def _opener(head: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    """What decompresses a file that begins so."""
    openers: dict[bytes, Callable[[IO[bytes]], Any]] = {
        b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
        b"\xfd7zXZ\x00": lzma.LZMAFile,
        b"BZh": bz2.BZ2File,
    }
    return next((opener for start, opener in openers.items() if head.startswith(start)), None)


class _Counted:
    """A decompressed stream whose length counts: a header of gigabytes is a bomb too."""

    def __init__(self, stream: IO[bytes], allowed: int, target: _Target) -> None:
        self.stream, self.left, self.target = stream, allowed, target

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise self.target.refused("swells without end: taken for a bomb")
        return chunk


class _Header(tarfile.TarInfo):
    """A header whose name fits into memory: tarfile reads long names whole, and would read gigabytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """The header of a block of 512 bytes."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG_TYPES and header.size > LONGEST_HEADER:
            raise DataError(f"the archive has a header of {header.size:,} bytes: taken for a bomb")
        return header


def _untar(
    target: _Target, file: IO[bytes], opener: Callable[[IO[bytes]], IO[bytes]] | None, tell: Progress
) -> None:
    whole = os.fstat(file.fileno()).st_size
    stream = opener(file) if opener else file
    # Besides the files there are 512 bytes for each and the padding; the files themselves count as written.
    counted = _Counted(stream, 2 * target.allowed, target)
    try:
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Header) as tar:  # type: ignore[call-overload]
            for member in tar:
                if member.isreg():
                    content = tar.extractfile(member)
                    assert content is not None  # of a regular file
                    size = target.file(member.name, content, lambda: tell(file.tell(), whole))
                    if size != member.size:
                        raise tarfile.ReadError(f"{member.name!r} has {size} of {member.size} bytes")
                elif member.isdir():
                    target.folder(member.name)
                elif member.issym():
                    target.link(member.name, posixpath.join(posixpath.dirname(member.name), member.linkname))
                elif member.islnk():
                    target.link(member.name, member.linkname)
                else:
                    raise target.refused(f"holds {member.name!r}, a device or pipe")
                tell(file.tell(), whole)
        while counted.read(CHUNK):  # to the end, where gzip and xz keep their checksums
            pass
    except OSError as error:
        raise DataError(f"{target.archive} is damaged: {error}; fetch it again") from error
    target.copy_links()


def _unzip(target: _Target, file: IO[bytes], tell: Progress) -> None:
    whole = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as bundle:
        members = bundle.infolist()
        claimed = sum(member.file_size for member in members)
        if claimed > target.allowed:  # before a byte is written; what is written counts all the same
            target.count(claimed)
        packed = 0
        for member in members:
            if member.flag_bits & 1:
                raise target.refused("is locked with a password; unpack it by hand")
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                target.folder(member.filename)
            elif kind == stat.S_IFLNK:
                with bundle.open(member) as content:
                    aim = content.read(4096).decode()
                target.link(member.filename, posixpath.join(posixpath.dirname(member.filename), aim))
            elif kind in (0, stat.S_IFREG):
                with bundle.open(member) as content:
                    target.file(member.filename, content, lambda: None)
            else:
                raise target.refused(f"holds {member.filename!r}, a device or pipe")
            packed += member.compress_size
            tell(packed, whole)
    target.copy_links()

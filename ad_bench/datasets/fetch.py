"""A data set from its archives: downloaded, verified, unpacked, put in place in one step or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ad_bench.datasets.download import Archive, download
from ad_bench.datasets.unpack import unpack
from ad_bench.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: two fetches at once are the user's business there
    fcntl = None  # type: ignore[assignment]

DOWNLOADS = ".downloads"
SPARE = 1 << 29  # bytes that stay free on the disk

Stage = Callable[[str], Callable[[int, int | None], None]]  # a text -> what takes bytes done and in all


def fetch(root: Path, archives: Sequence[Archive], downloads: Path, stage: Stage) -> None:
    """Make `root` from the archives, which are kept in `downloads`; DataError leaves no root behind.

    A broken download goes on at the next call. An existing root with anything in it is not touched.
    """
    with _alone(downloads):
        if taken(root):
            raise DataError(f"{root} is there already and is never overwritten; move it away to fetch again")
        _make(root.parent)
        _check_space(root, archives, downloads)
        files = [download(archive, downloads, stage(f"get {archive.file}")) for archive in archives]
        for left in root.parent.glob(f".{root.name}.unpacking-*"):  # of a killed process: we are alone
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.unpacking-", dir=root.parent))
        try:
            for archive, file in zip(archives, files, strict=True):
                unpack(file, temporary / archive.into, stage(f"unpack {archive.file}"))
            temporary.chmod(0o755)  # mkdtemp gives it to its owner alone
            temporary.rename(root)
        except OSError as error:
            raise DataError(f"cannot put {root} in place: {error.strerror or error}") from error
        finally:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)


def taken(root: Path) -> bool:
    """Whether something stands where the data set would go; an empty folder does not count."""
    return root.is_symlink() or root.is_file() or (root.is_dir() and any(root.iterdir()))


def _check_space(root: Path, archives: Sequence[Archive], downloads: Path) -> None:
    """DataError where the disks lack room for the archives and, about as large, what is in them."""
    known = sum(archive.bytes or 0 for archive in archives)
    here = sum(
        path.stat().st_size
        for archive in archives
        for path in (downloads / archive.file, downloads / f"{archive.file}.part")
        if path.is_file()
    )
    needs: dict[int, tuple[Path, int]] = {}
    for folder, need in ((downloads, max(known - here, 0)), (root.parent, known)):
        disk = folder.stat().st_dev
        needs[disk] = (folder, needs.get(disk, (folder, 0))[1] + need)
    for folder, need in needs.values():
        free = shutil.disk_usage(folder).free
        if need and free < need + SPARE:
            raise DataError(
                f"about {need / 1e9:.1f} GB are needed below {folder}, {free / 1e9:.1f} GB are free; make "
                "room or set paths.data to another disk"
            )


def _make(folder: Path) -> None:
    """The folder, which may be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(
            f"cannot write below {folder}: {error.strerror or error}; set paths.data to a folder of yours"
        ) from error


@contextmanager
def _alone(downloads: Path) -> Iterator[None]:
    """Keep other processes from fetching the same data set; a killed one holds nothing."""
    _make(downloads)
    with (downloads / ".lock").open("a") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"another process is fetching into {downloads}; wait for it") from error
            except OSError:  # a network disk without locks
                pass
        yield

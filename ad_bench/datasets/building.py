"""Folders that several processes fill at once: whose a half-made one is, who builds, who waits.

Whatever is made gets a temporary name and is renamed when it is whole. That alone keeps it whole or absent.
A claim only saves doing the work twice, so it may be wrong: it is no lock, a dead owner holds up nobody, and
where links cannot be made all build side by side. Renaming and linking are single steps on NFS too.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ad_bench.processes import abandoned, gone, signed

PREFIX = ".building-"
PATIENCE = 120.0  # s without a sign of life; NFS shows another host's writing up to a minute late
POLL = 0.05  # s


def temporary(final: Path) -> Path:
    """A new name beside `final` that says which process of which machine it belongs to."""
    return final.with_name(signed(f"{PREFIX}{final.name}"))


def claim(final: Path, mine: Path) -> Path | None:
    """None where it is now ours to build `final` at `mine`; else where another process builds it.

    Look for `final` after it: whoever held the claim before put it there first.
    """
    for _ in range(3):
        try:
            _marker(final).symlink_to(mine.name)
            return None
        except FileExistsError:
            with suppress(FileNotFoundError):  # given back at this moment: try again
                return _holder(final)
        except OSError:
            return None  # no links on this file system
    return None


def release(final: Path, holder: Path) -> None:
    """Take back the claim of `holder`, where it still is its own."""
    with suppress(OSError):
        if _holds(final, holder):
            _marker(final).unlink()


def wait(final: Path, holder: Path, progress: Callable[[], object]) -> None:
    """Return when `holder` has built `final`, gave up, died, or made no progress for `PATIENCE`.

    Its claim is void then. Time is measured here: the clocks of two hosts are never compared.
    """
    seen, since = progress(), time.monotonic()
    while not final.exists() and _holds(final, holder) and not gone(holder.name):
        time.sleep(POLL)
        now = progress()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            break
    release(final, holder)


def discard(path: Path) -> None:
    """Remove a folder, gone for others in one step."""
    aside = temporary(path)
    with suppress(OSError):
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what processes left that died here, and after a day what others did."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if not abandoned(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _marker(final: Path) -> Path:
    return final.with_name(f"{PREFIX}{final.name}")


def _holder(final: Path) -> Path | None:
    """Who has the claim; None where it is none of ours."""
    try:
        return final.with_name(_marker(final).readlink().name)
    except FileNotFoundError:
        raise
    except OSError:
        return None


def _holds(final: Path, holder: Path) -> bool:
    try:
        return _holder(final) == holder
    except FileNotFoundError:
        return False

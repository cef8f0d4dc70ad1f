"""Processes of several machines on one folder: whose a half-made file is, and whether its maker still lives.

A number names a process on one machine only, until its next boot, and in one container. So what is made under
a temporary name carries machine, process and chance: nobody else writes there, and what a killed process left
can be told from what is being written. A number is given again after some ten thousand others; what the dead
left then stays until that process ends too. Nothing that lives is ever taken for dead.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

DAY = 24 * 3600.0
SIGNED = re.compile(r"-([A-Za-z0-9._]*~[0-9a-f]{8})-(\d{1,9})-[0-9a-f]+$")


@functools.cache
def machine() -> str:
    """The host's name, and a hash of where its process numbers hold: this boot, this container."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    host = re.sub(r"[^A-Za-z0-9.]", "_", facts[0])
    return f"{host}~{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]}"


def host(of: str) -> str:
    """The host's name alone."""
    return of.partition("~")[0]


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that has ended and waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there, and another user's
        pass
    with suppress(OSError, IndexError):  # no /proc: the signal's answer stands
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return state not in (b"Z", b"X")
    return True


def signed(name: str) -> str:
    """`name` as nobody else writes it: with machine, process and chance."""
    return f"{name}-{machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def temporary(folder: Path) -> Path:
    """A new hidden name in `folder`, for what is renamed when it is whole."""
    return folder / signed(".tmp")


def owner(name: str) -> tuple[str, int] | None:
    """Machine and process of a signed name; None for any other."""
    match = SIGNED.search(name)
    return (match[1], int(match[2])) if match else None


def gone(name: str) -> bool:
    """Whether a signed name is of a process of this machine that is no more."""
    known = owner(name)
    return known is not None and known[0] == machine() and not alive(known[1])


def abandoned(path: Path) -> bool:
    """Whether nobody will finish a temporary file or folder, or what a link means by its name.

    Its process died here; or is another machine's or unknown, and nothing moved in it for a day.
    """
    try:
        name = path.readlink().name if path.is_symlink() else path.name
        known = owner(name)
        if known is not None and known[0] == machine():
            return not alive(known[1])
        return time.time() - newest(path) > DAY
    except OSError:  # it went at this moment
        return False


def newest(path: Path) -> float:
    """The last change of a file, a link, or a folder with what is in it, in seconds since 1970."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return max(found.lstat().st_mtime for found in (path, *inside))

"""How much memory this process may still take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Of cgroups v2 and v1: what stands before a group's name in /proc/self/cgroup, where groups lie, the files of
# the limit and the use, and what the kernel gives back of the use: cached files that nobody reads.
CGROUPS = (
    ("0::", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        ":memory:",
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available() -> float:
    """Bytes that the machine has left, or a cgroup's limit where that is less; inf where nobody says."""
    found = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError):
        found += _left(Path("/proc/self/cgroup").read_text().splitlines())
    return min(found)


def _left(lines: list[str]) -> Iterator[float]:
    """What each limit leaves that holds for the groups of these lines, the limits of their parents too."""
    for beginning, root, limit, use, cache in CGROUPS:
        for line in lines:
            _, found, name = line.partition(beginning)
            if not found:
                continue
            group = Path(root) / name.lstrip("/")  # in a container often not there: its root is the group
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # "max": no limit
                    left = int((folder / limit).read_text()) - int((folder / use).read_text())
                    stat = (folder / "memory.stat").read_text().split()
                    yield float(left + int(stat[stat.index(cache) + 1]))
                if folder == Path(root):
                    break

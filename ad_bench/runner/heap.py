"""Freed memory is kept for the next batch, not given back to the system and asked for again.

By default glibc maps large blocks one by one and unmaps them when they are freed. PyTorch frees a batch's
activations and asks for as much at once, and the system clears every page of it again: a fifth of the time
of a memory bank on a CPU. Who has set glibc's own variables for it keeps what they say.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

MAPPED = 1 << 27  # bytes from which on a block is mapped alone: the tables of whole data sets
FREE = 1 << 29  # free bytes at the end of the heap from which on they are given back
PAD = 1 << 26  # bytes more than asked for: an aligned block asks for more than the hole it left has
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_OWN = (
    "GLIBC_TUNABLES",
    *(f"MALLOC_{name}_" for name in ("MMAP_THRESHOLD", "MMAP_MAX", "TRIM_THRESHOLD", "TOP_PAD")),
)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version") else None


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, from now on; False where that cannot be asked for."""
    library = _glibc()
    if library is None or any(name in os.environ for name in _OWN):
        return False
    mapped = library.mallopt(_MMAP_THRESHOLD, MAPPED) or library.mallopt(
        _MMAP_THRESHOLD, 1 << 25
    )  # old glibc
    return bool(mapped and library.mallopt(_TRIM_THRESHOLD, FREE) and library.mallopt(_TOP_PAD, PAD))


def give_back_freed_memory() -> None:
    """What this process has freed and still holds, so that it is not taken for what a later cell needs."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)

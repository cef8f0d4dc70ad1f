"""Work on many files by a few threads, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor


def ahead(work: Callable, items: Sequence, threads: int) -> Iterator:
    """work(item) of every item in order, done by threads that run a few items ahead.

    Threads and not processes: Pillow decodes and resizes without the interpreter's lock; nothing is pickled.
    """
    if threads == 1 or len(items) <= 1:
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


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Seconds, latency and peak memory of a cell, measured so that they mean the same for every method."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ad_bench.runner.heap import give_back_freed_memory


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished; a GPU's clock lies otherwise."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds since it was made, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        synchronise(device)
        self.start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        synchronise(self.device)
        return time.perf_counter() - self.start


def latency(predict: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Median and 95th percentile of the milliseconds that one call takes, after three to warm up.

    NaN where there are no `repeats`.
    """
    if repeats < 1:
        return float("nan"), float("nan")
    for _ in range(min(3, repeats)):
        predict()
    times = []
    for _ in range(repeats):
        watch = Stopwatch(device)
        predict()
        times.append(watch.seconds() * 1000)
    times.sort()
    return statistics.median(times), times[min(len(times) - 1, int(0.95 * len(times)))]


class PeakMemory:
    """The most memory in use since it was made, in bytes.

    On Linux the kernel's mark is set back at the start, so that a cell does not inherit the peak of the one
    before it; elsewhere the host's figure is that of the whole process so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        give_back_freed_memory()
        self.restart()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def restart(self) -> None:
        """Begin anew, on the host."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.since_start = True
        except OSError:
            self.since_start = False

    def host(self) -> int:
        """Resident bytes of this process at their highest."""
        if self.since_start:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def on_device(self) -> int | None:
        """Bytes that torch had allocated on the GPU at their highest; None on CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

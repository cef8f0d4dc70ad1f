"""Memory that is freed and asked for again, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ad_bench.runner import heap

SCRIPT = """
import resource, sys
import torch
from ad_bench.runner.heap import give_back_freed_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

torch.set_num_threads(1)
before = resident()
print("kept", keep_freed_memory() if sys.argv[1] == "keep" else None)
faults = []
for _ in range(20):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    table = torch.zeros(1 << 23)  # 32 MB
    del table
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
print("faults", sorted(faults)[10] * resource.getpagesize())
print("held", resident() - before)
give_back_freed_memory()
print("after", resident() - before)
"""

pytestmark = pytest.mark.skipif(heap._glibc() is None, reason="glibc alone is asked to keep memory")


def found(how: str, **environment: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in heap._OWN}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=own | environment, capture_output=True, text=True, check=True
    )
    return dict(line.split() for line in ended.stdout.splitlines())


def test_freed_memory_is_kept_and_can_be_given_back() -> None:
    plain, kept = found("plain"), found("keep")
    assert kept["kept"] == "True"
    assert int(plain["faults"]) > 1 << 24  # else there is nothing to gain here
    assert int(kept["faults"]) < 1 << 20
    assert int(kept["held"]) > 1 << 24
    assert int(kept["after"]) < 1 << 24


def test_who_has_set_glibc_themselves_is_left_alone() -> None:
    assert found("keep", MALLOC_TRIM_THRESHOLD_="131072")["kept"] == "False"

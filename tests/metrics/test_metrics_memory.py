"""What an evaluation takes beside the maps themselves, measured by the system in a process of its own."""

import os
import subprocess
import sys

import pytest

MEASURE = """
import os, resource, sys
import numpy as np
if sys.argv[2] == "torch":
    import torch
from ad_bench.metrics import evaluate
from ad_bench.metrics.truth import PixelTruth

def peak():
    if os.path.exists("/proc/self/status"):  # Linux counts what the parent held into ru_maxrss
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Apple: bytes

def made(count):
    rng = np.random.default_rng(0)
    maps, masks = [], []
    for image in range(count):
        mask = np.zeros((256, 256), bool)
        if image % 3:
            for _ in range(2):
                top, left = rng.integers(0, 220, 2)
                mask[top : top + 26, left : left + 36] = True
        values = rng.random((256, 256), np.float32)
        if sys.argv[1] == "normal pixels among the defects":  # for most a table does not tell the place
            close = (mask & (values < 0.99)) | (rng.random((256, 256), np.float32) < 0.27)
            values = np.where(close, 1 + values / 100, -500 * values).astype(np.float32)
        elif sys.argv[1] == "a background":  # where nearly all pixels are, and few of the defects
            values = np.where(mask, values, values / 1000)
        elif sys.argv[1] == "few levels":
            values = np.round(values * 20 + mask) / 20
        elif sys.argv[1] == "heavy tails":
            np.exp(40 * values + mask, out=values)
        maps.append(values)
        masks.append(mask)
    labels = [int(mask.any()) for mask in masks]
    return maps, PixelTruth.of(masks), np.arange(count), labels

evaluate(*made(30))  # what is loaded and kept once does not grow with the maps
given = made(int(sys.argv[3]))
before = peak()
values = evaluate(*given).values
assert all(0 < value <= 1 for value in values.values())
print((peak() - before) / sum(m.nbytes for m in given[0]))
"""


def extra(kind, torch, images):
    """Bytes taken at most beside the maps and the truth, per byte of the maps."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, torch, str(images)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say what a process took at most")
@pytest.mark.parametrize(
    ("kind", "torch"),
    [
        ("plain", "torch"),
        ("plain", "no torch"),
        ("a background", "torch"),
        ("a background", "no torch"),
        ("few levels", "no torch"),
        ("heavy tails", "no torch"),
        ("normal pixels among the defects", "torch"),
        ("normal pixels among the defects", "no torch"),
    ],
)
def test_an_evaluation_takes_at_most_twice_the_scores(kind, torch):
    assert extra(kind, torch, 300) <= 2.0

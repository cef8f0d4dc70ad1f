"""The image store among real processes: built once by several at once, whole or absent when one is killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.datasets import building, mtd
from ad_bench.datasets.store import open_store, verify
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample

SQUARE = Geometry(size=(48, 48))
MTD = (0.8, 0, 127)  # share of the training images, seed of the split, lowest value of a defect

BUILDER = """
import sys, time
from pathlib import Path
from ad_bench.datasets import mtd, store
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample
kind, data, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if kind == "mtd":
    samples = list(mtd.samples(data, "mtd", 0.8, 0, 127))
else:
    samples = [Sample(path, path.name, "nut", "train", 0) for path in sorted(data.iterdir())]
decoded, decode = [], store.decode
store.decode = lambda path: decoded.append(path) or time.sleep(float(sys.argv[4])) or decode(path)
print("ready", flush=True)
sys.stdin.readline()
made = store.open_store(samples, Geometry(size=(48, 48)), cache, 2)
print(len(decoded), made.path, made.images.sum())
"""


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """120 images whose decoding takes a third of a second; nobody changes them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for index in range(120):
        pixels = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png", compress_level=1)
    return folder


def listed(data: Path) -> list[Sample]:
    return [Sample(path, path.name, "nut", "train", 0) for path in sorted(data.iterdir())]


@pytest.fixture
def builder() -> Callable[..., subprocess.Popen]:
    """builder(kind, data, cache): a process that is ready to build, and starts at a line of input.

    It pauses before each image, so that there is time to do something to it.
    """

    def start(kind: str, data: Path, cache: Path, pause: float = 0) -> subprocess.Popen:
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", BUILDER, kind, str(data), str(cache), str(pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        started.append(process)
        return process

    started: list[subprocess.Popen] = []
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def go(process: subprocess.Popen) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def build_at_once(builder: Callable, count: int, kind: str, data: Path, cache: Path) -> list[list[str]]:
    """What each of `count` processes says: images it decoded, the store's folder, the sum of its pixels."""
    processes = [builder(kind, data, cache) for _ in range(count)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, [error for _, error in answers]
    return [words.split() for words, _ in answers]


def only_store(cache: Path) -> Path:
    """The one thing in the cache's folder."""
    [found] = (cache / "images").iterdir()
    return found


def test_the_real_tiles_twice_at_once(unpacked, builder, cache):
    data = unpacked("mtd/mtd.tar")
    said = build_at_once(builder, 2, "mtd", data, cache)
    samples = list(mtd.samples(data, "mtd", *MTD))
    memory = open_store(samples, SQUARE, None)
    store = open_store(samples, SQUARE, cache, progress=lambda done, total: pytest.fail("decoded again"))
    assert store.path == only_store(cache)
    assert np.array_equal(store.images, memory.images)
    assert np.array_equal(store.original_sizes, memory.original_sizes)
    assert verify(store) == []
    assert [words[1:] for words in said] == [[str(store.path), str(memory.images.sum())]] * 2
    assert sorted(int(words[0]) for words in said) == [0, 1344]  # the second waited for the first


def test_made_images_by_four_processes_at_once(pictures, builder, cache):
    said = build_at_once(builder, 4, "made", pictures, cache)
    memory = open_store(listed(pictures), SQUARE, None)
    assert {tuple(words[1:]) for words in said} == {(str(only_store(cache)), str(memory.images.sum()))}
    assert sorted(int(words[0]) for words in said) == [0, 0, 0, 120]


def test_without_claims_all_build_and_one_store_stays(pictures, builder, cache):
    samples = listed(pictures)
    expected = open_store(samples, SQUARE, cache)
    shutil.rmtree(expected.path)
    marker = building._marker(expected.path)
    marker.mkdir()  # what is no link cannot be read or taken back
    said = build_at_once(builder, 3, "made", pictures, cache)
    assert [words[0] for words in said] == ["120"] * 3
    marker.rmdir()
    assert only_store(cache) == expected.path
    assert np.array_equal(open_store(samples, SQUARE, cache).images, expected.images)


def test_a_waiting_process_takes_over_from_a_killed_one(pictures, builder, cache):
    first, second = (builder("made", pictures, cache, pause) for pause in (0.05, 0))
    for process in (first, second):
        assert process.stdout.readline() == "ready\n"
    go(first)
    wait_for(lambda: any((cache / "images").glob(f"{building.PREFIX}*/images.npy")))
    go(second)
    time.sleep(0.1)  # the second finds the claim of the first
    first.send_signal(signal.SIGKILL)
    first.wait()
    words, error = second.communicate(timeout=60)
    assert second.returncode == 0, error
    memory = open_store(listed(pictures), SQUARE, None)
    assert words.split()[1:] == [str(only_store(cache)), str(memory.images.sum())]


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_the_progress_of_another_process_is_shown(pictures, builder, cache):
    first = builder("made", pictures, cache, 0.05)
    assert first.stdout.readline() == "ready\n"
    go(first)
    half = f"{building.PREFIX}*/images.npy"
    wait_for(lambda: any(path.stat().st_size > 10**5 for path in (cache / "images").glob(half)))
    os.kill(first.pid, signal.SIGSTOP)  # so that there is something to see however fast it is
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            os.kill(first.pid, signal.SIGCONT)

    store = open_store(listed(pictures), SQUARE, cache, progress=progress)
    first.wait(timeout=60)
    assert first.stdout.read().split()[:2] == ["120", str(store.path)]  # all of them its work
    assert seen[0] == seen[1]  # while it stood still
    assert 0 < seen[0][0] < 120
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {120}


KILLED = """
import os, signal, sys, time
from pathlib import Path
from ad_bench.datasets.store import open_store
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample
data, cache = Path(sys.argv[1]), Path(sys.argv[2])
samples = [Sample(path, path.name, "nut", "train", 0) for path in sorted(data.iterdir())]
for delay in map(float, sys.argv[3:]):  # forked here, where there are no threads: imports are paid once
    child = os.fork()
    if child == 0:
        open_store(samples, Geometry(size=(48, 48)), cache, 2)
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    names = sorted(path.name for path in (cache / "images").iterdir()) if (cache / "images").is_dir() else []
    print("killed" if os.WIFSIGNALED(status) else "done", *names, flush=True)
    whole = [name for name in names if not name.startswith(".")]
    if whole:
        print("whole", flush=True)
        sys.stdin.readline()  # the test looks at it and removes it
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_builds_killed_at_random_moments_leave_nothing_half_made(pictures, cache):
    samples = listed(pictures)
    memory = open_store(samples, SQUARE, None)
    start = time.perf_counter()
    trial = open_store(samples, SQUARE, cache, 2)
    took = time.perf_counter() - start
    shutil.rmtree(trial.path)
    draw = random.Random(0)
    delays = [str(draw.uniform(0, 1.3 * took)) for _ in range(25)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(pictures), str(cache), *delays],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    killed = half = 0
    for line in process.stdout:
        if line == "whole\n":
            found = [p for p in (cache / "images").iterdir() if not p.name.startswith(".")]
            assert found == [trial.path]
            assert np.array_equal(np.load(found[0] / "images.npy"), memory.images)
            shutil.rmtree(found[0])
            go(process)
            continue
        state, *names = line.split()
        killed += state == "killed"
        left = [name for name in names if name.startswith(building.PREFIX)]
        half += any("~" in name for name in left)
        # Each build sweeps what the ones before it left: never more than one claim and one folder.
        assert len(left) <= 2, left
    assert process.wait() == 0
    assert killed >= 5
    assert half >= 3  # in the middle of the work, or this has tested nothing
    start = time.perf_counter()
    store = open_store(samples, SQUARE, cache, 2)
    assert time.perf_counter() - start < building.PATIENCE / 10  # a dead owner holds up nobody
    assert np.array_equal(store.images, memory.images)
    assert verify(store) == []
    assert only_store(cache) == store.path
    assert not [p for p in (cache / "probes").iterdir() if p.name.startswith(building.PREFIX)]

"""Claims, waiting and sweeping: work is saved where that is safe, and nobody waits for the dead."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ad_bench.datasets import building
from ad_bench.datasets.building import PREFIX, claim, discard, release, sweep, temporary, wait
from ad_bench.processes import DAY, machine


@pytest.fixture
def final(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def of(final: Path, pid: int, where: str | None = None) -> Path:
    """A temporary path of another process."""
    path = temporary(final)
    name = path.name.replace(f"-{os.getpid()}-", f"-{pid}-")
    return path.with_name(name.replace(machine(), where) if where else name)


def test_temporary_names_lie_beside_what_they_become(final):
    mine = temporary(final)
    assert mine.parent == final.parent
    assert mine.name.startswith(PREFIX)
    assert mine != temporary(final)


def test_one_claims_and_the_others_see_who(final):
    first, second = temporary(final), temporary(final)
    assert claim(final, first) is None
    assert claim(final, second) == first
    release(final, second)  # not its own
    assert claim(final, second) == first
    release(final, first)
    assert claim(final, second) is None
    assert claim(final.with_name("another"), first) is None


def test_threads_that_claim_at_once(final):
    for _ in range(20):
        start, answers = threading.Barrier(8), []

        def run(start=start, answers=answers):
            mine = temporary(final)
            start.wait()
            answers.append((claim(final, mine), mine))

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [mine for holder, mine in answers if holder is None]
        assert {holder for holder, _ in answers} == {None, winner}
        release(final, winner)


def test_without_links_everybody_builds(final, monkeypatch):
    def refused(path, target):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refused)
    assert claim(final, temporary(final)) is None
    assert claim(final, temporary(final)) is None


@pytest.mark.parametrize("end", ["built", "given up"])
def test_waiting_ends_with_the_work(final, end):
    holder = temporary(final)
    claim(final, holder)
    done: list[str] = []

    def work() -> None:
        time.sleep(0.3)
        done.append("yes")
        if end == "built":
            final.mkdir()
        else:
            release(final, holder)

    worker = threading.Thread(target=work)
    worker.start()
    wait(final, holder, lambda: 0)
    assert done
    worker.join()
    assert claim(final, temporary(final)) is None  # void in any case


def test_nobody_waits_for_the_dead(final, dead):
    holder = of(final, dead)
    claim(final, holder)
    start = time.monotonic()
    wait(final, holder, lambda: 0)
    assert time.monotonic() - start < 1
    assert claim(final, temporary(final)) is None


def test_another_host_is_waited_for_while_it_gets_on(final, dead, monkeypatch):
    monkeypatch.setattr(building, "PATIENCE", 0.3)
    holder = of(final, dead, "elsewhere~01234567")
    claim(final, holder)
    start = time.monotonic()
    # A new state every 0.2 s for a second, then none: five times within the patience, then once beyond it.
    wait(final, holder, lambda: min(5, int((time.monotonic() - start) / 0.2)))
    assert 1.2 < time.monotonic() - start < 3
    assert claim(final, temporary(final)) is None


def test_sweeping(tmp_path, dead):
    final = tmp_path / "store"
    mine, killed, far = temporary(final), of(final, dead), of(final, dead, "elsewhere~01234567")
    aged, unknown = of(final, dead, "elsewhere~76543210"), tmp_path / f"{PREFIX}old"
    for folder in (mine, killed, far, aged, unknown):
        folder.mkdir()
        (folder / "images.npy").write_bytes(b"half")
    (tmp_path / "whole").mkdir()
    (tmp_path / f"{PREFIX}a").symlink_to(mine.name)
    (tmp_path / f"{PREFIX}b").symlink_to(killed.name)
    file = of(final, dead)
    file.write_bytes(b"half an index")
    past = time.time() - 1.1 * DAY
    for folder in (aged, unknown):
        for path in (folder / "images.npy", folder):
            os.utime(path, (past, past))
    os.utime(far, (past, past))  # but a file inside is young: it is being written
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, far.name, "whole", f"{PREFIX}a"}
    assert (far / "images.npy").exists()


def test_discarding_is_one_step_for_others(final, monkeypatch):
    final.mkdir()
    (final / "images.npy").write_bytes(b"bad")
    monkeypatch.setattr(building.shutil, "rmtree", lambda *rest, **options: None)  # killed at this moment
    discard(final)
    [aside] = final.parent.iterdir()
    assert aside.name.startswith(PREFIX)
    discard(final)  # nothing there: nothing to do

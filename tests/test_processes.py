"""Whose a temporary file is, and whether its maker lives: real processes, dead ones, those of a container."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ad_bench import processes
from ad_bench.processes import DAY, abandoned, alive, gone, machine, owner, signed, temporary

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def of(pid: int, where: str = "") -> str:
    """The name that another process would have signed."""
    return f".tmp-{where or machine()}-{pid}-0a1b2c3d"


def age(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    for one in (*path.rglob("*"), path):
        os.utime(one, (past, past), follow_symlinks=False)


def test_a_signed_name_says_machine_and_process() -> None:
    name = signed(".building-a-b-12-ff")
    assert name.startswith(".building-a-b-12-ff-")
    assert owner(name) == (machine(), os.getpid())
    assert name != signed(".building-a-b-12-ff")
    assert "/" not in name
    for other in ("table.csv", ".tmp-host-12-aa", ".tmp-12-aa", ".table.csv.0a1b2c3d"):
        assert owner(other) is None, other


def test_the_number_of_a_process_means_nothing_in_another_container() -> None:
    code = "from ad_bench.processes import machine; print(machine())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def ask(*before: str) -> subprocess.CompletedProcess[str]:
        words = [*before, sys.executable, "-c", code]
        return subprocess.run(words, capture_output=True, text=True, env=environment)

    assert ask().stdout.strip() == machine()
    boxed = ask("unshare", "--pid", "--fork", "--mount-proc")
    if boxed.returncode:
        pytest.skip(f"no process namespace can be made here: {boxed.stderr.strip()}")
    assert processes.host(boxed.stdout) == processes.host(machine())
    assert boxed.stdout.strip() != machine()


def test_who_is_alive(dead: int) -> None:
    assert alive(os.getpid())
    assert alive(1)
    assert not alive(dead)
    assert not alive(999_999_999)
    ended = subprocess.Popen([sys.executable, "-c", ""])  # nobody has asked yet how it ended
    deadline = time.monotonic() + 30
    while alive(ended.pid):
        assert time.monotonic() < deadline, "a process that has ended counts as alive until it is collected"
        time.sleep(0.01)
    assert not Path("/proc").is_dir() or Path(f"/proc/{ended.pid}").exists()
    ended.wait()


def test_gone_are_the_dead_of_this_machine_alone(dead: int) -> None:
    assert gone(of(dead))
    assert not gone(of(os.getpid()))
    assert not gone(of(1))  # of root; not ours to signal, but there
    assert not gone(of(dead, "elsewhere~01234567"))
    assert not gone(".tmp-old")


@pytest.mark.parametrize(
    ("name", "seconds", "left"),
    [
        (lambda dead: of(dead), 0, True),
        (lambda dead: of(os.getpid()), 2 * DAY, False),  # it lives, however long it takes
        (lambda dead: of(dead, "elsewhere~01234567"), 0.9 * DAY, False),
        (lambda dead: of(dead, "elsewhere~01234567"), 1.1 * DAY, True),
        (lambda dead: f".tmp-elsewhere-{dead}-aa", 0.9 * DAY, False),  # as earlier versions named them
        (lambda dead: f".tmp-elsewhere-{dead}-aa", 1.1 * DAY, True),
    ],
)
def test_what_nobody_will_finish(
    tmp_path: Path, dead: int, name: Callable[[int], str], seconds: float, left: bool
) -> None:
    folder = tmp_path / name(dead)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("half")
    age(folder, seconds)
    link = tmp_path / ".building-store"
    link.symlink_to(folder.name)
    os.utime(link, (time.time() - seconds,) * 2, follow_symlinks=False)
    assert abandoned(folder) is left
    assert abandoned(link) is left


def test_a_file_that_moves_deep_inside_is_a_sign_of_life(tmp_path: Path, dead: int) -> None:
    folder = tmp_path / of(dead, "elsewhere~01234567")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("half")
    age(folder, 2 * DAY)
    assert abandoned(folder)
    os.utime(folder / "deep" / "file")
    assert not abandoned(folder)


def test_what_went_meanwhile_is_nobodys_concern(tmp_path: Path) -> None:
    assert not abandoned(tmp_path / ".tmp-nowhere")
    assert abandoned(tmp_path / of(999_999_999)) is True  # its maker is dead, whether it is there or not
    assert temporary(tmp_path).parent == tmp_path

"""Real images and weights where they exist, a results folder of its own for each test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for a hub
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else the processes of the tests hear no Ctrl-C


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT / default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}: set {variable}")
    return folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    return _folder("ADBENCH_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def test_weights() -> Path:
    return _folder("ADBENCH_WEIGHTS", "../shared/weights")


@pytest.fixture(scope="session")
def unpacked(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """unpacked("mtd/mtd.tar") -> a folder with the archive's content, once a session."""
    done: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in done:
            archive = test_data / name
            if not archive.is_file():
                pytest.skip(f"no {archive}")
            folder = tmp_path_factory.mktemp(archive.stem)
            with tarfile.open(archive) as tar:
                if hasattr(tarfile, "data_filter"):
                    tar.extractall(folder, filter="data")
                else:  # Python 3.11.0 to 3.11.3: plain files and folders below this one, or nothing
                    for member in tar:
                        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
                        assert inside and (member.isfile() or member.isdir()), member.name  # noqa: PT018
                    tar.extractall(folder)
            done[name] = folder
        return done[name]

    return unpack


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded images and the synthetic set, shared by the tests of a session as by the runs of a user."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def adbench(tmp_path: Path, cache: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """adbench("run", "method=random") in a folder of its own, as a user would call it."""

    def call(
        *words: str, env: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT), **(env or {})}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "ad_bench", *words],
            cwd=options.pop("cwd", tmp_path),
            env=environment,
            capture_output=True,
            text=True,
            timeout=options.pop("timeout", 300),
            **options,
        )

    return call

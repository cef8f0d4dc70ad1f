"""What the data set tests share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def guarded() -> Iterator[Path]:
    """An empty folder in which permissions hold: root becomes an ordinary user for the test."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)  # pytest's own tmp_path is closed to other users
        if root:
            os.seteuid(65534)  # nobody
        folder = Path(name) / "data"
        folder.mkdir()
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for path in [folder, *folder.rglob("*")]:  # outermost first: opened before it is looked into
                path.chmod(0o777)

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from ad_bench.runner.progress import Watch

ROOT = Path(__file__).resolve().parents[2]


def test_a_log_gets_one_plain_line_for_each_cell() -> None:
    text = io.StringIO()
    with Watch(2, Console(file=text)) as watch:
        assert list(watch.track([1, 2, 3], text="fit")) == [1, 2, 3]
        watch.cell_done("mtd/mtd [patchcore]: image AUROC 0.9")
        watch.cell_done("second " + "x" * 300)
    assert text.getvalue().splitlines() == [
        "[1/2] mtd/mtd [patchcore]: image AUROC 0.9",  # brackets are text, no markup
        "[2/2] second " + "x" * 300,  # never wrapped
    ]


def test_a_terminal_gets_bars(tmp_path: Path, cache: Path) -> None:
    """A real pseudo-terminal around a real run."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ad_bench", "run", "method=random", "runtime=debug"],
        cwd=tmp_path, stdin=follower, stdout=follower, stderr=follower,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ADBENCH_CACHE": str(cache), "TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux says EIO when the other side has closed
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=120) == 0, shown
    assert "━".encode() in shown  # a bar
    assert b"4/4" in shown
    assert b"4 done" in shown

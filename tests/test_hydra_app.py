"""Hydra's own multirun: the same cells, one job each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.runner.conftest import data, mine, records

__all__ = ["data", "mine"]  # fixtures
ROOT = Path(__file__).resolve().parents[1]


def test_hydra_runs_one_job_for_each_cell(data: Path, mine: Path, cache: Path, tmp_path: Path) -> None:
    words = ["--config-dir", str(mine), "-m", "method=brightness,random", "category=bottle", "dataset=mvtec"]
    answer = subprocess.run(
        [sys.executable, "-m", "ad_bench.hydra_app", *words, "runtime.latency_repeats=0"],
        cwd=tmp_path,
        env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    assert "Launching 2 jobs" in answer.stdout
    assert {key: r["status"] for key, r in records(tmp_path).items()} == {
        "brightness/bottle": "done",
        "random/bottle": "done",
    }

"""The method that CONTRIBUTING.md adds with three files is added to a copy of the repository, and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("newcomer")
    for name in ("ad_bench", "conf", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", text, flags=re.M | re.S)
    assert [Path(name).suffix for name, _ in blocks] == [".py", ".yaml", ".py"]
    for name, content in blocks:
        assert not (copy / name).exists()
        (copy / name).write_text(content, encoding="utf-8")
    return copy


def call(repository: Path, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository), "ADBENCH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_its_own_tests_and_the_contract_pass(repository: Path, cache: Path) -> None:
    answer = call(repository, cache, "-m", "pytest", "-q", "-k", "z_score", "tests/contract", "tests/methods")
    assert answer.returncode == 0, answer.stdout
    passed = re.search(r"(\d+) passed", answer.stdout)
    assert passed
    assert int(passed[1]) > 8, answer.stdout


def test_it_runs_and_stands_in_the_tables(repository: Path, cache: Path) -> None:
    answer = call(repository, cache, "-m", "ad_bench", "run", "method=z_score", "dataset=synthetic")
    assert answer.returncode == 0, answer.stderr
    assert call(repository, cache, "-m", "ad_bench", "report").returncode == 0
    table = repository / "results" / "tables" / "synthetic" / "table9_image_auroc.csv"
    assert ",z_score,Z-score," in table.read_text()

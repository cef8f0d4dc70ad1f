"""What a user installs: the wheel carries code, configuration, tables and weights, and needs no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def call(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_carries_every_configuration_and_table(installed: Path) -> None:
    def names(folder: Path, pattern: str) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.rglob(pattern)}

    assert names(installed / "ad_bench" / "conf", "*.yaml") == names(ROOT / "conf", "*.yaml")
    assert names(installed / "ad_bench" / "reference", "*.csv") == names(ROOT / "ad_bench/reference", "*.csv")
    assets = "ad_bench/report/site/assets"
    assert names(installed / assets, "*") == names(ROOT / assets, "*") >= {"index.html", "vendor/d3.min.js"}
    assert list((installed / "ad_bench" / "weights").glob("*.safetensors"))
    assert not list(installed.glob("tests*"))


def test_it_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    where = call(installed, tmp_path, "-c", "import ad_bench, ad_bench.config as c; print(c.conf_dir())")
    assert where.stdout.strip() == str(installed / "ad_bench" / "conf")
    listed = call(installed, tmp_path, "-m", "ad_bench", "list", "methods")
    assert "patchcore" in listed.stdout, listed.stderr
    shown = call(installed, tmp_path, "-m", "ad_bench", "show", "method=patchcore", "dataset=mvtec")
    assert "published image_auroc on mvtec" in shown.stdout, shown.stderr
    answer = call(installed, tmp_path, "-m", "ad_bench", "run", "method=random", "runtime=debug")
    assert answer.returncode == 0, answer.stderr

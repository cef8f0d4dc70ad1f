from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "timm", "pandas", "sklearn", "torchvision")
Call = Callable[..., subprocess.CompletedProcess[str]]


def imported(words: list[str], tmp_path: Path) -> set[str]:
    """The heavy packages that one command has imported by its end."""
    code = (
        "import sys, contextlib, io\n"
        "from ad_bench.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    code = main({words!r})\n"
        "print(code, *sorted(sys.modules))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    return set(answer.stdout.split()[1:]) & {*HEAVY, "hydra", "omegaconf", "numpy"}


def test_help_imports_nothing(tmp_path: Path) -> None:
    for words in ([], ["--help"], ["run", "--help"], ["--version"], ["rnu"]):
        assert imported(words, tmp_path) == set(), words


@pytest.mark.parametrize(
    "words",
    [
        ["run", "method=patchcor"],
        ["run", "method=patchcore", "method.model.coreset_rato=1"],
        ["run", "method=patchcore,padim"],
        ["run", "method=patchcore", "dataset=mvtec"],
        ["list", "methods"],
        ["list", "metrics", "--json"],
        ["show", "method=patchcore"],
    ],
)
def test_wrong_words_and_catalogues_import_no_torch(words: list[str], tmp_path: Path) -> None:
    assert not imported(words, tmp_path) & set(HEAVY)


def test_help_names_every_command(adbench: Call) -> None:
    answer = adbench("--help")
    assert answer.returncode == 0
    for command in ("run", "report", "list", "show", "data", "evaluate", "rescore", "doctor"):
        assert f"\n  {command}" in answer.stdout
        assert adbench(command, "--help").stdout.startswith("usage: adbench")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "method=patchcore"], "Did you mean run"),
        (["run", "method=patchcor"], "Did you mean patchcore"),
        (["run", "--multirn", "method=patchcore"], "Did you mean --multirun"),
        (["run", "method=patchcore", "--config-dir"], "needs a value"),
        (["run", "method=random", "dataset=mvtec"], "data/mvtec"),
        (["run", "method=random", "category=wod"], "no category 'wod'"),
        (["run", "method=random", "rerun=sometimes"], "never, failed, always"),
        (["run", "method=random", "runtime.device=tpu"], "runtime.device=tpu"),
        (["list", "method"], "methods"),
        (["data", "chek", "dataset=mvtec"], "check"),
        (["evaluate", "--maps", "x"], "--dataset"),
        (["report", "everything"], "everything"),
    ],
)
def test_wrong_use_is_answered_in_one_line_with_code_2(adbench: Call, words: list[str], said: str) -> None:
    answer = adbench(*words)
    assert answer.returncode == 2, answer.stderr
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_lists_as_json(adbench: Call) -> None:
    for what in ("methods", "datasets", "metrics", "protocols", "backbones", "suites"):
        entries = json.loads(adbench("list", what, "--json").stdout)
        assert entries
        assert all({"id", "source"} <= set(entry) for entry in entries)
    methods = {e["id"]: e for e in json.loads(adbench("list", "methods", "--json").stdout)}
    assert methods["patchcore"] == {
        "id": "patchcore", "title": "PatchCore", "source": "survey", "paper": "2106.08265", "year": 2022,
        "taxonomy": "memory_bank", "needs": [], "fidelity": "reference", "protocol": "full",
    }  # fmt: skip


def test_show_prints_settings_and_published_figures(adbench: Call) -> None:
    text = adbench("show", "method=patchcore", "dataset=mvtec").stdout
    assert "coreset_ratio: 0.1" in text
    assert "published image_auroc on mvtec, full: 0.992 (survey)" in text
    assert "conf/method/patchcore.yaml" in text


def test_doctor_says_what_works(adbench: Call, tmp_path: Path) -> None:
    answer = adbench("doctor", env={"ADBENCH_WEIGHTS": str(tmp_path)})
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for word in ("Python", "torch", "data mvtec", "weights resnet18.tv_in1k", "GiB free"):
        assert word in answer.stdout


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m ad_bench list methods | head -1"
    answer = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "Traceback" not in answer.stderr


def test_a_program_that_leaves_at_once_loses_nothing(tmp_path: Path) -> None:
    code = (
        "import atexit, sys, pathlib\n"
        "atexit.register(lambda: pathlib.Path('last').write_text('done'))\n"
        "sys.argv = ['adbench', *sys.argv[1:]]\n"
        "from ad_bench.__main__ import program\n"
        "program()\n"
    )
    for words, wanted in ((["--help"], 0), (["nothing"], 2)):
        answer = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert answer.returncode == wanted
        assert "no command 'nothing'" in answer.stderr if wanted else "usage" in answer.stdout.lower()
        assert (tmp_path / "last").read_text() == "done"
        (tmp_path / "last").unlink()

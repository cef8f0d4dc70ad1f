"""The arithmetic of scripts/bench_cell.py: phases of a run, what they leave over, what is extrapolated."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


bench, child = script("bench_cell"), script("cell_child")


def test_a_stage_counts_for_the_phase_that_began_last() -> None:
    marks = [
        *(("read patchcore", 1.0), ("fit patchcore", 2.0), ("features", 2.5), ("coreset", 4.0)),
        *(("read mtd/mtd", 7.0), ("predict mtd/mtd", 7.5), ("evaluate mtd/mtd", 10.0), ("masks", 10.0)),
        *(("pixel metrics, geometry of the paper", 11.0), ("pixel metrics, original geometry", 12.0)),
    ]
    wanted = {"ready": 1.5, "fit": 5.0, "predict": 2.5, "paper": 2.0, "full": 4.0}
    assert child.phases(marks, 16.0) == wanted


def cell(**changed: float) -> Any:
    second = {"startup": 2.0, "ready": 1.5, "fit": 5.0, "predict": 2.5, "paper": 2.0, "full": 4.0}
    second |= {"seconds": 18.0, "opening": 0.09, "tensors": 0.27, **changed}
    record = {"timing": {"fit_seconds": 4.9, "predict_seconds": 2.25}}
    return bench.Cell("patchcore", 60, 200, bench.Ended(30.0, 1, ""), second, record, {})


def test_work_and_rest_are_the_whole_run() -> None:
    one = cell()
    assert one.work == pytest.approx(4.9 + 2.25 + 2.0)
    assert one.rest["latency of one image"] == pytest.approx(0.25)
    assert one.rest["exit"] == pytest.approx(1.0)
    assert one.work + sum(one.rest.values()) == pytest.approx(18.0)


def test_reading_is_a_share_of_the_whole_run() -> None:
    assert cell().reading(False) == pytest.approx(0.005)
    assert cell().reading(True) == pytest.approx(0.02)


def peer(picks: int) -> Any:
    embed: dict[str, Any] = {
        "embed": 1.0,
        "projection": 2.0,
        "coreset": 2.0 + 0.5 * (picks - 1),
        "coreset_size": 101,
    }
    embed["chosen"] = list(range(picks))
    return bench.Peer(60, embed, {"predict": 3.0, "metrics": 4.0}, picks == 101, picks, {}, {})


@pytest.mark.parametrize("picks", [11, 101])
def test_a_part_of_the_picks_is_extrapolated_to_all(picks: int) -> None:
    one = peer(picks)
    assert one.coreset == pytest.approx(2.0 + 100 * 0.5)
    assert one.seconds == pytest.approx(1.0 + 52.0 + 3.0 + 4.0)


def test_the_page_names_no_folder_of_this_machine() -> None:
    words = [
        "--data",
        "/home/me/data",
        "--train",
        "60",
        "--peer",
        "/opt/peer/bin/python",
        "--out",
        "/x/cell.md",
    ]
    assert bench.shown(words) == [
        *("--data", "DIR", "--train", "60", "--peer", "PEER/bin/python", "--out", "FILE.md")
    ]


def test_a_run_needs_exactly_one_source_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--data", "here", "--synthetic-images"]):
        with pytest.raises(SystemExit):
            bench.asked(words)
        assert "--synthetic-images" in capsys.readouterr().err

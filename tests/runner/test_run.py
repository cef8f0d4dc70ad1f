"""`adbench run` as its users call it: real processes, real files, and everything that can go wrong."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.records import read_all
from tests.runner.conftest import records, write_category

Call = Callable[..., subprocess.CompletedProcess[str]]
MVTEC = ("dataset=mvtec", "runtime.device=cpu", "runtime.latency_repeats=1")
ROOT = Path(__file__).resolve().parents[2]


def scores(tmp_path: Path) -> dict[str, object]:
    return {key: (r["metrics"], r["fingerprint"]) for key, r in records(tmp_path).items()}


def test_a_run_leaves_a_record_a_config_and_the_scores(adbench: Call, data: Path, tmp_path: Path) -> None:
    answer = adbench("run", "method=mean_image", "method.input={size: 48}", *MVTEC)
    assert answer.returncode == 0, answer.stderr
    assert "2 cells: 2 to run" in answer.stderr
    assert "mvtec/zipper" in answer.stderr.replace("\n", " ")  # the 13 that are not there are said
    found = records(tmp_path)
    assert set(found) == {"mean_image/bottle", "mean_image/cable"}
    record = found["mean_image/bottle"]
    assert record["counts"] == {"train": 6, "test_normal": 3, "test_anomalous": 3}
    assert record["metrics"]["image"]["image_auroc"] == 1.0
    assert record["metrics"]["full"]["pixel_auroc"] > 0.9
    assert record["pixels_seen"] == 1.0
    for part in ("timing", "memory", "model", "versions", "hardware", "fingerprint"):
        assert record[part], part
    (path,) = (tmp_path / "results" / "cells" / "mvtec" / "bottle").rglob("record.json")
    with (path.parent / "samples.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [r["path"] for r in rows][:1] == ["bottle/test/good/000.png"]
    assert [int(r["label"]) for r in rows] == [0, 0, 0, 1, 1, 1]
    assert str(tmp_path) not in (path.parent / "config.yaml").read_text()  # no folder of this machine


def test_what_is_done_is_not_run_again(adbench: Call, data: Path, tmp_path: Path) -> None:
    words = ("run", "method=random", "category=bottle", *MVTEC)
    adbench(*words)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")}
    again = adbench(*words)
    assert again.returncode == 0
    assert "1 already done" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")} == before
    adbench(*words, "rerun=always")
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")}
    assert set(after) == set(before)
    assert after != before


def test_the_same_run_gives_the_same_numbers_with_and_without_the_store(
    adbench: Call, data: Path, tmp_path: Path
) -> None:
    words = ("run", "-m", "method=random,mean_image", "seed=0,1", *MVTEC)
    adbench(*words)
    first = scores(tmp_path)
    shutil.rmtree(tmp_path / "results")
    adbench(*words, "store=false")
    assert scores(tmp_path) == first
    assert len(list(tmp_path.rglob("record.json"))) == 8


def test_a_look_without_the_weights_shows_the_rest_and_says_what_is_missing(
    adbench: Call, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ("-m", "method=random,pni", "dataset=mvtec", "category=bottle")
    for look in (("run", *words, "--dry-run"), ("status", *words), ("status", *words, "--table")):
        answer = adbench(*look)
        assert answer.returncode == 2
        assert "random" in answer.stdout
        assert "no weights for 'wide_resnet101_2.tv_in1k'" in answer.stderr
    answer = adbench("run", *words)
    assert answer.returncode == 2
    assert not answer.stdout
    assert not list(data.parent.parent.rglob("record.json"))


def test_a_moved_and_touched_data_set_has_the_same_fingerprint(
    adbench: Call, data: Path, tmp_path: Path
) -> None:
    words = ("run", "method=random", "category=bottle", "dataset=mvtec", "--dry-run")
    before = adbench(*words).stdout
    moved = tmp_path / "elsewhere"
    shutil.move(data, moved)
    for path in moved.rglob("*.png"):
        os.utime(path, (0, 0))
    assert adbench(*words, f"dataset.root={moved}").stdout == before
    assert adbench(*words, f"dataset.root={moved}", "method.loader.batch_size=3").stdout != before
    assert adbench(*words, f"dataset.root={moved}", "seed=1").stdout != before
    write_category(moved, "bottle", train=7)
    assert adbench(*words, f"dataset.root={moved}").stdout != before


def test_one_failure_stops_nothing_and_can_be_run_again(
    adbench: Call, data: Path, mine: Path, tmp_path: Path
) -> None:
    words = (
        "run",
        "-m",
        "method=crash,nan_on_the_third,wrong_shape,brightness",
        *MVTEC,
        "--config-dir",
        str(mine),
    )
    answer = adbench(*words)
    assert answer.returncode == 1
    assert "6 failed" in answer.stderr
    assert "2 done" in answer.stderr
    found = records(tmp_path)
    crash, nan, shape = (found[f"{m}/bottle"]["error"] for m in ("crash", "nan_on_the_third", "wrong_shape"))
    assert crash["type"] == "RuntimeError"
    assert "this method is broken" in crash["message"]
    assert "my_methods.py" in crash["traceback"]
    assert nan["message"].startswith("the anomaly score of bottle/test/good/002.png is nan")
    assert "WrongShape.predict returned scores" in shape["message"]
    assert found["brightness/cable"]["status"] == "done"
    again = adbench(*words)
    assert again.returncode == 1  # failed before, not run again
    assert "8 cells: 0 to run" in again.stderr
    assert "8 cells: 6 to run" in adbench(*words, "rerun=failed").stderr
    text = (
        (mine / "my_methods.py")
        .read_text()
        .replace('raise RuntimeError("this method is broken")', "super().fit(train, run)")
    )
    (mine / "my_methods.py").write_text(text)  # a mended method has another fingerprint
    mended = adbench("run", "method=crash", *MVTEC, "--config-dir", str(mine))
    assert mended.returncode == 0, mended.stderr


def test_a_method_without_maps_has_image_metrics_and_says_why_no_others(
    adbench: Call, data: Path, mine: Path, tmp_path: Path
) -> None:
    adbench("run", "method=scores_only", "category=bottle", *MVTEC, "--config-dir", str(mine))
    record = records(tmp_path)["scores_only/bottle"]
    assert record["metrics"]["image"]["image_auroc"] == 1.0
    assert record["metrics"]["full"]["pixel_auroc"] is None
    assert record["undefined"]["full.pixel_auroc"] == "the method gives no anomaly map"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("train/good/002.png", truncate, "train/good/002.png"),
        ("test/spot/001.png", truncate, "test/spot/001.png"),
        ("test/good/001.png", lambda p: p.write_text("no image"), "test/good/001.png"),
        ("test/good/001.png", lambda p: p.write_bytes(b""), "test/good/001.png"),
        ("ground_truth/spot/001_mask.png", lambda p: Image.new("L", (9, 9)).save(p), "001_mask.png"),
        ("ground_truth/spot/001_mask.png", truncate, "001_mask.png"),
    ],
)
def test_a_broken_file_fails_its_category_alone_and_is_named(
    adbench: Call, data: Path, tmp_path: Path, file: str, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(data / "bottle" / file)
    answer = adbench("run", "method=mean_image", *MVTEC)
    assert answer.returncode == 1
    found = records(tmp_path)
    assert found["mean_image/bottle"]["status"] == "failed"
    assert said in found["mean_image/bottle"]["error"]["message"]
    assert found["mean_image/cable"]["status"] == "done"


def test_missing_masks_and_empty_categories_are_said_before_anything_runs(
    adbench: Call, data: Path, tmp_path: Path
) -> None:
    (data / "bottle" / "ground_truth" / "spot" / "001_mask.png").unlink()
    for path in (data / "cable" / "train" / "good").iterdir():
        path.unlink()
    answer = adbench("run", "method=mean_image", *MVTEC)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.rglob("record.json"))
    one = adbench("run", "method=mean_image", "category=bottle", *MVTEC)
    assert "001" in one.stderr
    other = adbench("run", "method=mean_image", "category=cable", *MVTEC)
    assert "cable" in other.stderr


def test_an_all_black_mask_is_scored_and_noted(adbench: Call, data: Path, tmp_path: Path) -> None:
    path = data / "bottle" / "ground_truth" / "spot" / "001_mask.png"
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(path)
    assert adbench("run", "method=mean_image", "category=bottle", *MVTEC).returncode == 0
    record = records(tmp_path)["mean_image/bottle"]
    assert record["warnings"] == ["1 anomalous image(s) have an empty mask, first bottle/test/spot/001.png"]
    assert record["metrics"]["full"]["pixel_auroc"] is not None


def test_one_pixel_images_run(adbench: Call, data: Path, tmp_path: Path) -> None:
    for path in (data / "bottle").rglob("*.png"):
        mode = "L" if "mask" in path.name else "RGB"
        Image.new(mode, (1, 1), 255 if mode == "L" else (9, 9, 9)).save(path)
    answer = adbench("run", "method=mean_image", "category=bottle", *MVTEC)
    assert answer.returncode == 0, answer.stderr


def start(tmp_path: Path, cache: Path, *words: str, slow: str = "0") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ad_bench", *words],
        cwd=tmp_path,
        env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT), "SLOW": slow},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_records(tmp_path: Path, process: subprocess.Popen[str], count: int = 1) -> None:
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("results/cells/mvtec/**/record.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def score_tables(tmp_path: Path) -> dict[str, bytes]:
    """All but the costs, which are other seconds each time."""
    found = (tmp_path / "results" / "tables").rglob("*.*")
    return {path.name: path.read_bytes() for path in found if path.stem != "costs"}


def test_killed_and_started_again_it_ends_with_the_same_tables(
    adbench: Call, data: Path, mine: Path, cache: Path, tmp_path: Path
) -> None:
    words = ("run", "-m", "method=slow,random", "seed=0,1", *MVTEC, "--config-dir", str(mine))
    process = start(tmp_path, cache, *words, slow="0.6")
    wait_for_records(tmp_path, process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    before = len(list(tmp_path.rglob("record.json")))
    assert 0 < before < 8
    answer = adbench(*words)
    assert answer.returncode == 0, answer.stderr
    assert "already done" in answer.stderr
    adbench("report")
    resumed = score_tables(tmp_path)
    assert len(resumed) >= 12
    assert not list((tmp_path / "results" / "cells").glob(".*"))  # what the killed process left is gone
    shutil.rmtree(tmp_path / "results")
    adbench(*words)
    adbench("report")
    assert score_tables(tmp_path) == resumed


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_130_and_keeps_what_is_done(
    data: Path, mine: Path, cache: Path, tmp_path: Path, sent: int
) -> None:
    process = start(tmp_path, cache, "run", "method=slow", *MVTEC, "--config-dir", str(mine), slow="20")
    assert process.stderr
    assert "2 cells: 2 to run" in process.stderr.readline()
    time.sleep(3)
    process.send_signal(sent)
    _, text = process.communicate(timeout=15)
    assert process.returncode == 130, text
    assert "interrupted" in text
    assert "Traceback" not in text
    assert not list(tmp_path.rglob("record.json"))
    assert not list((tmp_path / "results").rglob(".tmp*"))


def test_two_runs_of_the_same_cells_at_once(data: Path, cache: Path, tmp_path: Path) -> None:
    words = ("run", "-m", "method=random,mean_image", *MVTEC)
    both = [start(tmp_path, cache, *words) for _ in range(2)]
    for process in both:
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0, text
    found = records(tmp_path)
    assert len(found) == 4
    assert {r["status"] for r in found.values()} == {"done"}
    assert not list((tmp_path / "results" / "cells").glob(".*"))


def test_a_full_disk_is_said_and_earlier_records_stay(
    adbench: Call, data: Path, mine: Path, tmp_path: Path
) -> None:
    words = ("run", "method=brightness", *MVTEC, "--config-dir", str(mine), "store=false")
    adbench(*words, "category=bottle")
    before = {p: p.read_bytes() for p in tmp_path.glob("results/cells/**/*.*")}

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    answer = adbench(*words, "category=cable", preexec_fn=small_files)
    assert answer.returncode == 1
    assert "cannot write the record of mvtec/cable" in answer.stderr
    assert "Earlier ones are intact" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert {p: p.read_bytes() for p in tmp_path.glob("results/cells/**/*.*")} == before
    assert adbench(*words).returncode == 0  # room again: only the missing one runs


def test_maps_and_model_are_kept_on_request(adbench: Call, data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    adbench("run", "method=mean_image", "category=bottle", "save.maps=true", "save.model=true", *MVTEC)
    (maps,) = tmp_path.rglob("maps.npz")
    with np.load(maps, allow_pickle=False) as stored:
        assert stored["bottle/test/spot/000.png"].dtype == np.float16
        assert len(stored.files) == 6
    assert load_file(maps.with_name("model.safetensors"))


def test_protocols(adbench: Call, data: Path, tmp_path: Path) -> None:
    words = ("run", "method=mean_image", *MVTEC)
    assert adbench(*words, "protocol=few_shot", "protocol.shots=2").returncode == 0
    assert records(tmp_path)["mean_image/bottle"]["protocol"] == "few_shot-2"
    assert records(tmp_path)["mean_image/bottle"]["counts"]["train"] == 2
    shutil.rmtree(tmp_path / "results")
    assert adbench(*words, "protocol=unified").returncode == 0
    assert {r["counts"]["train"] for r in records(tmp_path).values()} == {12}


def test_debug_records_are_marked(adbench: Call, data: Path, tmp_path: Path) -> None:
    adbench("run", "method=mean_image", "category=bottle", "runtime=debug", "dataset=mvtec")
    record = records(tmp_path)["mean_image/bottle"]
    assert "debug" in record["marks"]
    assert record["counts"] == {"train": 4, "test_normal": 3, "test_anomalous": 3}


def test_a_dry_run_runs_nothing(adbench: Call, data: Path, tmp_path: Path) -> None:
    answer = adbench("run", "method=random", *MVTEC, "--dry-run")
    assert answer.returncode == 0
    assert "would run  mvtec/bottle random full-seed0" in answer.stdout
    assert not (tmp_path / "results").exists()


def test_maps_of_another_program_become_a_row(adbench: Call, data: Path, tmp_path: Path) -> None:
    for path in data.glob("bottle/test/*/*.png"):
        mask = data / "bottle" / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        truth = np.array(Image.open(mask)) > 0 if mask.exists() else np.zeros((48, 48), bool)
        target = tmp_path / "maps" / path.relative_to(data).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, truth.astype(np.float32))
    words = ("evaluate", "--maps", "maps", "--dataset", "mvtec", "--name", "theirs", "category=bottle")
    answer = adbench(*words)
    assert answer.returncode == 0, answer.stderr
    record = records(tmp_path)["theirs/bottle"]
    assert record["metrics"]["full"] == dict.fromkeys(record["metrics"]["full"], 1.0)
    assert record["metrics"]["image"]["image_auroc"] == 1.0
    (folder,) = (path.parent for path in tmp_path.rglob("record.json"))
    beside = {path.name for path in folder.iterdir()} - {"record.json"}
    assert beside == {"curves.json", "inputs.jpg", "maps.png", "pictures.json", "samples.csv", "truth.png"}
    assert adbench("report").returncode == 0
    assert "theirs" in (tmp_path / "results" / "leaderboard.csv").read_text()
    next(iter((tmp_path / "maps").rglob("*.npy"))).unlink()
    missing = adbench(*words)
    assert missing.returncode == 2
    assert "test/" in missing.stderr
    assert adbench(*words[:-3], "--name", "patchcore").returncode == 2


def test_data_check_and_prepare(adbench: Call, data: Path) -> None:
    checked = adbench("data", "check", "dataset=mvtec", "category=bottle")
    assert checked.returncode == 1  # 6 training images instead of the official 209
    assert "209" in checked.stdout
    prepared = adbench("data", "prepare", "dataset=mvtec", "category=bottle", "method=mean_image")
    assert prepared.returncode == 0, prepared.stderr


def test_a_newcomer_adds_a_method_by_adding_files(
    adbench: Call, data: Path, mine: Path, tmp_path: Path
) -> None:
    listed = json.loads(adbench("list", "methods", "--json", "--config-dir", str(mine)).stdout)
    assert "brightness" in {entry["id"] for entry in listed}
    words = ("method=brightness", "method.model.power=2", *MVTEC, "--config-dir", str(mine))
    answer = adbench("run", *words)
    assert answer.returncode == 0, answer.stderr
    assert {r["variant"] for r in records(tmp_path).values()} == {"power=2"}
    assert adbench("run", "variant=squared", *words).returncode == 0
    rows = {(r["variant"], *r["settings"]) for r in read_all(tmp_path / "results")[0]}
    assert rows == {("power=2", "power=2"), ("squared", "power=2")}
    adbench("report")
    table = (tmp_path / "results" / "tables" / "mvtec" / "table9_image_auroc.md").read_text()
    assert "Brightness" in table
    assert "variant squared: power=2" in table


def test_a_paper_that_reports_its_best_test_epoch_gets_that_figure_beside_the_result(
    adbench: Call, data: Path, mine: Path, tmp_path: Path
) -> None:
    words = ("run", "method=overtrained", *MVTEC, "--config-dir", str(mine))
    answer = adbench(*words)
    assert answer.returncode == 0, answer.stderr
    record = records(tmp_path)["overtrained/bottle"]
    assert record["metrics"]["image"]["image_auroc"] == 0.0  # the last epoch is the result
    best = record["best_on_test"]
    assert best["tested"] == 3
    assert best["metrics"]["image"]["image_auroc"] == {"value": 1.0, "epoch": 1}
    assert best["metrics"]["full"]["pixel_auroc"]["epoch"] == 1
    answer = adbench("report", "--config-dir", str(mine))
    assert answer.returncode == 0, answer.stderr
    table = (tmp_path / "results/tables/mvtec/table9_image_auroc.md").read_text()
    assert "the best of 3 test epochs: 1.000; it is not ranked" in table
    with (tmp_path / "results" / "leaderboard.csv").open() as handle:
        (row,) = csv.DictReader(handle)
    assert (row["image.image_auroc"], row["best_on_test.image.image_auroc"]) == ("0.0", "1.0")

    without = adbench(*words, "runtime.test_epochs=0", "rerun=always")
    assert without.returncode == 0, without.stderr
    again = records(tmp_path)["overtrained/bottle"]
    assert "best_on_test" not in again
    assert (again["metrics"], again["fingerprint"]) == (record["metrics"], record["fingerprint"])

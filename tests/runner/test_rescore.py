"""`adbench rescore`: what a run kept is scored again in real processes, and the old records stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_bench import records
from ad_bench.datasets.images import decode
from ad_bench.errors import UsageError
from ad_bench.records import Record
from ad_bench.runner.rescore import _names, original_size, read_words
from tests.runner.conftest import write_category

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]
MVTEC = ("dataset=mvtec", "runtime.device=cpu", "runtime.latency_repeats=1")
NAMES = "metric.names=[image_auroc,pixel_auroc,pixel_aupro]"
MORE = "metric.names=[pixel_aupro@0.05]"
ALL = "metric.names=[image_auroc,pixel_auroc,pixel_aupro,pixel_aupro@0.05]"
LIMIT = "metric.aupro_limits=[0.1]"
LIMITS = "metric.aupro_limits=[0.3,0.05,0.01,0.1]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Two categories, and results of runs.

    `results` kept maps as float16, for three protocols and three metrics; `exact` as float32, for one cell
    and all metrics; `wanted` is that cell with one metric more.
    """
    folder = tmp_path_factory.mktemp("made")
    for category in ("bottle", "cable"):
        write_category(folder / "data" / "mvtec", category)
    words = ("run", "-m", "method=mean_image", *MVTEC)
    for extra in (
        ("protocol=full,unified,few_shot", "save.maps=true", NAMES),
        ("category=bottle", "save.maps=float32", "paths.results=exact"),
        ("category=bottle", LIMITS, "paths.results=wanted"),
    ):
        answer = call(folder, cache, *words, *extra)
        assert answer.returncode == 0, answer.stderr
    return folder


def call(folder: Path, cache: Path, *words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "ad_bench"]
    return subprocess.run(
        [sys.executable, *program, *words],
        cwd=folder,
        env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def there(made: Path, tmp_path: Path) -> Path:
    """A copy of all that, for one test to spoil; `adbench` runs beside it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def found(results: Path, **wanted: object) -> list[Record]:
    """The records below a folder that say so, oldest first."""
    every, problems = records.read_all(results)
    assert problems == []
    chosen = [r for r in every if all(r[key] == value for key, value in wanted.items())]
    return sorted(chosen, key=lambda record: record["date"])


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_float32_maps_give_exactly_what_a_run_gives_without_a_fit(adbench: Call, there: Path) -> None:
    for path in (there / "data" / "mvtec" / "bottle" / "train").rglob("*.png"):
        path.write_text("no image, so nothing can be fitted")
    before = content(there / "exact")
    answer = adbench("rescore", LIMIT, "paths.results=exact")
    assert answer.returncode == 0, answer.stderr
    assert "1 rescored" in answer.stderr
    old, new = found(there / "exact")
    (wanted,) = found(there / "wanted")
    assert "pixel_aupro@0.1" in wanted["metrics"]["paper"]
    measured = {"timing", "memory", "date", "rescored", "hardware", "commit"}
    assert set(new) - {"rescored"} == set(wanted)
    for key in set(wanted) - measured:
        assert new[key] == wanted[key], key
    assert {k: v for k, v in new["timing"].items() if k != "evaluate_seconds"} == {
        k: v for k, v in old["timing"].items() if k != "evaluate_seconds"
    }
    assert new["rescored"] == {
        "date": new["date"],
        "from": old["fingerprint"]["cell"],
        "dtype": "float32",
        "variant": "",
        "fitted": old["date"],
    }
    assert set(old) | {"rescored"} == set(new)
    assert before.items() <= content(there / "exact").items()  # the old record is as it was


def test_float16_maps_are_near_and_marked_and_need_no_second_disk(adbench: Call, there: Path) -> None:
    assert adbench("rescore", "protocol=full", "category=bottle", MORE).returncode == 0
    old, new = found(there / "results", protocol="full", category="bottle")
    (wanted,) = found(there / "wanted")
    # scores are kept in full
    assert new["metrics"]["image"]["image_auroc"] == wanted["metrics"]["image"]["image_auroc"]
    for where in ("paper", "full"):
        values = new["metrics"][where]
        assert set(values) == {"pixel_auroc", "pixel_aupro", "pixel_aupro@0.05"}
        assert values == pytest.approx({n: wanted["metrics"][where][n] for n in values}, abs=1e-3)
    assert new["marks"] == [*old["marks"], "rescored from maps stored as float16"]
    files = [
        next((there / "results").rglob(f"{r['fingerprint']['cell']}/maps.npz")).stat() for r in (old, new)
    ]
    assert files[0].st_ino == files[1].st_ino
    assert len(found(there / "results")) == 7  # no other record was touched
    assert adbench("report").returncode == 0
    assert "rescored from maps stored as float16" in "".join(
        p.read_text() for p in (there / "results" / "tables").rglob("*.md")
    )


def test_run_and_rescore_know_what_the_other_has_done(adbench: Call, there: Path) -> None:
    assert "6 to rescore" in adbench("rescore", MORE, "--dry-run").stdout
    assert len(found(there / "results")) == 6
    assert adbench("rescore", MORE).returncode == 0
    again = adbench("rescore", MORE)
    assert again.returncode == 0
    assert "6 already done" in again.stderr
    words = ("run", "-m", "method=mean_image", "protocol=full,unified,few_shot", ALL, *MVTEC, "--dry-run")
    assert "6 cells: 0 to run, 6 already done" in adbench(*words).stdout
    dates = [r["date"] for r in found(there / "results")]
    assert "6 rescored" in adbench("rescore", MORE, "rerun=always").stderr
    every = found(there / "results")
    assert len(every) == 12
    assert [r["date"] for r in every][6:] != dates[6:]


def test_whatever_a_run_can_compute(adbench: Call, there: Path) -> None:
    words = ("metric.compat=[imiad]", "metric.by_defect=true", "metric.intervals.replicates=20")
    answer = adbench("rescore", *words, "metric.threshold.pixel=0.1", "paths.results=exact")
    assert answer.returncode == 0, answer.stderr
    old, new = found(there / "exact")
    assert new["metrics"] == old["metrics"]
    assert set(new["compat"]) == {"imiad"}
    assert set(new["by_defect"]) == {"spot"}
    assert new["bootstrap"]["replicates"] == 20
    assert new["operating_points"]["full"]["given"]["threshold"] == 0.1
    plain = adbench("rescore", "metric=default", "paths.results=exact")
    assert "1 already done" in plain.stderr  # as it was first


def test_the_rules_of_another_paper_are_a_row_of_their_own(adbench: Call, there: Path) -> None:
    words = ("category=bottle", "method.paper_eval.mask_rule=int", "paths.results=exact")
    answer = adbench("rescore", *words)
    assert answer.returncode == 0, answer.stderr
    row, other = found(there / "exact")
    assert (row["variant"], other["variant"]) == ("", "paper_eval.mask_rule=int")
    assert other["paper_eval"]["mask_rule"] == "int"
    assert other["metrics"]["full"] == row["metrics"]["full"]
    run = adbench("run", "method=mean_image", *MVTEC, *words, "--dry-run")
    assert "1 cells: 0 to run, 1 already done" in run.stdout  # a run with this rule is the same row
    named = adbench("rescore", "method.paper_eval=patchcore", "paths.results=exact")
    assert "1 rescored" in named.stderr
    assert found(there / "exact")[-1]["paper_eval"] == {
        "size": 224,
        "mask_interpolation": "bilinear",
        "mask_rule": "int",
    }
    rules = "method.paper_eval={size: 224, mask_interpolation: bilinear, mask_rule: nearest}"
    # One: the two rows above came from this one and would only give it again, by longer names.
    assert "1 rescored" in adbench("rescore", rules, "paths.results=exact").stderr
    assert "4 rescored" in adbench("rescore", LIMIT, "paths.results=exact").stderr
    assert len({r["variant"] for r in found(there / "exact")}) == 4


def test_one_that_fails_stops_no_other(adbench: Call, there: Path) -> None:
    """Each bottle is broken in another way; the cables are scored."""
    ways: dict[str, Callable[[Path], object]] = {
        "full": lambda f: (f / "maps.npz").write_bytes((f / "maps.npz").read_bytes()[:3000]),
        "unified": lambda f: (f / "config.yaml").write_text(
            (f / "config.yaml").read_text().replace("ad_bench.datasets.mvtec", "gone.since_then")
        ),
        "few_shot-4": lambda f: (f / "samples.csv").write_text("path,label\n"),
    }
    for protocol, spoil in ways.items():
        (record,) = found(there / "results", protocol=protocol, category="bottle")
        spoil(next((there / "results").rglob(record["fingerprint"]["cell"])))
    before = content(there / "results")
    answer = adbench("rescore", MORE)
    assert answer.returncode == 1
    assert "3 failed, 3 rescored" in answer.stderr
    for name in ("maps.npz is damaged", "gone.since_then", "samples.csv"):
        assert name in answer.stderr
    assert {r["category"] for r in found(there / "results") if "rescored" in r} == {"cable"}
    assert before.items() <= content(there / "results").items()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda test: (test / "spot" / "001.png").rename(test / "good" / "001.png"),
            "bottle/test/spot/001.png was scored but is now no test image",
        ),
        (lambda test: (test / "good" / "001.png").unlink(), "bottle/test/good/001.png was scored but"),
        (
            lambda test: (test.parent / "ground_truth" / "spot" / "001_mask.png").unlink(),
            "001_mask.png",
        ),
        (
            lambda test: Image.new("L", (9, 9)).save(test.parent / "ground_truth" / "spot" / "001_mask.png"),
            "001_mask.png",
        ),
    ],
)
def test_a_data_set_that_changed_is_refused(
    adbench: Call, there: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(there / "data" / "mvtec" / "bottle" / "test")
    answer = adbench("rescore", "protocol=full", MORE)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "1 failed, 1 rescored" in answer.stderr


def test_a_damaged_config_is_named(adbench: Call, there: Path) -> None:
    for path in (there / "exact").rglob("config.yaml"):
        path.write_text("method: [")
    answer = adbench("rescore", "paths.results=exact")
    assert answer.returncode == 1
    assert "config.yaml" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_changed_label_is_named(adbench: Call, there: Path) -> None:
    for path in (there / "exact").rglob("samples.csv"):
        path.write_text(path.read_text().replace("good/001.png,0,good", "good/001.png,1,spot"))
    answer = adbench("rescore", LIMIT, "paths.results=exact")
    assert answer.returncode == 1
    assert "bottle/test/good/001.png was scored as label 1 (spot) and is label 0 (good)" in answer.stderr


def test_without_maps_it_says_how_to_get_them(adbench: Call, there: Path) -> None:
    for path in (there / "results").rglob("maps.npz"):
        if "few_shot" in str(path):
            path.unlink()
    answer = adbench("rescore", "protocol=few_shot", MORE)
    assert answer.returncode == 2
    assert "mean_image few_shot-4-seed0 has no stored maps, and 1 others neither" in answer.stderr
    assert "save.maps=true rerun=always" in answer.stderr
    assert "4 to rescore, 2 without maps" in adbench("rescore", MORE, "--dry-run").stdout
    assert adbench("rescore", "paths.results=wanted").returncode == 2


def test_what_a_newer_fit_replaced_does_not_come_back(adbench: Call, there: Path) -> None:
    (record,) = found(there / "exact")
    home = next((there / "exact").rglob(record["fingerprint"]["cell"]))
    newer = {**record, "date": "2999-01-01T00:00:00+00:00"}

    def put(fit: str, cell: str, **facts: Any) -> None:
        folder = home.with_name(cell)
        folder.mkdir()
        text = json.dumps(
            newer | facts | {"fingerprint": {**record["fingerprint"], "fit": fit, "cell": cell}}
        )
        (folder / "record.json").write_text(text)

    put("another", "aaaa")
    answer = adbench("rescore", LIMIT, "paths.results=exact")
    assert answer.returncode == 2
    assert "an older fit has" in answer.stderr
    shutil.rmtree(home.with_name("aaaa"))
    put(record["fingerprint"]["fit"], "bbbb", status="failed")  # the same fit, whose evaluation failed
    assert adbench("rescore", LIMIT, "paths.results=exact").returncode == 0


def test_the_new_record_is_the_newest_whatever_the_clock_said(adbench: Call, there: Path) -> None:
    (path,) = (there / "exact").rglob("record.json")
    path.write_text(path.read_text().replace('"date": "2', '"date": "9'))
    assert adbench("rescore", LIMIT, "paths.results=exact").returncode == 0
    old, new = found(there / "exact")
    assert "rescored" in new
    assert new["date"] > old["date"]


def test_killed_while_it_writes_it_leaves_the_old_record_and_goes_on(there: Path, cache: Path) -> None:
    before = content(there / "exact")
    words = ("rescore", "paths.results=exact", "rerun=always")  # the very cell, to be replaced
    # It also sees that nothing on the way here brought torch, whose import takes longer than all the rest.
    code = (
        "import os, signal, sys\n"
        "from ad_bench import cli, records\n"
        "def die(path, record):\n"
        "    assert 'torch' not in sys.modules\n"
        "    path.write_text('{')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "records.write_json = die\n"
        "cli.main(sys.argv[1:])\n"
    )
    assert call(there, cache, *words, code=code).returncode == -9
    assert list((there / "exact" / "cells").glob(".tmp-*"))
    after = content(there / "exact")
    assert {k: v for k, v in after.items() if "/.tmp-" not in k} == before
    assert call(there, cache, *words).returncode == 0
    assert not list((there / "exact" / "cells").glob(".*"))
    (record,) = found(there / "exact")
    assert record["rescored"]["from"] == record["fingerprint"]["cell"]
    assert set(content(there / "exact")) == set(before)


def test_two_at_once(there: Path, cache: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "ad_bench", "rescore", MORE],
            cwd=there,
            env={**os.environ, "ADBENCH_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0, text
    assert len(found(there / "results")) == 12
    assert not list((there / "results" / "cells").glob(".*"))


def test_a_data_set_elsewhere(adbench: Call, there: Path) -> None:
    shutil.move(there / "data" / "mvtec", there / "moved")
    assert adbench("rescore", LIMIT, "paths.results=exact").returncode == 1
    answer = adbench("rescore", LIMIT, "paths.results=exact", f"dataset.root={there / 'moved'}")
    assert answer.returncode == 0, answer.stderr
    (config,) = [p for p in (there / "exact").rglob("config.yaml") if "- 0.1\n" in p.read_text()]
    assert str(there) not in config.read_text()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.input={size: 256}", "needs a new fit: adbench run method.input={size: 256}"),
        ("method.model.sigma=2", "needs a new fit"),
        ("dataset.input=null", "needs a new fit"),
        ("backbone=resnet18", "needs a new fit"),
        ("metod=padim", "Did you mean method"),
        ("runtime.threads=1", "means nothing to rescore"),
        ("patchcore", "expected key=value"),
        ("rerun=failed", "never or always"),
        ("metric.nams=[a]", "Did you mean metric.names"),
        ("metric.names=[pixel_auroq]", "Did you mean pixel_auroc"),
        ("metric=defalt", "Did you mean default"),
        ("metric.compat=[imaid]", "Did you mean imiad"),
        ("metric.aupro_limits=[2]", "aupro_limits"),
        ("method.paper_eval=padin", "Did you mean padim"),
        ("method.paper_eval.mask_rul=int", "mask_rule"),
        ("method.paper_eval.mask_rule=itn", "Did you mean int"),
        ("method.paper_eval={mask_rule: int}", "lacks mask_interpolation"),
        ("method.paper_eval={mask_rule: int, mask_interpolation: nearest, sise: 3}", "Did you mean size"),
    ],
)
def test_words_that_mean_nothing_here(word: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read_words([word])
    assert said in str(error.value)


def test_records_that_are_not_there(adbench: Call, there: Path) -> None:
    for words, said in (
        (["method=mean_imag"], "Did you mean mean_image"),
        (["category=bottle,cabel"], "Did you mean cable"),
        (["seed=1"], "There are: 0"),
        (["paths.results=nowhere"], "no records of runs in nowhere/cells"),
    ):
        answer = adbench("rescore", *words)
        assert answer.returncode == 2
        assert said in answer.stderr


@pytest.mark.parametrize("turned", [None, 1, 6])
@pytest.mark.parametrize("kind", ["png", "jpg", "tiff", "bmp", "webp"])
def test_sizes_from_headers_are_those_of_decoded_images(
    tmp_path: Path, kind: str, turned: int | None
) -> None:
    path = tmp_path / f"image.{kind}"
    picture = Image.fromarray(np.zeros((5, 9, 3), np.uint8))
    options = {}
    if turned is not None and kind != "bmp":
        exif = Image.Exif()
        exif[0x0112] = turned
        options["exif"] = exif
    picture.save(path, **options)
    assert original_size(path) == decode(path).shape[:2]
    assert (original_size(path) == (9, 5)) == (turned == 6 and kind != "bmp")


def test_a_png_may_say_behind_its_pixels_how_it_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4], "big")]
    rest = content.replace(chunk, b"")
    end = rest.index(b"IEND") - 4
    path.write_bytes(rest[:end] + chunk + rest[end:])
    assert original_size(path) == decode(path).shape[:2] == (9, 5)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("full", "full"),
        ("few_shot-4", "few_shot"),
        ("noisy-0.1-reserve=0.2", "noisy"),
        ("supervised-hard-10-known=crack", "supervised"),
    ],
)
def test_a_protocol_is_found_without_its_settings(label: str, name: str) -> None:
    assert _names({"protocol": label}, "protocol") == {label, name}

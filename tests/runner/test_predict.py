"""`adbench predict`: the run's own scores again, new images of every kind, and settings that mean harm."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ad_bench import cli
from ad_bench.errors import PredictionError, UsageError, WeightsError
from ad_bench.runner import predict
from ad_bench.runner.predict import Wanted, list_images, predict_images
from ad_bench.runner.saved import load_run
from tests.runner.conftest import SIDE, write_category


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mvtec/bottle and the runs of three methods that kept their models."""
    home: Path = tmp_path_factory.mktemp("predict")
    write_category(home / "data" / "mvtec", "bottle", normal=5, defects=6)
    run(home, "method=mean_image", "method.input={size: 32}")
    small = "method.input={short: 48, crop: 40}"
    run(home, "method=patchcore", "backbone=bundled", small, "method.paper_eval.size=40")
    run(home, "method=stfpm", "backbone=bundled", "runtime.max_epochs=1", "method.input={size: 48}")
    return home


def run(home: Path, *words: str) -> None:
    common = [
        "dataset=mvtec",
        "category=bottle",
        "runtime.device=cpu",
        "runtime.threads=1",
        "save.model=true",
    ]
    paths = [f"paths.{name}={home / name}" for name in ("data", "results", "cache")]
    assert cli.main(["run", *common, *paths, "runtime.latency_repeats=1", *words]) == 0


def folder_of(home: Path, method: str) -> Path:
    (path,) = (home / "results").glob(f"cells/mvtec/bottle/{method}*/*/*/record.json")
    return path.parent


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """The run of mean_image, to be spoilt."""
    return Path(shutil.copytree(folder_of(home, "mean_image"), tmp_path / "run"))


@pytest.fixture
def image(home: Path) -> Path:
    return home / "data" / "mvtec" / "bottle" / "test" / "spot" / "000.png"


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- agreement


@pytest.mark.parametrize("method", ["mean_image", "patchcore", "stfpm"])
def test_the_images_of_the_run_score_as_in_the_run_to_the_last_bit(
    home: Path, method: str, tmp_path: Path
) -> None:
    folder = folder_of(home, method)
    with (folder / "samples.csv").open(newline="") as file:
        samples = list(csv.DictReader(file))
    images = [home / "data" / "mvtec" / row["path"] for row in samples]
    done = predict_images(folder, images, tmp_path / "out", Wanted(device="cpu"))
    found = rows(tmp_path / "out")
    assert [row["score"] for row in found] == [row["score"] for row in samples]
    threshold = json.loads((folder / "record.json").read_text())["thresholds"]["image"]
    assert [row["anomalous"] for row in found] == [str(int(float(r["score"]) >= threshold)) for r in samples]
    assert (done.images, done.problems) == (len(samples), [])
    assert done.anomalous == sum(row["anomalous"] == "1" for row in found)


def test_maps_and_heat_maps_have_the_size_of_the_image(home: Path, image: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.open(image).resize((90, 60)).save(wide)
    predict_images(folder_of(home, "patchcore"), [wide], tmp_path / "out", Wanted(device="cpu", maps=True))
    values = tifffile.imread(tmp_path / "out" / "maps" / "wide.tiff")
    assert values.shape == (60, 90)
    assert np.isneginf(values[:, 0]).all(), "outside the crop"
    assert np.isfinite(values[30, 45])
    heat = np.asarray(Image.open(tmp_path / "out" / "heatmaps" / "wide.png"))
    assert heat.shape == (60, 90, 3)
    decoded = np.asarray(Image.open(wide)).astype(float)
    assert heat[0, 0].tolist() == np.rint(decoded[0, 0] * 0.4).tolist()


def test_one_scale_for_all_and_the_line_at_the_threshold(home: Path, image: Path, tmp_path: Path) -> None:
    folder = folder_of(home, "mean_image")
    good = image.parents[1] / "good" / "000.png"
    wanted = Wanted(device="cpu", maps=True)
    predict_images(folder, [image, good], tmp_path / "both", wanted)
    predict_images(folder, [good], tmp_path / "alone", wanted)
    one, two = (tmp_path / where / "heatmaps" for where in ("both", "alone"))
    names = sorted(path.name for path in one.iterdir())
    assert names == ["000-2.png", "000.png"]
    assert (one / "000-2.png").read_bytes() == (two / "000.png").read_bytes(), "whatever else is scored"
    values = tifffile.imread(tmp_path / "both" / "maps" / "000.tiff")
    limit = json.loads((folder / "record.json").read_text())["thresholds"]["full"]
    marked = (np.asarray(Image.open(one / "000.png")) == predict.MARK).all(2)
    assert marked.any()
    assert not (marked[1:-1, 1:-1] & (values >= limit)[1:-1, 1:-1]).any(), "the line lies outside"
    predict_images(folder, [image], tmp_path / "none", Wanted(device="cpu", pixel_threshold=1e9))
    clean = np.asarray(Image.open(tmp_path / "none" / "heatmaps" / "000.png"))
    assert not (clean == predict.MARK).all(2).any()
    about = (tmp_path / "both" / "README.txt").read_text()
    assert "tuned on it, so optimistic" in about
    assert "0.999 quantile of the run's test maps" in about
    assert "as given" in (tmp_path / "none" / "README.txt").read_text()


def test_without_quantiles_the_first_images_give_the_scale(
    copy: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "pictures.json").unlink()
    monkeypatch.setattr(predict, "FIRST", 3)
    test = home / "data" / "mvtec" / "bottle" / "test"
    predict_images(copy, [test], tmp_path / "out", Wanted(device="cpu"))
    assert len(list((tmp_path / "out" / "heatmaps").rglob("*.png"))) == 11
    about = (tmp_path / "out" / "README.txt").read_text()
    assert "of the first images here (at most 3)" in about
    limit = json.loads((copy / "record.json").read_text())["thresholds"]["full"]
    low, high = (float(word) for word in about.partition("one scale for all, ")[2].split()[:6:5])
    assert high >= 2 * limit - low - 1e-4 * abs(limit)


def test_the_sheet_shows_the_highest_and_what_could_not_be_read(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data" / "mvtec" / "bottle" / "test", tmp_path / "images")
    (tmp_path / "images" / "good" / "torn.png").write_bytes(b"\x89PNG\r\n")
    out = tmp_path / "out"
    done = predict_images(folder_of(home, "mean_image"), [tmp_path / "images"], out, Wanted(device="cpu"))
    assert len(done.problems) == 1
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 400
        assert ((np.asarray(sheet) == (190, 40, 40)).all(2)).any(), "a crossed box"


# --- images of every kind


def test_images_of_other_modes_are_read_as_the_data_sets_are(home: Path, tmp_path: Path) -> None:
    grey = np.tile(np.arange(SIDE, dtype=np.uint8) * 5, (SIDE, 1))
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(grey).save(images / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 7).save(images / "wide.png")
    Image.fromarray(np.dstack([grey] * 3 + [np.zeros_like(grey)])).save(images / "alpha.png")
    turned = Image.fromarray(np.rot90(grey))
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.convert("RGB").save(images / "turned.png", exif=exif)
    Image.fromarray(np.repeat(np.repeat(grey, 2, 0), 3, 1)).save(images / "z_other_size.png")
    predict_images(folder_of(home, "mean_image"), [images], tmp_path / "out", Wanted(device="cpu"))
    found = {Path(row["path"]).stem: row["score"] for row in rows(tmp_path / "out")}
    assert found["grey"] == found["wide"] == found["alpha"] == found["turned"]
    assert len(found) == 5


def test_what_cannot_be_read_is_listed_and_stops_nothing(
    home: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"torn.png": image.read_bytes()[:200], "text.png": b"hello", "empty.png": b""}
    images = tmp_path / "images"
    images.mkdir()
    for name, content in bad.items():
        (images / name).write_bytes(content)
    Image.fromarray(np.zeros((8, 8), np.float32)).save(images / "float.tiff")
    shutil.copy(image, images / "whole.png")
    out = tmp_path / "out"
    words = [
        "predict",
        str(folder_of(home, "mean_image")),
        str(images),
        "--out",
        str(out),
        "runtime.device=cpu",
    ]
    assert cli.main(words) == 1
    assert "not scored: " in capsys.readouterr().out
    found = {Path(row["path"]).name: row for row in rows(out)}
    assert {name for name, row in found.items() if row["problem"]} == {*bad, "float.tiff"}
    assert all(not row["score"] for row in found.values() if row["problem"])
    assert found["whole.png"]["score"]
    assert [p.name for p in (out / "heatmaps").iterdir()] == ["whole.png"]


def test_an_image_smaller_than_the_crop_is_listed(home: Path, image: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(home, "patchcore"), tmp_path / "run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("short: 48", "short: null"))
    small = tmp_path / "small.png"
    Image.new("RGB", (20, 20)).save(small)
    done = predict_images(folder, [small, image], tmp_path / "out", Wanted(device="cpu"))
    assert done.images == 1
    assert "input.crop=40 is larger" in done.problems[0]


def test_images_of_several_shapes_go_in_batches_of_one(home: Path, image: Path, tmp_path: Path) -> None:
    """Without a fixed size a batch ends where the shape changes; each scores as it does alone."""
    folder = shutil.copytree(folder_of(home, "patchcore"), tmp_path / "run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("crop: 40", "crop: null"))
    images = []
    for number, size in enumerate([(48, 48), (48, 48), (60, 48), (48, 48)]):
        images.append(tmp_path / f"{number}.png")
        Image.open(image).resize(size).save(images[-1])
    predict_images(folder, images, tmp_path / "all", Wanted(device="cpu", batch_size=8))
    together = [float(row["score"]) for row in rows(tmp_path / "all")]
    alone = []
    for one in images:
        predict_images(folder, [one], tmp_path / "one", Wanted(device="cpu"))
        alone.append(float(rows(tmp_path / "one")[0]["score"]))
    assert together == pytest.approx(alone, rel=1e-5)


def test_names_of_the_files_are_told_apart(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/x.jpg", "a/deep/x.PNG", "b/x.png", "a/.hidden.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "deep" / "again").symlink_to(tmp_path / "a")  # a folder inside itself
    found = list_images([tmp_path / "a"])
    assert [str(one.name) for one in found] == ["x", "x-2", "deep/x"]
    found = list_images([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", tmp_path / "b"])
    assert [str(one.name) for one in found] == ["x", "x-2", "b/x"]
    with pytest.raises(UsageError, match="no such image or folder"):
        list_images([tmp_path / "c"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        list_images([tmp_path / "empty"])


def test_ctrl_c_keeps_what_is_scored(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = predict._predict, []

    def stop(*rest: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rest)
        return real(*rest)

    monkeypatch.setattr(predict, "_predict", stop)
    test = home / "data" / "mvtec" / "bottle" / "test"
    out = tmp_path / "out"
    words = ["predict", str(folder_of(home, "mean_image")), str(test), "--out", str(out)]
    assert cli.main([*words, "runtime.device=cpu", "runtime.batch_size=2"]) == 130
    assert len(rows(out)) == 4
    assert len(list((out / "heatmaps").rglob("*.png"))) == 4
    assert (out / "sheet.png").is_file()
    assert not list(out.rglob(".*")), "no half file"


def test_scores_alone(
    home: Path, mine: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method without maps: a line for each image, the sheet shows the images as they are."""
    monkeypatch.syspath_prepend(str(mine))
    run(home, "method=scores_only", "--config-dir", str(mine))
    folder = folder_of(home, "scores_only")
    predict_images(folder, [image], tmp_path / "out", Wanted(device="cpu"), [mine])
    assert rows(tmp_path / "out")[0]["heatmap"] == ""
    assert not (tmp_path / "out" / "heatmaps").exists()
    assert "gives no maps" in (tmp_path / "out" / "README.txt").read_text()
    with pytest.raises(UsageError, match=r"would call 'my_methods\.ScoresOnly'.*--config-dir DIR"):
        predict_images(folder, [image], tmp_path / "out", Wanted(device="cpu"))
    predict_images(folder, [image], tmp_path / "trusted", Wanted(device="cpu"), trust=True)
    assert rows(tmp_path / "trusted") == rows(tmp_path / "out")
    monkeypatch.setattr(
        sys.modules["my_methods"].ScoresOnly, "predict", lambda self, inputs: _nan(len(inputs.images))
    )
    with pytest.raises(PredictionError, match=r"of .*000\.png is NaN"):
        predict_images(folder, [image], tmp_path / "out", Wanted(device="cpu"), [mine])


def _nan(count: int) -> Any:
    from ad_bench.contract import Prediction

    return Prediction(torch.full((count,), float("nan")), None)


# --- runs that cannot score


def test_a_run_without_its_model_says_how_to_keep_it(copy: Path, image: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"no model\.safetensors.*save\.model=true"):
        predict_images(copy, [image], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused(copy: Path, image: Path, tmp_path: Path) -> None:
    assert load_run(copy / "record.json").folder == copy
    with pytest.raises(UsageError, match=r"no record\.json in .*name a run's folder"):
        load_run(tmp_path)
    record = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps({**record, "status": "failed"}))
    with pytest.raises(UsageError, match="a run that failed"):
        load_run(copy)
    (copy / "record.json").write_text("{")
    with pytest.raises(UsageError, match="is no JSON"):
        load_run(copy)


def test_tensors_of_another_method_do_not_fit(copy: Path, home: Path) -> None:
    shutil.copy(folder_of(home, "stfpm") / "model.safetensors", copy)
    with pytest.raises(WeightsError, match=r"does not fit the method that config\.yaml describes"):
        load_run(copy)
    (copy / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(WeightsError, match="is damaged"):
        load_run(copy)


def test_pretrained_weights_are_not_needed_again(
    home: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All numbers come from the saved model: nothing is looked up in the network for them."""
    folder = shutil.copytree(folder_of(home, "stfpm"), tmp_path / "run")
    config = folder / "config.yaml"
    text = config.read_text()
    assert "weights: bundled" in text
    config.write_text(text.replace("weights: bundled", "weights: /gone/weights.safetensors"))

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("ad_bench.parts.weights._from_hub", asked)
    for where in (folder, folder_of(home, "stfpm")):
        predict_images(where, [image], tmp_path / where.name, Wanted(device="cpu"))
    assert rows(tmp_path / "run") == rows(tmp_path / folder_of(home, "stfpm").name)


HOSTILE = {
    "system": ("_target_: os.system", "would call 'os.system'"),
    "through a module": ("_target_: ad_bench.parts.weights.os.system", "would call"),
    "eval": ("_target_: builtins.eval", "would call 'builtins.eval'"),
    "another part": ("_target_: ad_bench.parts.weights.find_weights", "would call"),
    "no text": ("_target_: [os.system]", "would call"),
    "args": ("_target_: ad_bench.methods.mean_image.MeanImage\n    _args_: [1]", "sets _args_"),
    "convert": ("_target_: ad_bench.methods.mean_image.MeanImage\n    _convert_: all", "sets _convert_"),
    "environment": (
        "_target_: ad_bench.methods.mean_image.MeanImage\n    a: ${oc.env:HOME}",
        "refers to values",
    ),
    "nested": (
        "_target_: ad_bench.methods.mean_image.MeanImage\n    a: [{b: {_target_: os.system}}]",
        "would call 'os.system'",
    ),
    "not a method": ("_target_: torch.optim.Adam", "builds no method|is no method"),
    "missing argument": ("_target_: ad_bench.methods.patchcore.PatchCore", "builds no method"),
}


@pytest.mark.parametrize(("model", "why"), HOSTILE.values(), ids=HOSTILE.keys())
def test_settings_that_mean_harm_are_refused(model: str, why: str, copy: Path) -> None:
    config = copy / "config.yaml"
    text = config.read_text()
    wanted = "_target_: ad_bench.methods.mean_image.MeanImage"
    assert wanted in text
    config.write_text(text.replace(wanted, model))
    with pytest.raises(UsageError, match=why):
        load_run(copy)


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [ls]", "a: &a [1]\nb: *a", "[1]", "a: 1", "{"]
)
def test_settings_that_no_run_writes_are_refused(text: str, copy: Path) -> None:
    (copy / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"config\.yaml"):
        load_run(copy)


def test_wrong_words_are_answered(copy: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, answer in (
        (["predict"], "needs RECORD and IMAGES"),
        (["predict", str(copy)], "needs RECORD and IMAGES"),
        (["predict", str(copy), str(image), "treshold=1"], "'treshold=1' means nothing here"),
        (["predict", str(copy), str(image), "threshold=high"], "threshold=high: expected a number"),
        (["predict", str(copy), str(image), "threshold=nan"], "expected a number"),
        (["predict", str(copy), str(image), "runtime.batch_size=0"], "expected at least 1"),
        (["predict", str(copy), str(image), "runtime.device=tpu"], "runtime.device=tpu"),
    ):
        assert cli.main(words) == 2, words
        assert answer in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

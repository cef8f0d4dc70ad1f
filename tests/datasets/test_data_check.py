"""`adbench data check`: what it finds wrong, in trees that are made wrong on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ad_bench import cli
from ad_bench.datasets import check
from ad_bench.datasets.check import check_category, twin_lines, unused_masks
from ad_bench.datasets.dataset import DataSet
from ad_bench.samples import Boxes, Sample
from tests.datasets import trees

Call = Callable[..., subprocess.CompletedProcess[str]]
COUNTS = "{bottle: {train: 3, test_normal: 1, test_anomalous: 2, masks: 2}}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    home = tmp_path / "data/mvtec/bottle"
    for index in range(3):
        trees.image(home / f"train/good/{index:03}.png")
    trees.image(home / "test/good/000.png")
    for index in range(2):
        trees.image(home / f"test/cut/{index:03}.png", defect=True)
        trees.mask(home / f"ground_truth/cut/{index:03}_mask.png")
    return home


def checked(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main(
        [
            "data",
            "check",
            "dataset=mvtec",
            f"paths.data={root.parents[1]}",
            f"dataset.counts={COUNTS}",
            *words,
        ]
    )
    return code, capsys.readouterr().out


def test_a_whole_data_set_is_ok_and_absent_categories_are_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = checked(root, capsys)
    assert code == 0
    assert "ok     mvtec/bottle: 3 train, 1 test normal, 2 test anomalous, 2 masks" in out
    assert "absent mvtec: cable, capsule" in out
    assert checked(root, capsys, "category=cable")[0] == 1  # asked for by name


def test_counts_that_differ(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train/good/002.png").unlink()
    code, out = checked(root, capsys)
    assert code == 1
    assert "'bottle' should have 3 train images (published counts); found 2" in out


def test_every_kind_of_count_is_compared(tmp_path: Path) -> None:
    pictures = [trees.image(tmp_path / f"{n}.png") for n in range(5)]

    def made(**counts: int) -> DataSet:
        listed = [
            Sample(pictures[0], "0", "nut", "train", 0),
            Sample(pictures[1], "1", "nut", "train", 1, "cut"),
            Sample(pictures[2], "2", "nut", "validation", 0),
            Sample(pictures[3], "3", "nut", "test", 0),
            Sample(pictures[4], "4", "nut", "test", 1, "cut", Boxes(((1, 1, 5, 5),))),
        ]
        return DataSet("nuts", tmp_path, ("nut",), lambda *_: listed, counts={"nut": counts})

    right = {
        "train": 2,
        "train_normal": 1,
        "train_anomalous": 1,
        "validation": 1,
        "test_normal": 1,
        "masks": 1,
    }
    report = check_category(made(**right), "nut")
    assert report.ok
    assert report.found == {**right, "test_anomalous": 1}
    assert not check_category(made(validation=2), "nut").ok
    assert not check_category(made(masks=2), "nut").ok
    assert "counts.nut.trian counts nothing" in check_category(made(trian=2), "nut").problems[0]


def test_empty_and_damaged_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train/good/001.png").write_bytes(b"")
    (root / "test/good/000.png").write_bytes(b"no image")
    code, out = checked(root, capsys)
    assert code == 1
    assert "001.png is empty (0 bytes)" in out
    assert "000.png is not an image" not in out  # a shallow check decodes nothing
    assert "000.png is not an image: it begins with b'no image'" in checked(root, capsys, "--deep")[1]


def test_an_unreadable_file_and_an_unreadable_folder(guarded: Path) -> None:
    image = trees.image(guarded / "a.png")
    closed = trees.image(guarded / "b/b.png")
    listed = [Sample(image, "a.png", "nut", "train", 0), Sample(closed, "b.png", "nut", "test", 0)]
    made = DataSet("nuts", guarded, ("nut",), lambda *_: listed)
    image.chmod(0)
    assert "may not read the image" in check_category(made, "nut").problems[0]
    (guarded / "b").chmod(0)
    problems = check_category(made, "nut").problems
    assert f"no image {closed} for b.png (Permission denied)" in problems


def test_size_mismatch_and_marked_normals_are_seen_by_a_deep_check(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.mask(root / "ground_truth/cut/001_mask.png", size=(64, 48))
    assert checked(root, capsys)[0] == 0
    code, out = checked(root, capsys, "--deep")
    assert code == 1
    assert "001_mask.png is 64x48 (height x width) pixels, its image bottle/test/cut/001.png 48x64" in out


def test_masks_without_an_image(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.mask(root / "ground_truth/cut/777_mask.png")
    code, out = checked(root, capsys)
    assert code == 0  # the published counts are met: it was published like that
    assert "note   mvtec: 1 masks without an image\n       bottle/ground_truth/cut/777_mask.png" in out
    (root / "test/cut/001.png").unlink()
    code, out = checked(root, capsys)
    assert code == 1
    assert "WRONG  mvtec: 2 masks without an image" in out
    assert cli.main(
        ["data", "check", "dataset=mvtec", f"paths.data={root.parents[1]}", "dataset.counts=null"]
    )
    assert "WRONG  mvtec: 2 masks" in capsys.readouterr().out  # no counts that could vouch for them


def test_a_glob_for_all_categories_is_not_asked_about_one(tmp_path: Path) -> None:
    pictures = {name: trees.image(tmp_path / f"{name}/0.png") for name in ("nut", "bolt")}
    for name in pictures:
        trees.mask(tmp_path / f"masks/{name}.png")
    made = DataSet(
        "parts", tmp_path, ("nut", "bolt"),
        lambda root, category: [Sample(pictures[category], "0", category, "test", 0)],
        facts={"mask_files": ["masks/*.png"]}, counts={name: {"train": 0} for name in pictures},
    )  # fmt: skip
    assert unused_masks(made, ["nut"]) == []
    assert unused_masks(made, ["nut", "bolt"]) == ["masks/bolt.png", "masks/nut.png"]


def test_an_image_of_train_and_test(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(root / "train/good/000.png", root / "test/good/000.png")
    shutil.copy(root / "train/good/001.png", root / "train/good/002.png")
    code, out = checked(root, capsys)
    assert code == 0
    pair = "bottle/train/good/000.png = bottle/test/good/000.png"
    assert f"warning: 1 test images are training or validation images too: {pair}" in out
    pair = "bottle/train/good/001.png = bottle/train/good/002.png"
    assert f"note: 1 train images repeat another one: {pair}" in out


def test_equal_pixels_in_files_that_differ_are_found_by_a_deep_check(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "saved again")
    with Image.open(root / "train/good/000.png") as image:
        image.save(root / "test/good/000.png", pnginfo=text)
    assert "training or validation" not in checked(root, capsys)[1]
    assert "1 test images are training or validation images too" in checked(root, capsys, "--deep")[1]


def test_files_of_one_size_with_other_content_are_no_twins(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    listed = []
    for index, split in enumerate(("train", "test")):
        pixels[0, 0] = index
        path = tmp_path / f"{index}.bmp"
        Image.fromarray(pixels).save(path)
        listed.append(Sample(path, path.name, "nut", split, 0))  # type: ignore[arg-type]
    made = DataSet("nuts", tmp_path, ("nut",), lambda *_: listed)
    assert len({path.stat().st_size for path in tmp_path.iterdir()}) == 1
    assert check_category(made, "nut").twins == ()


def test_a_shallow_check_reads_only_files_of_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    content = check._content
    monkeypatch.setattr(check, "_content", lambda path: read.append(path.name) or content(path))
    for name, length in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).write_bytes(bytes(length))
    listed = [Sample(tmp_path / name, name, "nut", "test", 0) for name in "abc"]
    listed.append(Sample(trees.image(tmp_path / "d.png"), "d.png", "nut", "train", 0))
    check_category(DataSet("nuts", tmp_path, ("nut",), lambda *_: listed), "nut")
    assert sorted(read) == ["a", "b"]


def test_an_image_that_is_normal_here_and_anomalous_there(tmp_path: Path) -> None:
    image = trees.image(tmp_path / "a.png")
    copy = shutil.copy(image, tmp_path / "b.png")
    listed = [Sample(image, "a.png", "nut", "test", 0), Sample(copy, "b.png", "nut", "test", 1, "cut")]
    listed.append(Sample(trees.image(tmp_path / "c.png"), "c.png", "nut", "train", 0))
    report = check_category(DataSet("nuts", tmp_path, ("nut",), lambda *_: listed), "nut")
    warnings, notes = twin_lines(report.twins)
    assert warnings == ["1 images are labelled normal and anomalous: a.png = b.png"]
    assert notes == ["1 test images repeat another one: a.png = b.png"]


def test_missing_masks_matter_only_where_pixels_count(tmp_path: Path) -> None:
    image = trees.image(tmp_path / "a.png")
    listed = [Sample(image, "a.png", "nut", "train", 0), Sample(image, "b", "nut", "test", 1, "cut")]

    def said(defined: list[str]) -> str:
        made = DataSet("nuts", tmp_path, ("nut",), lambda *_: listed, facts={"defined": defined})
        return " ".join(check_category(made, "nut").warnings)

    assert "without a mask" in said(["image", "pixel"])
    assert "without a mask" not in said(["image"])


def test_json_has_every_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(root / "train/good/000.png", root / "test/good/000.png")
    trees.mask(root / "ground_truth/cut/777_mask.png")
    code, out = checked(root, capsys, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["ok"]
    assert answer["licence"] == "CC BY-NC-SA 4.0"
    assert "cable" in answer["absent"]
    assert answer["masks_without_image"] == ["bottle/ground_truth/cut/777_mask.png"]
    (bottle,) = answer["categories"]
    assert bottle["found"] == bottle["expected"]
    assert bottle["train_and_test"] == [["bottle/train/good/000.png", "bottle/test/good/000.png"]]


def test_a_data_set_that_is_not_there_says_where_it_comes_from(adbench: Call) -> None:
    answer = adbench("data", "check", "dataset=mtd", "paths.data=nowhere")
    assert answer.returncode == 1
    assert "absent mtd: no data set mtd at nowhere/mtd (no such folder)" in answer.stdout
    assert "licence: none stated" in answer.stdout
    assert "from: https://github.com/abin24/Magnetic-tile-defect-datasets." in answer.stdout
    assert "MT_<class>/Imgs/<name>" in answer.stdout  # the layout
    as_json = json.loads(adbench("data", "check", "dataset=mtd", "paths.data=nowhere", "--json").stdout)
    assert not as_json["ok"]
    assert as_json["error"].startswith("no data set mtd")


def test_an_empty_folder_is_not_ok(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(root)
    code, out = checked(root, capsys)
    assert code == 1
    assert "no category of mvtec in" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "check", "dataset=mvtek"], "Did you mean mvtec"),
        (["data", "check", "dataset=mvtec", "category=botle"], "Did you mean bottle"),
        (["data", "fetch", "dataset=mvtec", "--deep"], "data fetch has no --deep"),
        (["data", "fetch", "dataset=mvtec", "category=bottle"], "whole data sets"),
    ],
)
def test_wrong_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


def test_real_tiles_are_whole(unpacked: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = unpacked("mtd/mtd.tar")
    assert cli.main(["data", "check", "dataset=mtd", f"dataset.root={root}"]) == 0
    out = capsys.readouterr().out
    assert "ok     mtd/mtd: 762 train, 190 test normal, 392 test anomalous, 392 masks" in out
    assert "masks without an image" not in out


# --- adbench list datasets


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict]:
    assert cli.main(["list", "datasets", "--json", *words]) == 0
    return {entry["id"]: entry for entry in json.loads(capsys.readouterr().out)}


def test_list_says_what_is_here(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, f"paths.data={root.parents[1]}")
    assert (entries["mvtec"]["found"], entries["mvtec"]["categories"]) == (1, 15)
    assert (entries["mtd"]["found"], entries["mtd"]["categories"]) == (0, 1)
    assert entries["synthetic"]["found"] == 4  # made on first use
    assert entries["folder"]["title"] == "folder"
    for entry in entries.values():
        assert {
            "title",
            "source",
            "annotation",
            "defined",
            "size",
            "licence",
            "archives",
            "unverified",
        } <= set(entry)


def test_list_of_one_category_data_sets_asks_the_adapter(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = root.parents[1]
    (data / "mtd/mtd").mkdir(parents=True)  # a folder of that name is not the data set
    assert listed(capsys, f"paths.data={data}")["mtd"]["found"] == 0
    trees.image(data / "mtd/MT_Free/Imgs/exp1_num_1.jpg")
    assert listed(capsys, f"paths.data={data}")["mtd"]["found"] == 1


def test_list_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    code = "import sys; from ad_bench.cli import main; main(['list', 'datasets']); print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "mvtec" in done.stdout, done.stderr
    assert not {"torch", "numpy", "hydra", "pandas"} & set(done.stdout.splitlines()[-1].split())


def test_list_copes_with_old_and_broken_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/bare.yaml").write_text(
        f"id: bare\nroot: {tmp_path}\nsamples: {{_target_: ad_bench.nowhere.samples, _partial_: true}}\n"
        "categories: [a]\n"
    )
    entry = listed(capsys, "--config-dir", str(tmp_path))["bare"]
    assert entry["found"] is None
    assert (entry["size"], entry["defined"], entry["archives"], entry["unverified"]) == (None, None, 0, [])
    assert cli.main(["list", "datasets", "--config-dir", str(tmp_path)]) == 0
    line = next(text for text in capsys.readouterr().out.splitlines() if text.startswith("bare"))
    assert line.split() == ["bare", "bare", "ours", "1", "?", *"-----"]


def test_show_without_a_method_prints_the_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "dataset=mtd"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dataset:\n  id: mtd\n")
    assert "conf/dataset/mtd.yaml" in out

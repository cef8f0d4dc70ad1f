"""`adbench data show`: what is on a contact sheet, looked at pixel by pixel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ad_bench import cli
from ad_bench.datasets import sheet
from ad_bench.datasets.sheet import contact_sheet
from ad_bench.samples import Boxes, MaskFiles, MaskSource, Sample
from tests.datasets import trees


def listed(
    folder: Path, mask: MaskSource | None, size: tuple[int, int] = (48, 64), normals: int = 9
) -> list[Sample]:
    normal = [trees.image(folder / f"good_{n}.png", size=size) for n in range(normals)]
    bad = trees.image(folder / "bad.png", size=size)
    return [Sample(path, f"nut/{path.name}", "nut", "train", 0) for path in normal] + [
        Sample(bad, "nut/bad.png", "nut", "test", 1, "cut", mask)
    ]


def line_of(picture: Image.Image) -> NDArray[np.bool_]:
    return (np.asarray(picture) == sheet.OUTLINE).all(axis=2)


def boxed(picture: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the outline, the last two outside."""
    rows, columns = np.nonzero(line_of(picture))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("kind", ["file", "box"])
def test_the_line_runs_around_the_defect_and_leaves_it_free(tmp_path: Path, kind: str) -> None:
    box = Boxes(((16.0, 12.0, 36.0, 24.0),))
    mask = MaskFiles((trees.mask(tmp_path / "mask.png"),)) if kind == "file" else box  # the same rectangle
    picture = contact_sheet("Nuts", listed(tmp_path, mask))
    left, top, right, bottom = boxed(picture)
    scale = ((right - left) / 20 + (bottom - top) / 12) / 2
    assert 2.5 < scale < 4.5
    assert (right - left - 2 * sheet.LINE) / (bottom - top - 2 * sheet.LINE) == pytest.approx(
        20 / 12, rel=0.03
    )
    inner = line_of(picture)[top + sheet.LINE : bottom - sheet.LINE, left + sheet.LINE : right - sheet.LINE]
    assert not inner.any()


def test_a_defect_of_one_pixel_in_a_large_image_is_surrounded(tmp_path: Path) -> None:
    mask = Boxes(((1500.0, 900.0, 1501.0, 901.0),))
    left, top, right, bottom = boxed(contact_sheet("Nuts", listed(tmp_path, mask, (1200, 2000), 1)))
    assert right - left >= 2 * sheet.LINE + 1
    assert bottom - top >= 2 * sheet.LINE + 1


def test_a_mask_of_the_whole_image_has_a_line_too(tmp_path: Path) -> None:
    assert line_of(contact_sheet("Nuts", listed(tmp_path, Boxes(((0.0, 0.0, 64.0, 48.0),))))).sum() > 500


def test_normal_images_have_no_line(tmp_path: Path) -> None:
    assert not line_of(contact_sheet("Nuts", listed(tmp_path, None))).any()


@pytest.mark.parametrize(
    ("aspect", "columns"), [(1.0, 6), (1.6, 6), (4.0, 3), (16.0, 1), (40.0, 1), (0.3, 6), (0.05, 6)]
)
def test_cells_suit_odd_shapes(aspect: float, columns: int) -> None:
    (width, height), found = sheet._cell(aspect, 6)
    assert found == columns
    assert found * (width + sheet.GAP) - sheet.GAP <= sheet.WIDTH - 2 * sheet.MARGIN
    assert width >= sheet.NARROWEST
    assert sheet.SHORTEST <= height <= sheet.TALLEST
    shown = min(width, height * aspect) * min(height, width / aspect)  # of the cell, without its margins
    assert shown > 8000


def test_strips_of_4096x256_fill_the_width(tmp_path: Path) -> None:
    picture = contact_sheet("Fabric", listed(tmp_path, Boxes(((0.0, 0.0, 4096.0, 256.0),)), (256, 4096), 1))
    left, top, right, bottom = boxed(picture)
    assert picture.width == sheet.WIDTH
    assert right - left == sheet.WIDTH - 2 * sheet.MARGIN
    assert (right - left) / (bottom - top) == pytest.approx(16, rel=0.05)


def test_the_seed_draws_the_samples(tmp_path: Path) -> None:
    made = listed(tmp_path, None)
    first = contact_sheet("Nuts", made)
    assert first.tobytes() == contact_sheet("Nuts", made).tobytes()
    names = [[s.name for s in sheet._kinds(made, seed, 6)[0][2]] for seed in range(3)]
    assert all(len(drawn) == 6 and drawn == sorted(drawn) for drawn in names)
    assert names[0] != names[1] or names[0] != names[2]


def test_rows_are_normal_images_by_split_and_then_each_defect(tmp_path: Path) -> None:
    path = trees.image(tmp_path / "a.png")
    made = [
        Sample(path, "1", "nut", "test", 1, "scratch"),
        Sample(path, "2", "nut", "test", 0),
        Sample(path, "3", "nut", "validation", 0),
        Sample(path, "4", "nut", "train", 0),
        Sample(path, "5", "nut", "train", 1, "cut"),
        Sample(path, "6", "nut", "test", 1, "cut"),
    ]
    rows = [(kind, count) for kind, count, _ in sheet._kinds(made, 0, 6)]
    assert rows == [
        ("good, train", 1),
        ("good, validation", 1),
        ("good, test", 1),
        ("cut", 2),
        ("scratch", 1),
    ]


def test_broken_files_are_crossed_out_and_do_not_stop_the_sheet(tmp_path: Path) -> None:
    def red(made: list[Sample]) -> int:
        pixels = np.asarray(contact_sheet("Nuts", made))
        return int((pixels == sheet.WRONG).all(axis=2).sum())

    whole = listed(tmp_path, None)
    assert red(whole) == 0
    (tmp_path / "text.png").write_text("no image")
    torn = Sample(tmp_path / "text.png", "nut/text.png", "nut", "test", 1, "cut")
    assert red([*whole, torn]) > 500
    small = MaskFiles((trees.mask(tmp_path / "small.png", size=(48, 60)),))
    assert red([*whole, Sample(whole[0].image, "nut/m.png", "nut", "test", 1, "cut", small)]) > 500
    assert red([torn]) > 500  # no image at all


def test_notes_and_names() -> None:
    assert sheet._short_names(["a/b/1.png", "a/b/2.png"]) == ["1.png", "2.png"]
    assert sheet._short_names(["a/x/1.png", "a/y/1.png"]) == ["x/1.png", "y/1.png"]
    assert sheet._short_names(["1.png"]) == ["1.png"]
    long = sheet._fitting("a" * 80 + "_17.png", 100, sheet._font(11))
    assert long.startswith("…")
    assert long.endswith("_17.png")


def test_show_writes_a_sheet_for_each_category(
    adbench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for category in ("bottle", "cable"):
        home = tmp_path / "data/mvtec" / category
        trees.image(home / "train/good/000.png")
        trees.image(home / "test/cut/000.png", defect=True)
        trees.mask(home / "ground_truth/cut/000_mask.png")
    answer = adbench("data", "show", "dataset=mvtec", "--out", "sheets/all.png")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == ["sheets/all_bottle.png", "sheets/all_cable.png"]
    with Image.open(tmp_path / "sheets/all_bottle.png") as picture:
        assert picture.format == "PNG"
        assert line_of(picture).any()


def test_where_sheets_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "data/mvtec/bottle"
    trees.image(home / "train/good/000.png")
    trees.image(home / "test/good/000.png")
    monkeypatch.chdir(tmp_path)
    words = ["data", "show", "dataset=mvtec"]
    for more, wanted in (
        ([], "mvtec_bottle.png"),
        (["--out", "here.png"], "here.png"),
        (["--out", "folder"], "folder/mvtec_bottle.png"),
    ):
        assert cli.main([*words, *more]) == 0
        assert capsys.readouterr().out.strip() == wanted
        assert (tmp_path / wanted).is_file()
    assert cli.main([*words, "--out", "sheet.xyz"]) == 2
    assert "cannot write sheet.xyz" in capsys.readouterr().err
    assert cli.main([*words, "category=cable"]) == 1
    assert "no category 'cable'" in capsys.readouterr().err


def test_real_tiles(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    out, root = tmp_path / "mtd.png", unpacked("mtd/mtd.tar")
    assert cli.main(["data", "show", "dataset=mtd", f"dataset.root={root}", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.width == sheet.WIDTH
        line = line_of(picture)
    assert line[: picture.height // 4].sum() == 0  # the normal ones stand above
    assert line[picture.height // 3 :].any(axis=1).sum() > 400

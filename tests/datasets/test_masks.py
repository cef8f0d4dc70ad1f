"""Every kind of mask as pixels, against small ones drawn by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.datasets.masks import read_defects, read_mask
from ad_bench.errors import DataError
from ad_bench.samples import Boxes, Ellipses, MaskFiles, Polygons, RunLengths, mask_files


def drawn(text: str) -> np.ndarray:
    return np.array([[character == "x" for character in line] for line in text.split()])


def test_boxes_touch_every_pixel_that_they_overlap():
    boxes = Boxes(((1, 0, 3, 2), (3.5, 2, 9, 3)))  # the second reaches beyond the image
    assert np.array_equal(read_mask(boxes, (3, 5), "a"), drawn(".xx.. .xx.. ...xx"))


@pytest.mark.parametrize("box", [(2, 0, 2, 1), (0, 1, 1, 0), (5, 0, 6, 1), (-2, 0, 0, 1)])
def test_a_box_outside_the_image_is_named(box):
    with pytest.raises(DataError, match=r"a box of test/a\.png runs from .* the image is 3x5"):
        read_mask(Boxes((box,)), (3, 5), "test/a.png")


def test_ellipse_turns_from_x_towards_y():
    flat = read_mask(Ellipses(((3, 2, 3, 1, 0.0),)), (5, 7), "a")
    assert np.array_equal(flat, drawn("....... ...x... xxxxxxx ...x... ......."))
    upright = read_mask(Ellipses(((2, 3, 3, 1, np.pi / 2),)), (7, 5), "a")
    assert np.array_equal(upright, flat.T)
    slanted = read_mask(Ellipses(((4, 4, 4, 1, np.pi / 4),)), (9, 9), "a")
    assert slanted[6, 6]
    assert slanted[2, 2]
    assert not slanted[6, 2]
    with pytest.raises(DataError, match="half axes 0 and 1"):
        read_mask(Ellipses(((4, 4, 0, 1, 0.0),)), (9, 9), "a")


def test_polygon_with_its_outline():
    mask = read_mask(Polygons(((1, 1, 3, 1, 3, 3, 1, 3),)), (5, 5), "a")
    assert np.array_equal(mask, drawn("..... .xxx. .xxx. .xxx. ....."))
    with pytest.raises(DataError, match="an outline of a has 4 numbers"):
        read_mask(Polygons(((1, 1, 3, 1),)), (5, 5), "a")


def test_runs_go_down_the_columns():
    assert np.array_equal(read_mask(RunLengths(((2, 2), (6, 1))), (3, 2), "a"), drawn(".. x. xx"))
    for run in ((0, 1), (6, 2), (1, 0)):
        with pytest.raises(DataError, match=r"a run of a starts at pixel .* 6 pixels"):
            read_mask(RunLengths((run,)), (3, 2), "a")


def loco(folder: Path, entries: list[dict], **masks: np.ndarray) -> MaskFiles:
    (folder / "defects_config.json").write_text(json.dumps(entries))
    for name, pixels in masks.items():
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    paths = tuple(folder / f"{name}.png" for name in masks)
    return MaskFiles(paths, saturations=folder / "defects_config.json")


def test_each_file_is_a_defect_that_saturates(tmp_path):
    entries = [
        {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 3, "relative_saturation": False},
        {"defect_name": "b", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
    ]
    first, second = 255 * drawn("xx.. xx.."), 254 * drawn(".xxx .xxx")
    mask = loco(tmp_path, entries, one=first, two=second)
    defects = read_defects(mask, (2, 4), "a")
    assert [(int(pixels.sum()), area) for pixels, area in defects] == [(4, 3), (6, 3)]
    assert read_mask(mask, (2, 4), "a").all()
    assert mask_files(mask) == (*mask.paths, tmp_path / "defects_config.json")
    with pytest.raises(DataError, match=r"one\.png is 2x4 .* its image a 4x2 .*turned"):
        read_defects(mask, (4, 2), "a")
    assert read_defects(MaskFiles(mask.paths), (2, 4), "a") is None
    # the file is read again when it changes
    entries[0]["saturation_threshold"] = 2
    (tmp_path / "defects_config.json").write_text(json.dumps(entries, indent=1))
    assert [area for _, area in read_defects(mask, (2, 4), "a")] == [2, 3]
    (tmp_path / "defects_config.json").unlink()
    with pytest.raises(DataError, match=r"no .*defects_config\.json"):
        read_defects(mask, (2, 4), "a")

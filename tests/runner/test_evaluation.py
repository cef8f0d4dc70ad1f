from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.errors import DataError
from ad_bench.geometry import Geometry
from ad_bench.runner.evaluation import score_cell
from ad_bench.samples import MaskFiles, Sample

WHOLE = {"size": None, "mask_interpolation": "nearest", "mask_rule": "nearest"}


def sample(folder: Path, name: str, mask: np.ndarray | None) -> Sample:
    """A sample of the test split; only its mask is ever opened."""
    source = None
    if mask is not None:
        path = folder / f"{name}_mask.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        source = MaskFiles((path,))
    label = int(source is not None)
    return Sample(
        folder / f"{name}.png", f"{name}.png", "c", "test", label, "spot" if label else "good", source
    )


def square(rows: slice, columns: slice, size: int = 8) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    return mask


def test_a_perfect_map_is_perfect_in_both_geometries(tmp_path: Path) -> None:
    mask = square(slice(2, 5), slice(2, 5))
    samples = [sample(tmp_path, "a", None), sample(tmp_path, "b", mask)]
    maps = [np.zeros((8, 8), np.float32), mask.astype(np.float32)]
    scored = score_cell(samples, np.array([0.0, 1.0]), maps, [(8, 8)] * 2, Geometry(size=(8, 8)), WHOLE)
    for where in ("paper", "full"):
        assert scored.metrics[where]["pixel_auroc"] == 1.0
        assert scored.metrics[where]["pixel_aupro"] == 1.0
    assert scored.metrics["image"]["image_auroc"] == 1.0
    assert scored.pixels_seen == 1.0


def test_what_a_crop_hides_is_missed_where_defective_and_left_out_where_normal(tmp_path: Path) -> None:
    """8x8 images cropped to the central 4x4: half of the defect is never seen."""
    mask = square(slice(3, 5), slice(0, 4))  # 8 pixels, 4 of them inside the crop
    samples = [sample(tmp_path, "a", mask)]
    inside = mask[2:6, 2:6].astype(np.float32)
    geometry = Geometry(short=8, crop=4)
    scored = score_cell(samples, np.array([1.0]), [inside], [(8, 8)], geometry, WHOLE)
    assert scored.pixels_seen == 16 / 64
    assert scored.metrics["paper"]["pixel_auroc"] == 1.0  # the paper never knew
    # 4 found above 12 seen normal pixels, 4 missed below them: AUROC (4 x 12) / (8 x 12)
    assert scored.metrics["full"]["pixel_auroc"] == pytest.approx(0.5, abs=1e-12)


def test_the_papers_mask_rule_decides_its_own_geometry_alone(tmp_path: Path) -> None:
    mask = square(slice(0, 3), slice(0, 8))  # halved to 4x4: one and a half rows
    samples = [sample(tmp_path, "a", mask)]
    maps = [np.repeat(np.array([[4.0], [3.0], [2.0], [1.0]], np.float32), 4, axis=1)]
    values = {}
    for rule in ("int", ">0"):
        rules = {"size": None, "mask_interpolation": "bilinear", "mask_rule": rule}
        scored = score_cell(samples, np.array([1.0]), maps, [(8, 8)], Geometry(size=(4, 4)), rules)
        values[rule] = scored.metrics
        assert scored.metrics["paper"]["pixel_auroc"] == 1.0
    assert values["int"]["full"] == values[">0"]["full"]
    assert values["int"]["paper"]["pixel_aupr"] == values[">0"]["paper"]["pixel_aupr"] == 1.0


def test_maps_of_any_size_are_brought_to_the_mask(tmp_path: Path) -> None:
    mask = square(slice(0, 4), slice(0, 8))
    small = np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)
    scored = score_cell(
        [sample(tmp_path, "a", mask)], np.array([1.0]), [small], [(8, 8)], Geometry(size=(8, 8)), None
    )
    assert scored.metrics["full"]["pixel_auroc"] == 1.0
    assert "paper" not in scored.metrics


def test_unknown_truth_gives_no_pixel_metric_but_a_reason(tmp_path: Path) -> None:
    unknown = Sample(tmp_path / "x.png", "x.png", "c", "test", 1, "spot", None)
    samples = [sample(tmp_path, "a", None), unknown]
    maps = [np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)]
    scored = score_cell(samples, np.array([0.0, 1.0]), maps, [(8, 8)] * 2, Geometry(size=(8, 8)), WHOLE)
    assert scored.metrics["image"]["image_auroc"] == 1.0
    assert np.isnan(scored.metrics["full"]["pixel_auroc"])
    assert scored.undefined["paper.pixel_auroc"] == "1 anomalous image(s) have no mask, first x.png"


def test_only_the_metrics_asked_for(tmp_path: Path) -> None:
    mask = square(slice(2, 5), slice(2, 5))
    samples = [sample(tmp_path, "a", None), sample(tmp_path, "b", mask)]
    maps = [np.zeros((8, 8), np.float32), mask.astype(np.float32)]
    names = ["image_auroc", "pixel_aupro@0.05"]
    scored = score_cell(
        samples, np.array([0.0, 1.0]), maps, [(8, 8)] * 2, Geometry(size=(8, 8)), WHOLE, names
    )
    assert scored.metrics == {
        "image": {"image_auroc": 1.0},
        "paper": {"pixel_aupro@0.05": 1.0},
        "full": {"pixel_aupro@0.05": 1.0},
    }


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    samples = [sample(tmp_path, "a", square(slice(0, 2), slice(0, 2), size=9))]
    with pytest.raises(DataError, match="a_mask"):
        score_cell(samples, np.array([1.0]), [np.zeros((8, 8))], [(8, 8)], Geometry(size=(8, 8)), WHOLE)

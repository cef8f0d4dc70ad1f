from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.errors import DataError
from ad_bench.geometry import Geometry
from ad_bench.runner.evaluation import score_cell
from ad_bench.samples import Boxes, MaskFiles, Sample

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
    metric = {"names": ["image_auroc", "pixel_aupro@0.05"]}
    scored = score_cell(
        samples, np.array([0.0, 1.0]), maps, [(8, 8)] * 2, Geometry(size=(8, 8)), WHOLE, metric
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


def made(folder: Path, count: int = 8) -> tuple[list[Sample], np.ndarray, list[np.ndarray]]:
    """Half normal, half with a square that the map finds partly; two kinds of defects."""
    rng = np.random.default_rng(0)
    samples, maps = [], []
    for i in range(count):
        mask = None if i % 2 == 0 else square(slice(i, i + 4), slice(2, 7), size=16)
        one = sample(folder, str(i), mask)
        maps.append(rng.normal(size=(16, 16)).astype(np.float32) + (0 if mask is None else 1.5 * mask))
        samples.append(one if i % 4 != 3 else dataclasses.replace(one, defect="dent"))
    return samples, np.array([m.max() for m in maps]), maps


def test_more_is_computed_where_the_settings_ask_for_it(tmp_path: Path) -> None:
    samples, scores, maps = made(tmp_path)
    where = ([(16, 16)] * len(maps), Geometry(size=(16, 16)), WHOLE)
    plain = score_cell(samples, scores, maps, *where)
    assert not plain.intervals
    assert not plain.bounds
    assert not plain.compat
    assert not plain.by_defect
    metric = {
        "aupro_limits": [0.3, 0.05],
        "intervals": {"replicates": 50, "level": 0.9},
        "threshold": {"image": 3.0, "pixel": 1.0},
        "compat": ["imiad", "ader"],
        "by_defect": True,
    }
    full = score_cell(samples, scores, maps, *where, metric)
    for part in ("image", "paper", "full"):
        assert plain.metrics[part].items() <= full.metrics[part].items()
        assert full.intervals[part].keys() == full.metrics[part].keys()
        for name, interval in full.intervals[part].items():
            assert 0 <= interval["low"] < interval["high"] <= 1, name
        best, given = (full.operating_points[part][kind] for kind in ("f1max", "given"))
        assert best["threshold"] == full.thresholds[part]
        assert given["f1"] < best["f1"]
    assert full.metrics["full"].keys() - plain.metrics["full"].keys() == {"pixel_aupro@0.05"}
    assert full.operating_points["full"]["given"]["threshold"] == 1.0
    called = np.stack(maps) >= 1.0
    blank = np.zeros((16, 16), bool)
    truth = np.stack(
        [blank if s.mask is None else np.array(Image.open(s.mask.paths[0])) > 0 for s in samples]
    )
    assert full.operating_points["full"]["given"]["recall"] == (called & truth).sum() / truth.sum()
    assert full.bootstrap == {"replicates": 50, "level": 0.9, "seed": 0}
    assert full.compat["imiad"]["pixel_auroc"] == full.metrics["paper"]["pixel_auroc"]
    assert full.compat["ader"]["pixel_auroc"] != full.metrics["paper"]["pixel_auroc"]
    assert set(full.by_defect) == {"spot", "dent"}
    own = [i for i, one in enumerate(samples) if one.defect in ("good", "dent")]
    alone = score_cell([samples[i] for i in own], scores[own], [maps[i] for i in own], where[0][: len(own)],
                       *where[1:], {"aupro_limits": [0.3, 0.05]})  # fmt: skip
    assert full.by_defect["dent"] == alone.metrics


def test_a_test_set_beyond_the_memory_is_bounded_and_says_so(tmp_path: Path) -> None:
    samples, scores, maps = made(tmp_path)
    where = ([(16, 16)] * len(maps), Geometry(size=(16, 16)), WHOLE)
    exact = score_cell(samples, scores, maps, *where)
    asked: list[int] = []

    class Watched(list):  # type: ignore[type-arg]
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            asked.append(index)
            return super().__getitem__(index)

    bounded = score_cell(samples, scores, Watched(maps), *where, {"memory": 1e-9, "compat": ["ader"]})
    assert np.isnan(bounded.compat["ader"]["pixel_auroc"]), "written for maps in memory"
    assert bounded.undefined["ader.pixel_auroc"] == "the maps take more than metric.memory"
    assert bounded.bounds["full"].keys() == exact.metrics["full"].keys()
    for part in ("paper", "full"):
        for name, bound in bounded.bounds[part].items():
            assert abs(bounded.metrics[part][name] - exact.metrics[part][name]) <= bound < 1e-3, name
    assert bounded.metrics["image"] == exact.metrics["image"]
    assert "image" not in bounded.bounds
    assert max(map(asked.count, set(asked))) == 4, "each map twice in each geometry"


def test_a_mask_that_changed_on_the_disk_is_read_again(tmp_path: Path) -> None:
    samples, scores, maps = made(tmp_path)
    where = ([(16, 16)] * len(maps), Geometry(size=(16, 16)), WHOLE)
    before = score_cell(samples, scores, maps, *where)
    path = samples[1].mask.paths[0]  # type: ignore[union-attr]
    Image.fromarray(square(slice(0, 1), slice(0, 1), size=16).astype(np.uint8) * 255).save(path)
    os.utime(path, ns=(1, 1))
    assert score_cell(samples, scores, maps, *where).metrics["full"] != before.metrics["full"]


def kinds_of_defects(folder: Path) -> tuple[list[Sample], np.ndarray, list[np.ndarray]]:
    """Two normal images, two of each kind; the logical ones score worse."""
    mask = square(slice(2, 5), slice(2, 5))
    samples = [sample(folder, name, None if name < "c" else mask) for name in "abcdef"]
    kinds = ["good", "good", "logical", "logical", "structural", "structural"]
    samples = [dataclasses.replace(s, defect=kind) for s, kind in zip(samples, kinds, strict=True)]
    draws = np.random.default_rng(0)
    maps = [draws.random((8, 8)).astype(np.float32) + 0.3 * (s.mask is not None) * mask for s in samples]
    return samples, np.array([0.1, 0.5, 0.2, 0.6, 0.7, 0.9]), [m.astype(np.float32) for m in maps]


def test_kinds_of_defects_are_averaged_one_to_one(tmp_path: Path) -> None:
    samples, scores, maps = kinds_of_defects(tmp_path)
    scored = score_cell(
        samples, scores, maps, [(8, 8)] * 6, Geometry(size=(8, 8)), WHOLE, average=["structural", "logical"]
    )
    assert scored.metrics["image"]["image_auroc"] == pytest.approx((1.0 + 0.75) / 2, abs=1e-12)
    for where in ("paper", "full"):
        alone = []
        for kind in ("structural", "logical"):
            own = [i for i, s in enumerate(samples) if s.defect in ("good", kind)]
            part = score_cell(
                [samples[i] for i in own],
                scores[own],
                [maps[i] for i in own],
                [(8, 8)] * len(own),
                Geometry(size=(8, 8)),
                WHOLE,
            )
            alone.append(part.metrics[where])
        for name, value in scored.metrics[where].items():
            assert value == pytest.approx((alone[0][name] + alone[1][name]) / 2, abs=1e-12), name
    assert scored.averaged == ["structural", "logical"]
    assert scored.intervals == {}  # those of the pooled values would be of something else
    assert set(scored.by_defect) == {"structural", "logical"}


def test_an_average_over_a_kind_that_is_absent_is_undefined(tmp_path: Path) -> None:
    samples, scores, maps = kinds_of_defects(tmp_path)
    scored = score_cell(
        samples, scores, maps, [(8, 8)] * 6, Geometry(size=(8, 8)), None, average=["structural", "dents"]
    )
    assert np.isnan(scored.metrics["full"]["pixel_auroc"])
    assert scored.undefined["full.pixel_auroc"] == "it has no value for dents"


def test_boxes_are_no_masks_unless_filled(tmp_path: Path) -> None:
    plain = sample(tmp_path, "a", None)
    boxed = dataclasses.replace(plain, name="b.png", label=1, defect="spot", mask=Boxes(((2, 2, 5, 5),)))
    maps = [np.zeros((8, 8), np.float32), square(slice(2, 5), slice(2, 5)).astype(np.float32)]
    geometry, scores = Geometry(size=(8, 8)), np.array([0.0, 1.0])
    scored = score_cell([plain, boxed], scores, maps, [(8, 8)] * 2, geometry, None)
    assert np.isnan(scored.metrics["full"]["pixel_auroc"])
    assert "boxes in place of masks, first b.png" in scored.undefined["full.pixel_auroc"]
    assert scored.metrics["image"]["image_auroc"] == 1.0
    filled = dataclasses.replace(boxed, mask=Boxes(((2, 2, 5, 5),), filled=True))
    scored = score_cell([plain, filled], scores, maps, [(8, 8)] * 2, geometry, None)
    assert scored.metrics["full"]["pixel_auroc"] == 1.0


def test_spro_counts_pixels_of_the_original_masks(tmp_path: Path) -> None:
    """A map that finds just the saturation area of a defect, and nothing else, is perfect; AUPRO is not."""
    config = tmp_path / "defects_config.json"
    entry = {"defect_name": "x", "pixel_value": 255, "saturation_threshold": 4, "relative_saturation": False}
    config.write_text(json.dumps([entry]))
    plain, defect = sample(tmp_path, "a", None), sample(tmp_path, "b", square(slice(2, 6), slice(2, 6)))
    assert isinstance(defect.mask, MaskFiles)
    defect = dataclasses.replace(defect, mask=MaskFiles(defect.mask.paths, saturations=config))
    found = square(slice(2, 4), slice(2, 4)).astype(np.float32)
    maps = [np.zeros((8, 8), np.float32), found]
    scored = score_cell([plain, defect], np.array([0, 1.0]), maps, [(8, 8)] * 2, Geometry(size=(8, 8)), WHOLE)
    assert scored.metrics["full"]["pixel_spro"] == pytest.approx(1.0, abs=1e-12)
    assert scored.metrics["full"]["pixel_aupro"] < 0.9
    assert "pixel_spro" not in scored.metrics["paper"]  # its masks are resized, saturation areas are not

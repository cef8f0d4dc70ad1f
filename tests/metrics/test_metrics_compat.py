"""Compatibility modes: the values of the projects' own code, the errors they make, and what has no value."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ad_bench.errors import PredictionError, UsageError
from ad_bench.metrics import evaluate_maps
from ad_bench.metrics.compat import MODES, compatible, compatible_with_reasons
from ad_bench.metrics.truth import PixelTruth

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_compat_fixture.py"
REFERENCE = json.loads(Path(__file__).with_name("compat_reference.json").read_text())
PIXEL = {
    "imiad": ["pixel_auroc", "pixel_aupr", "pixel_aupro"],
    "ader": ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro"],
}


def load_script():
    spec = importlib.util.spec_from_file_location("make_compat_fixture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fixture = load_script()


def made(seed=1, kind="plain", dtype="float64", images=5, size=(30, 30)):
    maps, masks = fixture.made({"seed": seed, "kind": kind, "dtype": dtype, "images": images, "size": size})
    return maps, masks, *image_truth(maps, masks)


def image_truth(maps, masks):
    return np.array([item.max() for item in maps]), np.array([int(mask.any()) for mask in masks])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"{case['kind']}-{case['dtype']}")
def test_the_values_of_the_projects_own_code(case, mode):
    maps, masks = fixture.made(case)
    assert fixture.fingerprint(maps, masks) == case["crc32"]  # else these are not the maps of the fixture
    values, reasons = compatible_with_reasons(mode, maps, masks, *image_truth(maps, masks))
    assert values == pytest.approx(case[mode], rel=0, abs=1e-12)
    assert reasons == {}


@pytest.mark.parametrize(("score", "missed"), [(9899.5, 1), (9800.5, 100)])
def test_imiad_places_a_region_anywhere_between_two_quantiles(score, missed):
    # 9,901 normal pixels: a threshold at every hundredth. The region is found after 1, or after 100, false
    # positives; the straight line between the thresholds says after 50 in both cases.
    maps = [np.append(np.arange(9901.0), [score] * 4)[None]]
    masks = [np.append(np.zeros(9901), np.ones(4))[None]]
    ours = evaluate_maps(maps, masks, [1.0], [1])["pixel_aupro"]
    theirs = compatible("imiad", maps, masks, [1.0], [1])["pixel_aupro"]
    assert ours == pytest.approx(1 - missed / 9901 / 0.3, abs=1e-12)
    assert theirs == pytest.approx(1 - 50 / 9901 / 0.3, abs=1e-12)
    assert abs(theirs - ours) > 0.016


def test_imiad_gives_nothing_for_a_constant_map():
    _, masks, scores, labels = made()
    flat = [np.full(mask.shape, 0.3) for mask in masks]
    assert evaluate_maps(flat, masks, scores, labels)["pixel_aupro"] == pytest.approx(0.15)
    assert compatible("imiad", flat, masks, scores, labels)["pixel_aupro"] == 0


def test_ader_halves_the_average_precision_of_a_perfect_map():
    maps, masks, scores, labels = made(kind="perfect")
    assert evaluate_maps(maps, masks, scores, labels)["pixel_aupr"] == 1
    values = compatible("ader", maps, masks, scores, labels)
    # Every defect pixel has the highest score and so counts twice: the curve begins at half the recall.
    assert values["pixel_aupr"] == pytest.approx(0.5)
    assert values["pixel_auroc"] == values["pixel_aupro"] == pytest.approx(1)


def test_rescaling_the_scores_changes_ader_and_nothing_else():
    maps, masks, scores, labels = made(seed=12, images=8, size=(64, 64))
    bent = [np.exp(4 * item) for item in maps]
    assert evaluate_maps(bent, masks, scores, labels) == evaluate_maps(maps, masks, scores, labels)
    assert compatible("imiad", bent, masks, scores, labels) == compatible(
        "imiad", maps, masks, scores, labels
    )
    before, after = (compatible("ader", item, masks, scores, labels) for item in (maps, bent))
    assert abs(before["pixel_auroc"] - after["pixel_auroc"]) > 0.1
    assert abs(before["pixel_aupro"] - after["pixel_aupro"]) > 0.1
    assert abs(before["pixel_f1max"] - after["pixel_f1max"]) > 0.02


@pytest.mark.parametrize("mode", MODES)
def test_images_may_differ_in_size_and_come_in_any_order(mode):
    maps, masks, scores, labels = made(seed=13, kind="coarse")
    strip, clean = np.full((3, 30), 2.0), np.zeros((3, 30), bool)
    apart = compatible(mode, [*maps, strip], [*masks, clean], np.append(scores, 2.0), np.append(labels, 0))
    # The same pixels and regions, the strip now a part of the first image, which lies on its side.
    grown = [np.concatenate([maps[0], strip]).T, *maps[1:]]
    together = compatible(mode, grown[::-1], [None, *masks[1:]][::-1], scores[::-1], labels[::-1])
    without = compatible(mode, maps, masks, scores, labels)
    for name in PIXEL[mode]:
        assert apart[name] == pytest.approx(together[name], abs=1e-12)
    assert apart["pixel_auroc"] != without["pixel_auroc"]


@pytest.mark.parametrize("mode", MODES)
def test_ignored_pixels_are_left_out(mode):
    maps, masks, scores, labels = made(seed=14)
    cut = [mask & (np.arange(30) < 20) for mask in masks]
    ignore = [np.tile(np.arange(30) >= 20, (30, 1))] * len(maps)
    seen = compatible(mode, maps, PixelTruth.of(cut, ignore), scores, labels)
    cropped = compatible(mode, [m[:, :20] for m in maps], [m[:, :20] for m in masks], scores, labels)
    assert seen == pytest.approx(cropped, abs=1e-12)


def test_small_and_integer_types_are_widened():
    maps, masks, scores, labels = made(kind="coarse")
    as_given = compatible("ader", maps, masks, scores, labels)
    assert compatible("ader", [m.astype(int) for m in maps], masks, scores, labels) == as_given
    half = [m.astype(np.float16) for m in maps]
    single = [m.astype(np.float32) for m in maps]
    assert compatible("ader", half, masks, scores, labels) == compatible(
        "ader", single, masks, scores, labels
    )


def undefined(mode, names, reason, *arguments):
    values, reasons = compatible_with_reasons(mode, *arguments)
    assert {name for name, value in values.items() if np.isnan(value)} == set(names) == set(reasons)
    assert all(reason in text for text in reasons.values())


@pytest.mark.parametrize("mode", MODES)
def test_no_defect_no_normal_pixel_no_pixel(mode):
    maps, masks, scores, labels = made()
    undefined(
        mode, PIXEL[mode], "no defective pixel", maps, [np.zeros_like(m) for m in masks], scores, labels
    )
    undefined(mode, PIXEL[mode], "no normal pixel", maps, [np.ones_like(m) for m in masks], scores, labels)
    values, reasons = compatible_with_reasons(mode, [], [], [], [])
    assert np.isnan(list(values.values())).all()
    assert set(reasons.values()) == {"no image to score", "no pixel to score"}


@pytest.mark.parametrize("mode", MODES)
def test_without_an_anomalous_image(mode):
    maps, _, scores, _ = made()
    values, reasons = compatible_with_reasons(mode, maps, [None] * 5, scores, np.zeros(5, int))
    assert np.isnan(list(values.values())).all()
    assert reasons["image_auroc"] == "no anomalous image"
    assert reasons["pixel_aupro"] == "no defective pixel"


@pytest.mark.parametrize("mode", MODES)
def test_a_method_without_maps_and_data_without_masks(mode):
    maps, masks, scores, labels = made()
    expected = compatible(mode, maps, masks, scores, labels)
    image = {name: value for name, value in expected.items() if name.startswith("image_")}
    assert len(image) == len(expected) - len(PIXEL[mode])
    assert compatible(mode, None, masks, scores, labels) == image
    assert compatible(mode, maps, None, scores, labels) == image


def test_ader_needs_a_width_to_cut():
    _, masks, scores, labels = made()
    flat = [np.full(mask.shape, 0.3, np.float32) for mask in masks]
    undefined("ader", PIXEL["ader"], "all pixels have one score", flat, masks, scores, labels)
    unseen = [np.where(np.arange(30) < 3, -np.inf, item) for item in made()[0]]
    undefined("ader", PIXEL["ader"], "never seen", unseen, masks, scores, labels)
    wide = [item.astype(np.float32) * np.float32(1e37) for item in made()[0]]
    undefined("ader", PIXEL["ader"], "overflow float32", wide, masks, scores, labels)


def test_ader_has_no_aupro_where_its_curve_begins_beyond_the_limit():
    maps, masks, scores, labels = made()
    capped = [np.minimum(item, 1.5) for item in maps]
    undefined("ader", ["pixel_aupro"], "false positive rate above 0.3", capped, masks, scores, labels)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_refused(mode):
    maps, masks, scores, labels = made()
    with pytest.raises(PredictionError, match="image 1 holds 1 NaN"):
        compatible(
            mode,
            [maps[0], np.where(maps[1] == maps[1][3, 3], np.nan, maps[1]), *maps[2:]],
            masks,
            scores,
            labels,
        )
    with pytest.raises(ValueError, match="image 2 is anomalous but has no mask"):
        compatible(mode, maps, [*masks[:2], None, *masks[3:]], scores, labels)
    with pytest.raises(ValueError, match="5 image scores but 4 masks"):
        compatible(mode, maps, masks[:4], scores, labels)
    with pytest.raises(ValueError, match="5 image scores but 4 maps"):
        compatible(mode, maps[:4], masks, scores, labels)
    with pytest.raises(ValueError, match="image 4"):
        compatible(mode, [*maps[:4], maps[4][:, :9]], masks, scores, labels)


def test_an_unknown_mode_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"no compatibility mode 'imaid'\. Did you mean imiad"):
        compatible("imaid", [], [], [], [])
    with pytest.raises(UsageError, match="There are imiad, ader"):
        compatible("xyz", [], [], [], [])

"""sPRO: by hand, against a sweep over all thresholds, and against the values of the authors' own code."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from metric_oracles import flat, made_loco, regions_of, swept_spro
from scipy.ndimage import label

from ad_bench.metrics import counting, evaluate, rank_pixels
from ad_bench.metrics.measures import aupro, spro
from ad_bench.metrics.truth import PixelTruth

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_spro_fixture.py"
REFERENCE = json.loads(Path(__file__).with_name("spro_reference.json").read_text())
LIMITS = [0.01, 0.05, 0.1, 0.3, 1.0]


def load_script():
    spec = importlib.util.spec_from_file_location("make_spro_fixture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fixture = load_script()


def saturation(mask, threshold):
    """Pixels: a float is a share of the area, an int in pixels and at most the area."""
    area = int(mask.sum())
    return int(threshold * area) if isinstance(threshold, float) else min(threshold, area)


def truth_of(masks, defects, ignore=None):
    return PixelTruth.of(masks, ignore, defects)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("levels", [None, 20, 2])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_sweep_over_all_thresholds(seed, levels, limit):
    maps, masks, defects = made_loco(seed, levels=levels)
    name = f"pixel_spro@{limit}"
    labels = [int(mask.any()) for mask in masks]
    found = evaluate(maps, masks, np.arange(7), labels, [name], defects=defects)
    assert found.values[name] == pytest.approx(swept_spro(maps, defects, limit), abs=1e-10, rel=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_the_sweep_on_more_pixels_than_are_sorted(dtype, monkeypatch):
    maps, masks, defects = made_loco(5, images=8, size=110, levels=50)
    maps = [m.astype(dtype) for m in maps]
    ranking = rank_pixels(maps, truth_of(masks, defects))
    for limit in LIMITS:
        assert spro(ranking, limit) == pytest.approx(swept_spro(maps, defects, limit), abs=1e-10, rel=0)
    monkeypatch.setattr(counting, "sort_cost", lambda *_: -1.0)
    assert spro(rank_pixels(maps, truth_of(masks, defects)), 0.05) == spro(ranking, 0.05)


@pytest.mark.parametrize("part", ["all", fixture.LOGICAL, fixture.STRUCTURAL])
@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"seed {case['seed']}")
def test_the_values_of_the_authors_code(case, part):
    images = fixture.made(case)
    assert fixture.fingerprint(images) == case["crc32"]  # else these are not the maps of the fixture
    masks, defects = [], []
    for image in images:
        own = [(mask, saturation(mask, threshold)) for mask, threshold in image["channels"]]
        defects.append(own)
        masks.append(np.logical_or.reduce([mask for mask, _ in own]) if own else None)
    chosen = [i for i, image in enumerate(images) if part == "all" or image["kind"] in (part, fixture.GOOD)]
    truth = truth_of(masks, defects).subset(chosen)
    ranking = rank_pixels([images[i]["map"] for i in chosen], truth, regions=False)
    for limit in LIMITS:
        value = spro(ranking, limit)
        # with a point of the curve at every score, the authors' code is exact as well
        assert value == pytest.approx(case["exact"][part][str(limit)], abs=1e-12, rel=0)
        for distance, refined in case["refined"].items():
            # as published: points are at most `distance` apart, on the curve of all images
            share = len(images) / len(chosen)
            assert value == pytest.approx(refined[part][str(limit)], abs=float(distance) * share, rel=0)


def test_by_hand():
    # Falling: 5 (A), 4 (normal), 3 (A and B, and a normal), 2 (normal), 1 (A), 0 (normal).
    # A has 3 pixels and is saturated by 2; B is one pixel, and in A.
    values = np.array([[5.0, 3.0, 1.0, 4.0, 3.0, 2.0, 0.0]])
    a, b = (np.isin(np.arange(7), spots)[None] for spots in ([0, 1, 2], [1]))
    truth = truth_of([a | b], [[(a, 2), (b, 1)]])
    # Mean overlap 1/4 up to an FPR of 1/4; in a line to 1 at 1/2; then 1, whatever else of A is found.
    ranking = rank_pixels([values], truth)
    assert spro(ranking, 1.0) == pytest.approx(0.25 / 4 + (0.25 + 1) / 2 / 4 + 0.5)
    assert spro(ranking, 0.375) == pytest.approx((0.25 / 4 + (0.25 + 0.625) / 2 / 8) / 0.375)
    assert spro(ranking, 0.2) == pytest.approx(0.25)


@pytest.mark.parametrize("limit", [0.01, 0.05, 1.0])
def test_a_perfect_map_and_one_that_finds_enough(limit):
    _, masks, defects = made_loco(2)
    found = rank_pixels([mask.astype(np.float32) for mask in masks], truth_of(masks, defects))
    assert spro(found, limit) == pytest.approx(1.0, abs=1e-14)
    # one logical defect, of which exactly the saturation area is found: AUPRO is far from it
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    enough = np.zeros((30, 30))
    enough[5:10, 5:10] = 1.0
    ranking = rank_pixels([enough], truth_of([mask], [[(mask, 25)]]))
    assert spro(ranking, limit) == pytest.approx(1.0, abs=1e-14)
    assert aupro(ranking, 0.05) < 0.1
    less = rank_pixels([enough], truth_of([mask], [[(mask, 50)]]))
    assert spro(less, limit) == pytest.approx(
        0.5 + 0.25 * limit
    )  # the other half lies with all normal pixels


@pytest.mark.parametrize("levels", [None, 3])
def test_regions_as_defects_saturated_by_their_area_give_aupro(levels):
    maps, masks, _ = made_loco(8, levels=levels)
    defects = []
    for mask in masks:
        numbered, count = label(mask, structure=np.ones((3, 3)))
        defects.append([(numbered == k, int((numbered == k).sum())) for k in range(1, count + 1)])
    ranking = rank_pixels(maps, truth_of(masks, defects))
    for limit in LIMITS:
        assert spro(ranking, limit) == pytest.approx(aupro(ranking, limit), abs=1e-13)
    assert len(regions_of(maps, masks)[1]) == sum(map(len, defects))


def test_a_saturation_above_the_area_is_the_area():
    maps, masks, defects = made_loco(3)
    whole = [[(mask, int(mask.sum())) for mask, _ in own] for own in defects]
    beyond = [[(mask, 10_000) for mask, _ in own] for own in defects]
    one, two = (spro(rank_pixels(maps, truth_of(masks, given)), 0.3) for given in (whole, beyond))
    assert one == two


def test_ties_across_the_saturation_count_once():
    # Five pixels of one score, two of which are enough: found at once, however they are picked.
    mask = np.array([[1, 1, 1, 1, 1, 0, 0]], bool)
    values = np.array([[1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 0.0]])
    for saturation_area in (1, 2, 5):
        ranking = rank_pixels([values], truth_of([mask], [[(mask, saturation_area)]]))
        assert spro(ranking, 1.0) == pytest.approx(0.5)
        assert ranking.saturated.sum() == pytest.approx(1.0)


def test_unseen_and_ignored_pixels_of_a_defect():
    maps, masks, defects = made_loco(4)
    low = flat(maps).min()
    unseen = [np.where(mask & (np.arange(20) < 6), -np.inf, m) for m, mask in zip(maps, masks, strict=True)]
    missed = [np.where(np.isinf(m), low - 1, m) for m in unseen]
    for limit in LIMITS:
        one, two = (spro(rank_pixels(given, truth_of(masks, defects)), limit) for given in (unseen, missed))
        assert one == two == pytest.approx(swept_spro(missed, defects, limit), abs=1e-10)
    # what is ignored is not there, and a defect of which nothing is left does not count
    ignore = [np.zeros(m.shape, bool) for m in maps]
    for hidden in ignore:
        hidden[:, :8] = True
    gone = [m[:, 8:] for m in maps], [mask[:, 8:] for mask in masks]
    left = [[(one[:, 8:], s) for one, s in own if one[:, 8:].any()] for own in defects]
    left = [[(one, min(s, int(one.sum()))) for one, s in own] for own in left]
    assert sum(map(len, left)) < sum(map(len, defects))
    ranking = rank_pixels(maps, truth_of(masks, defects, ignore))
    assert spro(ranking, 0.3) == pytest.approx(swept_spro(gone[0], left, 0.3), abs=1e-10)


def test_what_no_data_set_can_mean_is_refused():
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    half = mask & (np.arange(4) < 2)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=rf"saturation of a defect of image 0 is .* got {wrong}"):
            truth_of([mask], [[(mask, wrong)]])
    with pytest.raises(ValueError, match="image 0 has 4 defect pixels, its 1 defects together 2"):
        truth_of([mask], [[(half, 1)]])
    with pytest.raises(ValueError, match="image 0 has 4 defect pixels, its 0 defects together 0"):
        truth_of([mask], [None])
    with pytest.raises(ValueError, match="image 0 has defects but no mask"):
        truth_of([None], [[(mask, 1)]])
    with pytest.raises(ValueError, match="1 masks but 2 lists of defects"):
        truth_of([mask], [[(mask, 1)], None])
    with pytest.raises(ValueError, match=r"needs PixelTruth\.of"):
        spro(rank_pixels([mask * 1.0], [mask]), 0.05)


def test_without_saturation_areas_there_is_a_reason_and_no_value():
    mask = np.eye(4, dtype=bool)
    result = evaluate([mask * 1.0], [mask], [1], [1], ["pixel_spro", "pixel_auroc"])
    assert np.isnan(result.values["pixel_spro"])
    assert result.reasons == {"pixel_spro": "the data set has no saturation areas of defects"}
    assert "pixel_spro" not in evaluate([mask * 1.0], [mask], [1], [1]).values
    assert "pixel_spro" in evaluate([mask * 1.0], [mask], [1], [1], defects=[[(mask, 2)]]).values


@pytest.mark.parametrize("memory", [None, 0])
def test_sets_in_which_spro_has_no_value(memory):
    full = np.ones((3, 3), bool)
    for masks, defects, reason in (
        ([~full], [[]], "no defective pixel"),
        ([None], [None], "no defective pixel"),
        ([full], [[(full, 3)]], "no normal pixel"),
        ([], [], "no pixel to score"),
    ):
        count = len(masks)
        result = evaluate(
            [np.ones((3, 3))] * count,
            masks,
            [0.0] * count,
            [0] * count,
            ["pixel_spro"],
            defects=defects,
            memory=memory,
        )
        assert np.isnan(result.values["pixel_spro"])
        assert result.reasons == {"pixel_spro": reason}

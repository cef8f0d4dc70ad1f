"""The values: by hand, against scikit-learn, against a loop over all thresholds; what must not move them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import brute_area, brute_aupro, brute_curve, flat, made_set, sklearn_values, swept_aupro

from ad_bench.metrics import evaluate, evaluate_maps

RAGGED = [(24, 24), (7, 31), (1, 1), (40, 3), (13, 24), (24, 5)]
SETS = {
    "distinct": {},
    "ties": {"levels": 2},
    "coarse ties": {"levels": 0.5},
    "float32": {"dtype": np.float32},
    "float16": {"dtype": np.float16},
    "ragged": {"sizes": RAGGED, "levels": 4},
}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(kind, seed):
    maps, masks, scores, labels = made_set(seed, **SETS[kind])
    values = evaluate_maps(maps, masks, scores, labels)
    for name, truth in (
        ("pixel", sklearn_values(flat(maps), flat(masks))),
        ("image", sklearn_values(scores, labels)),
    ):
        ours = [values[f"{name}_{metric}"] for metric in ("auroc", "aupr", "f1max")]
        assert ours == pytest.approx(truth, abs=1e-12, rel=0)


@pytest.mark.parametrize("kind", SETS)
def test_aupro_equals_the_loop_over_all_thresholds(kind):
    maps, masks, scores, labels = made_set(7, **SETS[kind])
    curve = brute_curve(maps, masks)
    for limit in (0.01, 0.05, 0.3, 1.0):
        name = f"pixel_aupro@{limit}"
        value = evaluate_maps(maps, masks, scores, labels, metrics=[name])[name]
        assert value == pytest.approx(brute_area(curve, limit), abs=1e-10, rel=0)
        assert swept_aupro(maps, masks, limit) == pytest.approx(brute_area(curve, limit), abs=1e-12)


# Six maps of 120 x 120, or of sizes that differ, are more pixels than are sorted for being few.
LARGE = {kind: {**options, "size": 120} for kind, options in SETS.items() if kind != "ragged"} | {
    "ragged": {"sizes": [(240, 240), (7, 310), (1, 1), (400, 3), (130, 240), (24, 5)], "levels": 4},
    "256 levels": {"levels": 32, "size": 120, "dtype": np.float32},
}


@pytest.mark.parametrize("kind", LARGE)
def test_more_pixels_equal_scikit_learn(kind):
    maps, masks, scores, labels = made_set(1, **LARGE[kind])
    assert sum(m.size for m in maps) > 1 << 16
    values = evaluate_maps(maps, masks, scores, labels)
    truth = sklearn_values(flat(maps), flat(masks))
    ours = [values[f"pixel_{metric}"] for metric in ("auroc", "aupr", "f1max")]
    assert ours == pytest.approx(truth, abs=1e-12, rel=0)
    assert values["pixel_iou"] == pytest.approx(truth[2] / (2 - truth[2]), abs=1e-12, rel=0)


@pytest.mark.parametrize("kind", LARGE)
def test_aupro_of_more_pixels_equals_the_sweep(kind):
    maps, masks, scores, labels = made_set(4, **LARGE[kind])
    limits = [0.01, 0.05, 0.3, 1.0]
    names = [f"pixel_aupro@{limit}" for limit in limits]
    values = evaluate_maps(maps, masks, scores, labels, metrics=names)
    wanted = [swept_aupro(maps, masks, limit) for limit in limits]
    assert [values[name] for name in names] == pytest.approx(wanted, abs=1e-10, rel=0)


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    levels=st.integers(1, 6),
    limit=st.floats(0.01, 1.0),
)
@settings(max_examples=100, deadline=None)
def test_any_small_set_equals_the_oracles(seed, shapes, levels, limit):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, levels, shape).astype(np.float64) for shape in shapes]
    for values in maps:  # some pixels never seen
        values[rng.random(values.shape) < 0.1] = -np.inf
    masks = [rng.random(shape) < 0.3 for shape in shapes]
    ignore = [rng.random(shape) < 0.2 for shape in shapes]
    scores, labels = np.arange(len(maps)), np.zeros(len(maps), int)
    name = f"pixel_aupro@{limit}"
    names = ["pixel_auroc", "pixel_aupr", "pixel_f1max", name]
    values = evaluate_maps(maps, masks, scores, labels, names, ignore)
    keep = ~flat(ignore)
    truth, points = flat(masks)[keep], flat(maps)[keep]
    if truth.any() and not truth.all():
        oracle = [*sklearn_values(points, truth), brute_aupro(maps, masks, limit, ignore)]
        assert [values[n] for n in names] == pytest.approx(oracle, abs=1e-10, rel=0)
    else:
        assert all(np.isnan(v) for v in values.values())


def test_by_hand():
    # Falling: 5 (region A), 4 (normal), 3 (B and a normal, tied), 2, 1 (normal), 0 (A). A has 2 pixels, B 1.
    maps = [np.array([[5.0, 0.0, 4.0, 3.0]]), np.array([[3.0, 2.0, 1.0]])]
    masks = [np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0]], bool)]
    result = evaluate(maps, masks, [0.9, 0.8], [1, 0])
    values = result.values
    assert values["pixel_auroc"] == pytest.approx((4 + (2 + 0.5) + 0) / 12)
    assert values["pixel_aupr"] == pytest.approx((1 / 1 + 2 / 4 + 3 / 7) / 3)
    assert values["pixel_f1max"] == pytest.approx(2 * 3 / (3 + 7))  # at 0: 3 of 3 found, 4 false
    assert values["pixel_iou"] == pytest.approx(3 / 7)
    assert result.thresholds == {"image": 0.9, "pixel": 0.0}
    # Mean overlap: 1/4 until FPR 1/4, then to 3/4 at FPR 1/2 in a line; the limit 0.3 cuts that line at 0.35.
    assert values["pixel_aupro"] == pytest.approx((0.25 * 0.25 + 0.05 * (0.25 + 0.35) / 2) / 0.3)
    assert (values["image_auroc"], values["image_aupr"], values["image_f1max"]) == (1.0, 1.0, 1.0)


def test_regions_touch_at_corners_and_count_alike():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = True  # one region through the corner
    mask[3:6, 3:6] = True
    values = np.where(np.arange(6)[:, None] < 2, 1.0, 0.0) * mask
    # The small region is found at no false positive, the large one only with all normal pixels.
    name = "pixel_aupro@1"
    assert evaluate_maps([values], [mask], [1], [1], [name])[name] == pytest.approx(0.5 + 0.5 * 0.5)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32, np.float64])
def test_a_map_equal_to_its_mask_is_perfect(dtype):
    _, masks, _, labels = made_set(3, images=8)
    values = evaluate_maps([m.astype(dtype) for m in masks], masks, labels, labels)
    assert set(values.values()) == {1.0}


def test_a_constant_map_has_the_documented_values():
    _, masks, _, labels = made_set(3)
    names = [
        "image_auroc",
        "image_aupr",
        "pixel_auroc",
        "pixel_aupr",
        "pixel_f1max",
        "pixel_iou",
        "pixel_aupro",
    ]
    values = evaluate_maps([np.full(m.shape, 0.7) for m in masks], masks, np.ones(6), labels, names)
    share = flat(masks).mean()
    anomalous = labels.mean()
    expected = [0.5, anomalous, 0.5, share, 2 * share / (1 + share), share, 0.15]
    assert [values[n] for n in names] == pytest.approx(expected, abs=1e-15)


TRANSFORMS = {
    "exp": np.exp,
    "times 20": lambda s: 20 * s,
    "by 1000": lambda s: s / 1000,
    "cube": lambda s: s**3,
    "-1/s": lambda s: -1 / (s + 100),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("limit", [0.3, 0.05])
def test_rising_transforms_change_nothing(transform, limit):
    maps, masks, scores, labels = made_set(11, levels=8)
    names = [
        "image_auroc",
        "image_aupr",
        "image_f1max",
        "pixel_auroc",
        "pixel_aupr",
        "pixel_f1max",
        "pixel_iou",
    ]
    names.append(f"pixel_aupro@{limit}")
    moved = [TRANSFORMS[transform](m) for m in maps]
    assert len(np.unique(flat(moved))) == len(np.unique(flat(maps)))
    after = evaluate_maps(moved, masks, TRANSFORMS[transform](scores), labels, names)
    assert after == evaluate_maps(maps, masks, scores, labels, names)  # to the last bit


def test_float16_scores_count_as_they_are():
    maps, masks, scores, labels = made_set(5, dtype=np.float16)
    wide = evaluate_maps([m.astype(np.float64) for m in maps], masks, scores.astype(np.float64), labels)
    assert evaluate_maps(maps, masks, scores, labels) == wide


def test_float64_is_ranked_as_float64():
    maps, masks = [np.array([[1.0, 1.0 + 1e-12]])], [np.array([[False, True]])]
    assert evaluate_maps(maps, masks, [1.0], [1], ["pixel_auroc"]) == {"pixel_auroc": 1.0}
    assert evaluate_maps(None, None, [1.0, 1.0 + 1e-12], [0, 1])["image_auroc"] == 1.0


def test_integers_beyond_float32_are_kept_apart():
    near = np.array([2**24, 2**24 + 1])
    masks = [np.array([[False, True]])]
    assert evaluate_maps(None, None, near, [0, 1])["image_auroc"] == 1.0
    assert (
        evaluate_maps([near[None].astype(np.int32)], masks, [1], [1], ["pixel_auroc"])["pixel_auroc"] == 1.0
    )


def test_maps_of_several_types_are_ranked_in_the_widest():
    maps = [
        np.array([[1, 2]], np.uint8),
        np.array([[1.5]], np.float32),
        np.array([[1.5 + 1e-12]], np.float64),
    ]
    masks = [np.array([[False, False]]), np.array([[False]]), np.array([[True]])]
    assert evaluate_maps(maps, masks, [0, 0, 1], [0, 0, 1], ["pixel_auroc"])["pixel_auroc"] == 2 / 3


@given(order=st.permutations(range(6)), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_images_does_not_matter(order, seed):
    maps, masks, scores, labels = made_set(seed, sizes=RAGGED, levels=3)
    before = evaluate_maps(maps, masks, scores, labels)
    after = evaluate_maps([maps[i] for i in order], [masks[i] for i in order], scores[order], labels[order])
    assert after == pytest.approx(before, abs=1e-13, nan_ok=True)


def test_a_set_taken_twice_has_the_same_values():
    maps, masks, scores, labels = made_set(2, levels=3)
    twice = evaluate_maps(maps * 2, masks * 2, np.tile(scores, 2), np.tile(labels, 2))
    assert twice == pytest.approx(evaluate_maps(maps, masks, scores, labels), abs=1e-13)


def test_turned_scores_turn_auroc():
    maps, masks, scores, labels = made_set(2, levels=3)
    values = evaluate_maps(maps, masks, scores, labels)
    turned = evaluate_maps([-m for m in maps], masks, -scores, labels)
    for name in ("image_auroc", "pixel_auroc"):
        assert turned[name] == pytest.approx(1 - values[name], abs=1e-15)


def test_the_input_is_left_as_it_was():
    maps, masks, scores, labels = made_set(2)
    copies = [m.copy() for m in maps], scores.copy()
    evaluate_maps(maps, masks, scores, labels)
    assert all(np.array_equal(a, b) for a, b in zip(maps, copies[0], strict=True))
    assert np.array_equal(scores, copies[1])


def test_counts_do_not_overflow():
    # 600 x 600 pixels, half of them defective: 3.2e10 pairs, beyond 32 bits.
    values = np.arange(360_000, dtype=np.float32).reshape(600, 600)
    mask = values >= 180_000
    assert evaluate_maps([values], [mask], [1], [1], ["pixel_auroc"])["pixel_auroc"] == 1.0
    assert evaluate_maps([-values], [mask], [1], [1], ["pixel_auroc"])["pixel_auroc"] == 0.0

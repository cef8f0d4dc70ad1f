"""What must leave every value as it is, and what must move it to a known one: on small and on large sets."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import flat, made_loco

from ad_bench.metrics import counting, evaluate
from ad_bench.metrics.truth import PixelTruth

NAMES = [
    *("image_auroc", "image_aupr", "image_f1max"),
    *("pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou"),
    *("pixel_aupro@0.3", "pixel_aupro@0.05", "pixel_aupro@0.01", "pixel_spro", "pixel_spro@0.3"),
]
FLAT_NAMES = NAMES[:7]  # those that do not know where in the image a pixel is
LARGE = 110  # seven maps of 110 x 110 are more pixels than are sorted for being few
KEEP = 1e-13  # sums of floats in another order


@contextmanager
def counting_always():
    """Small sets are counted, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_FEW", 0)
        patch.setattr(counting, "sort_cost", lambda *_: np.inf)
        yield


def values_of(maps, masks, defects, labels=None, scores=None):
    labels = [int(mask.any()) for mask in masks] if labels is None else labels
    scores = [m.max() for m in maps] if scores is None else scores
    return evaluate(maps, PixelTruth.of(masks, None, defects), np.array(scores), labels, NAMES)


@st.composite
def sets(draw):
    """Maps of random sizes with their masks and defects; one defect pixel and one normal one at least."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=5))
    levels = draw(st.sampled_from([1, 3, 40]))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    share = draw(st.sampled_from([0.05, 0.3, 0.7]))
    maps, masks, defects = [], [], []
    for image, shape in enumerate(shapes):
        own = [rng.random(shape) < share for _ in range(rng.integers(1, 4) if image else 0)]
        if image == 1:
            own[0][0, 0] = True
        mask = np.logical_or.reduce(own) if own else np.zeros(shape, bool)
        maps.append((rng.integers(0, levels + 1, shape) / 8).astype(dtype))
        masks.append(mask)
        defects.append([(one, int(rng.integers(1, one.sum() + 1))) for one in own if one.any()])
    return maps, masks, defects


@given(made=sets(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_order_of_images_changes_nothing(made, data):
    order = data.draw(st.permutations(range(len(made[0]))))
    moved = [[part[i] for i in order] for part in made]
    for way in (counting_always, lambda: pytest.MonkeyPatch.context()):
        with way():
            assert values_of(*moved).values == pytest.approx(values_of(*made).values, abs=KEEP, nan_ok=True)


@given(made=sets(), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_order_of_pixels_changes_nothing_that_knows_no_regions(made, seed):
    maps, masks, defects = made
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(m.size) for m in maps]

    def move(arrays):
        return [a.ravel()[order].reshape(a.shape) for a, order in zip(arrays, orders, strict=True)]

    owns = [
        [(one.ravel()[order].reshape(one.shape), s) for one, s in own]
        for own, order in zip(defects, orders, strict=True)
    ]
    with counting_always():
        before, after = (
            values_of(maps, masks, defects).values,
            values_of(move(maps), move(masks), owns).values,
        )
    assert {n: after[n] for n in FLAT_NAMES} == pytest.approx({n: before[n] for n in FLAT_NAMES}, nan_ok=True)
    assert [after[n] for n in NAMES[-2:]] == pytest.approx([before[n] for n in NAMES[-2:]], abs=KEEP)


def test_aupro_knows_the_regions():
    values = [np.array([[3.0, 2.0, 1.0, 1.0, 0.0, 2.0]])]
    together, apart = np.array([[1, 1, 1, 0, 0, 0]], bool), np.array([[1, 1, 0, 1, 0, 0]], bool)
    one = values_of(values, [together], [[(together, 3)]]).values
    two = values_of(values, [apart], [[(apart, 3)]]).values
    assert one["pixel_spro@0.3"] == two["pixel_spro@0.3"]
    assert one["pixel_auroc"] == two["pixel_auroc"]
    assert one["pixel_aupro@0.3"] != two["pixel_aupro@0.3"]


@given(made=sets(), times=st.integers(2, 3))
@settings(max_examples=40, deadline=None)
def test_a_set_taken_several_times_has_the_same_values(made, times):
    with counting_always():
        more = values_of(*(part * times for part in made))
        once = values_of(*made)
    assert more.values == pytest.approx(once.values, abs=KEEP, nan_ok=True)
    assert more.thresholds == once.thresholds


@given(made=sets())
@settings(max_examples=60, deadline=None)
def test_the_complement_has_the_same_auroc(made):
    maps, masks, _ = made
    labels = [int(mask.any()) for mask in masks]
    scores = np.array([m.max() for m in maps])
    names = ["image_auroc", "pixel_auroc"]
    with counting_always():
        one = evaluate(maps, masks, scores, labels, names).values
        other = evaluate(
            [-m for m in maps], [~mask for mask in masks], -scores, [1 - label for label in labels], names
        ).values
    assert other == pytest.approx(one, abs=1e-15, nan_ok=True)


@given(made=sets(), dtype=st.sampled_from([bool, np.uint8, np.float16, np.float32, np.float64]))
@settings(max_examples=60, deadline=None)
def test_a_map_equal_to_its_mask_is_perfect(made, dtype):
    _, masks, defects = made
    if all(mask.all() for mask in masks[1:]):
        masks, defects = masks[:2], defects[:2]
    labels = [int(mask.any()) for mask in masks]
    for way in (counting_always, lambda: pytest.MonkeyPatch.context()):
        with way():
            found = values_of([mask.astype(dtype) for mask in masks], masks, defects, labels, labels)
            assert found.values == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-15)
            assert found.points["pixel"] == {
                **dict.fromkeys(("precision", "recall", "tpr", "iou", "f1"), 1.0),
                "fpr": 0.0,
            }


@given(made=sets(), value=st.sampled_from([-7.0, 0.0, 0.7, 3e4]))
@settings(max_examples=60, deadline=None)
def test_a_constant_map_has_the_documented_values(made, value):
    _, masks, defects = made
    labels = [int(mask.any()) for mask in masks]
    anomalous, share = np.mean(labels), flat(masks).mean()
    with counting_always():
        found = values_of(
            [np.full(mask.shape, value) for mask in masks], masks, defects, labels, [value] * len(masks)
        ).values
    wanted = {
        **{"image_auroc": 0.5, "image_aupr": anomalous, "image_f1max": 2 * anomalous / (1 + anomalous)},
        **{"pixel_auroc": 0.5, "pixel_aupr": share, "pixel_f1max": 2 * share / (1 + share)},
        **{"pixel_iou": share, "pixel_aupro@0.3": 0.15, "pixel_aupro@0.05": 0.025},
        **{"pixel_aupro@0.01": 0.005, "pixel_spro": 0.025, "pixel_spro@0.3": 0.15},
    }
    assert found == pytest.approx(wanted, abs=1e-14)


TRANSFORMS = {
    "exp": np.exp,
    "times 20": lambda s: 20 * s,
    "by 1000": lambda s: s / 1000,
    "-1/s": lambda s: -1 / s,
    "log": np.log,
    "shifted below 0": lambda s: s - 100,
    "exp(exp)": lambda s: np.exp(np.exp(s)),
}


def positive(size, dtype, seed=5, levels=None):
    """Scores from 1 to 3; without levels all different and far enough apart for float32."""
    maps, masks, defects = made_loco(seed, size=size)
    scores = flat(maps)
    rank = np.argsort(np.argsort(scores)) / len(scores)
    scores = 1 + 2 * (np.round(rank * levels) / levels if levels else rank)
    parts = np.split(scores.astype(dtype), len(maps))
    return [part.reshape(size, size) for part in parts], masks, defects


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", [20, LARGE])
@pytest.mark.parametrize(("dtype", "levels"), [(np.float32, 200), (np.float64, 200), (np.float64, None)])
def test_rising_transforms_change_no_bit(transform, size, dtype, levels):
    maps, masks, defects = positive(size, dtype, levels=levels)
    moved = [TRANSFORMS[transform](m) for m in maps]
    assert moved[0].dtype == dtype
    assert len(np.unique(flat(moved))) == len(np.unique(flat(maps)))  # none merged, else it may change
    before, after = values_of(maps, masks, defects), values_of(moved, masks, defects)
    assert after.values == before.values
    assert after.points == before.points
    assert after.thresholds["pixel"] == TRANSFORMS[transform](dtype(before.thresholds["pixel"]))


@pytest.mark.parametrize("size", [20, LARGE])
@pytest.mark.parametrize("levels", [10, 1000])
def test_float16_changes_no_digit_where_it_merges_none(size, levels):
    maps, masks, defects = positive(size, np.float64, levels=levels)
    half = [m.astype(np.float16) for m in maps]
    assert len(np.unique(flat(half))) == len(np.unique(flat(maps)))
    single = [m.astype(np.float32) for m in half]
    assert values_of(half, masks, defects).values == values_of(single, masks, defects).values
    # in float64 a sort may leave the pixels of one score in another order, which rounds their sum otherwise
    assert values_of(maps, masks, defects).values == pytest.approx(
        values_of(half, masks, defects).values, abs=KEEP
    )


@pytest.mark.parametrize("shape", [(1, 70_000), (70_000, 1), (263, 269)])
def test_large_sets_keep_the_properties(shape):
    rng = np.random.default_rng(1)
    mask = rng.random(shape) < 0.02
    values = np.round(50 * (rng.random(shape) + 0.4 * mask)) / 50
    normal = np.round(50 * rng.random((30, 40))) / 50
    defects = [[(mask, 100)], []]
    before = values_of([values, normal], [mask, np.zeros_like(normal, bool)], defects).values
    turned = values_of(
        [normal, values[::-1, ::-1]], [None, mask[::-1, ::-1]], [None, [(mask[::-1, ::-1], 100)]], [0, 1]
    )
    assert turned.values == pytest.approx(before, abs=KEEP)
    other = evaluate([-values], [~mask], [1], [1], ["pixel_auroc"]).values["pixel_auroc"]
    assert other == pytest.approx(
        evaluate([values], [mask], [1], [1], ["pixel_auroc"]).values["pixel_auroc"], abs=1e-15
    )
    perfect = values_of([mask, normal > 2], [mask, normal > 2], defects, scores=[1, 0]).values
    assert perfect == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-14)

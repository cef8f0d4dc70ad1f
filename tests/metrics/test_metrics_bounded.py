"""The way for sets larger than memory: the exact value is enclosed, and no map is held that is not needed."""

import gc
import weakref
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import made_loco, made_set

from ad_bench.errors import PredictionError
from ad_bench.metrics import at_threshold, evaluate, rank_pixels
from ad_bench.metrics import bounded as bounded_way
from ad_bench.metrics.bounded import rank_bounded
from ad_bench.metrics.measures import aupro, auroc, average_precision, f1_max, iou_max, spro
from ad_bench.metrics.truth import PixelTruth

PIXEL = ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro", "pixel_spro"]
LIMITS = [0.01, 0.05, 0.3, 1.0]
ROUNDING = 1e-12
PLAIN = {
    "pixel_auroc": auroc,
    "pixel_aupr": average_precision,
    "pixel_f1max": f1_max,
    "pixel_iou": iou_max,
}
KINDS = {
    "plain": lambda s: s,
    "ties": lambda s: np.round(2 * s) / 2,
    "few levels": lambda s: np.round(s / 2),
    "exp": lambda s: np.exp(20 * s),
    "offset": lambda s: 1000 + 1e-3 * s,
    "two scales": lambda s: np.where(s > 0.5, 1e6 + s, 1e-6 * s),
    "unseen pixels": lambda s: np.where(s < -1, -np.inf, s),
    "unseen and few levels": lambda s: np.where(s < 0, -np.inf, np.round(s)),
    "constant": lambda s: np.full(s.shape, 0.3),
    "denormal": lambda s: s,  # times the smallest number of the type, see a_set
    "huge": lambda s: 5e37 * s,
}


def exact_values(maps, truth):
    ranking = rank_pixels(maps, truth)
    values = {(name, None): measure(ranking) for name, measure in PLAIN.items()}
    for limit in LIMITS:
        values["pixel_aupro", limit] = aupro(ranking, limit)
        values["pixel_spro", limit] = spro(ranking, limit)
    return values


def assert_encloses(bounded, exact):
    for (name, limit), value in exact.items():
        low, high = bounded.enclosure(name, limit)
        assert low - ROUNDING <= value <= high + ROUNDING, (name, limit)
        middle, bound = bounded.measure(name, limit)
        assert abs(value - middle) <= bound, (name, limit)


def a_set(seed, kind, dtype, hide):
    maps, masks, defects = made_loco(seed)
    rng = np.random.default_rng(seed + 99)
    ignore = [rng.random(m.shape) < 0.2 for m in maps] if hide else None
    tiny = 100 * float(np.finfo(dtype).smallest_subnormal) if kind == "denormal" else 1.0
    maps = [(tiny * KINDS[kind](m)).astype(dtype) for m in maps]
    if hide:  # whatever stands there
        maps[0][ignore[0]], maps[1][ignore[1]], maps[2][ignore[2]] = -np.inf, 3e4, np.inf
    return maps, PixelTruth.of(masks, ignore, defects)


@pytest.mark.parametrize("cells", [2, 3, 10, 100, 5000, 1 << 18])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "hide"), [(np.float64, True), (np.float32, False)])
@pytest.mark.filterwarnings("error")
def test_the_exact_value_is_enclosed(kind, cells, dtype, hide):
    for seed in range(2):
        maps, truth = a_set(seed, kind, dtype, hide)
        bounded = rank_bounded(maps, truth, cells=cells)
        assert_encloses(bounded, exact_values(maps, truth))
        assert (bounded.positives, bounded.negatives) == (
            (ranking := rank_pixels(maps, truth, regions=False)).positives,
            ranking.negatives,
        )


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4),
    levels=st.sampled_from([1, 2, 5, 1000]),
    cells=st.sampled_from([2, 3, 5, 17, 300]),
    dtype=st.sampled_from([np.uint8, np.int32, np.float16, np.float32, np.float64]),
    shares=st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.3])),
)
@settings(max_examples=300, deadline=None)
def test_any_small_set_is_enclosed(seed, shapes, levels, cells, dtype, shares):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, levels, shape).astype(dtype) for shape in shapes]
    if maps[0].dtype.kind == "f":
        for values in maps:
            values[rng.random(values.shape) < 0.1] = -np.inf
    masks = [rng.random(shape) < shares[0] for shape in shapes]
    ignore = [rng.random(shape) < shares[1] for shape in shapes]
    defects = [[(mask, int(rng.integers(1, mask.size + 1)))] if mask.any() else [] for mask in masks]
    truth = PixelTruth.of(masks, ignore, defects)
    bounded = rank_bounded(maps, truth, cells=cells)
    ranking = rank_pixels(maps, truth)
    assert bounded.two_classes == ranking.two_classes
    if ranking.two_classes:
        assert_encloses(bounded, exact_values(maps, truth))
        point = bounded.at_best()
        assert point == {"threshold": point["threshold"], **at_threshold(maps, truth, point["threshold"])}


def test_equal_scores_of_defects_are_found_together():
    # The ten normal pixels are above both defects, which tie: both have the precision 2 / 12, which is more
    # than in any order, where the first of them has 1 / 11.
    values = np.array([[5.0] * 10 + [1.0, 1.0]])
    truth = PixelTruth.of([np.array([[0] * 10 + [1, 1]], bool)])
    exact = average_precision(rank_pixels([values], truth))
    assert exact == pytest.approx(2 / 12)
    low, high = rank_bounded([values], truth).enclosure("pixel_aupr")
    assert low - ROUNDING <= exact <= high + ROUNDING


@pytest.mark.parametrize("hits", [1, 2, 3, 17, 60, 400])
@pytest.mark.parametrize("normal", [1, 4, 90])
@pytest.mark.parametrize("first", [1, 2, 6])
def test_the_worst_order_is_the_lower_end(hits, normal, first):
    # `first` defects stand apart, above a cell in which all normal pixels are above all other defects.
    shared = 1000 + 1e-9 * np.arange(hits + normal)
    values = np.concatenate([1001 + np.arange(first), shared])[None]
    mask = np.ones(values.shape, bool)
    mask[0, first + hits :] = False
    truth = PixelTruth.of([mask], None, [[(mask, first)]])
    bounded = rank_bounded([values], truth, cells=50)
    assert (bounded.hits[-1], bounded.ties[-1]) == (hits, normal)
    for (name, limit), value in exact_values([values], truth).items():
        low, high = bounded.enclosure(name, limit)
        assert low - ROUNDING <= value <= high + ROUNDING
        # an integral stands for the later terms of a long sum
        assert value - low <= (1e-4 if name == "pixel_aupr" else ROUNDING)


@pytest.mark.parametrize("kind", ["plain", "exp", "offset", "huge", "unseen pixels"])
def test_more_cells_make_a_smaller_bound(kind):
    maps, truth = a_set(3, kind, np.float64, hide=False)
    names = [(name, None) for name in PLAIN] + [("pixel_aupro", 0.05), ("pixel_spro", 0.05)]
    bounds = [
        [rank_bounded(maps, truth, cells=cells).measure(*name)[1] for name in names]
        for cells in (4, 64, 1024, 1 << 14, 1 << 22)
    ]
    for fewer, more in pairwise(bounds):
        assert all(b <= a + ROUNDING for a, b in zip(fewer, more, strict=True))
    # what is left is a normal pixel or two that share the cell of a defect
    assert all(b <= a / 50 for a, b in zip(bounds[0], bounds[-1], strict=True))
    assert all(b > 1e-3 for b in bounds[0])


@pytest.mark.parametrize("kind", ["plain", "exp", "huge"])
@pytest.mark.parametrize("unseen", [False, True])
def test_scores_that_lie_apart_lose_no_order(kind, unseen):
    # Normal pixels below the lowest and above the highest defect are in no cell with a defect, nor is -inf.
    values = KINDS[kind](np.array([[-3.0, -2.5, -2.0, -1.5, -1.0, 0.0, 0.3, 0.7, 1.0, 1.5, 2.0]]))
    mask = np.array([[0, unseen, 0, 0, 0, 1, 0, 1, 1, 0, 0]], bool)
    if unseen:
        values[0, :2] = -np.inf
    truth = PixelTruth.of([mask], None, [[(mask, 2)]])
    bounded = rank_bounded([values], truth)
    for (name, limit), value in exact_values([values], truth).items():
        assert bounded.enclosure(name, limit) == pytest.approx((value, value), abs=ROUNDING)


def test_tied_scores_of_normal_pixels_alone_cost_nothing():
    maps, masks, _, _ = made_set(2, levels=3)
    truth = PixelTruth.of(masks)
    bounded = rank_bounded(maps, truth)
    # every score has a cell of its own: the F1 of a cell's edge is that of the score
    assert bounded.at_best()["f1"] == pytest.approx(f1_max(rank_pixels(maps, truth)), abs=1e-15)


@pytest.mark.parametrize("cells", [2, 4, 50, 1 << 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_the_best_point_is_what_its_threshold_gives(kind, cells, dtype):
    with np.errstate(over="ignore"):
        maps, truth = a_set(1, kind, dtype, hide=False)
    maps = [np.where(m == np.inf, np.finfo(dtype).max, m) for m in maps]
    point = rank_bounded(maps, truth, cells=cells).at_best()
    assert point == {"threshold": point["threshold"], **at_threshold(maps, truth, point["threshold"])}


@pytest.mark.parametrize("kept", [400, 1000])
def test_cells_are_counted_whenever_room_runs_out(kept, monkeypatch):
    maps, truth = a_set(2, "ties", np.float32, hide=False)
    once = rank_bounded(maps, truth)
    monkeypatch.setattr(bounded_way, "_KEPT", kept)  # pixels; seven maps have 400 each
    often = rank_bounded(maps, truth)
    for name in ("hits", "above", "ties", "edges"):
        assert np.array_equal(getattr(often, name), getattr(once, name))


def test_types_that_differ():
    maps = [
        np.array([[1, 2, 3]], np.uint8),
        np.array([[1.5, 2.5, 0.1]], np.float16),
        np.array([[1.5 + 1e-12, 1e300, -np.inf]], np.float64),
    ]
    masks = [np.array([[0, 1, 0]], bool), None, np.array([[1, 0, 0]], bool)]
    truth = PixelTruth.of(masks, None, [[(masks[0], 1)], [], [(masks[2], 1)]])
    for cells in (2, 1 << 22):
        assert_encloses(rank_bounded(maps, truth, cells=cells), exact_values(maps, truth))


class Stream(Sequence):
    """Makes each map when asked for it, and writes down what is asked for and what is still held."""

    def __init__(self, maps):
        self.maps, self.asked, self.alive, self.most = maps, [], set(), 0

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, image):
        self.asked.append(image)
        made = self.maps[image].copy()
        self.alive.add(image)
        weakref.finalize(made, self.alive.discard, image)
        self.most = max(self.most, len(self.alive))
        return made


def test_maps_are_asked_for_twice_and_let_go():
    maps, truth = a_set(0, "plain", np.float32, hide=True)
    stream = Stream(maps)
    rank_bounded(stream, truth)
    gc.collect()
    assert stream.asked == [*range(7), *range(7)]
    assert stream.most <= 2  # the one before is let go when the next one has come
    assert not stream.alive


def test_evaluate_asks_for_maps_as_it_says():
    maps, truth = a_set(0, "plain", np.float32, hide=False)
    labels = [int(len(spots) > 0) for spots in truth.spots]
    scores = np.arange(7)
    stream = Stream(maps)
    evaluate(stream, truth, scores, labels)
    assert stream.asked == [*range(7)]
    streamed = Stream(maps)
    evaluate(streamed, truth, scores, labels, memory=0)
    assert streamed.asked == [*range(7), *range(7)]
    assert streamed.most <= 2


def test_image_metrics_of_a_stream_hold_no_more_than_one_map():
    maps, truth = a_set(0, "plain", np.float32, hide=False)
    labels = [int(len(spots) > 0) for spots in truth.spots]
    stream = Stream(maps)
    evaluate(stream, truth, np.arange(7), labels, ["image_auroc"], memory=0)
    assert stream.most <= 2


def test_memory_decides_and_says_so():
    maps, truth = a_set(0, "plain", np.float64, hide=False)
    labels = [int(len(spots) > 0) for spots in truth.spots]
    limits = [f"pixel_aupro@{limit}" for limit in LIMITS]
    names = ["image_auroc", "image_aupr", *PIXEL, *limits]
    needed = 4 * 7 * 20 * 20  # as float32
    exact = evaluate(maps, truth, np.arange(7), labels, names, memory=needed)
    assert exact == evaluate(maps, truth, np.arange(7), labels, names)
    assert exact.exact
    assert exact.bounds == {}
    rough = evaluate(maps, truth, np.arange(7), labels, names, memory=needed - 1)
    assert not rough.exact
    assert list(rough.bounds) == [*PIXEL, *limits]  # every pixel metric, and no image metric
    for name, value in exact.values.items():
        assert abs(rough.values[name] - value) <= rough.bounds.get(name, 0.0)
    assert all(0 < bound <= 1e-3 for bound in rough.bounds.values())
    assert rough.thresholds["image"] == exact.thresholds["image"]
    assert rough.points["pixel"] == at_threshold(maps, truth, rough.thresholds["pixel"])
    assert set(rough.points["pixel"]) == set(exact.points["pixel"])


@pytest.mark.parametrize(("value", "text"), [(np.nan, "3 NaN"), (np.inf, r"3 \+inf")])
def test_what_cannot_be_ranked_is_named(value, text):
    maps, truth = a_set(0, "plain", np.float32, hide=False)
    maps[5][2, 4:7] = value
    with pytest.raises(PredictionError, match=rf"anomaly map of image 5 holds {text} in 400 pixels"):
        rank_bounded(maps, truth)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_whatever_stands_where_pixels_are_ignored(value):
    maps, masks, defects = made_loco(6)
    rng = np.random.default_rng(0)
    ignore = [rng.random(m.shape) < 0.3 for m in maps]
    truth = PixelTruth.of(masks, ignore, defects)
    exact = exact_values(maps, truth)
    maps = [np.where(hidden, value, m) for m, hidden in zip(maps, ignore, strict=True)]
    for cells in (10, 1 << 20):
        assert_encloses(rank_bounded(maps, truth, cells=cells), exact)


def test_shapes_that_do_not_fit():
    maps, truth = a_set(0, "plain", np.float32, hide=False)
    with pytest.raises(ValueError, match="got 6 maps, 7 masks"):
        rank_bounded(maps[:6], truth)
    with pytest.raises(ValueError, match=r"map of image 3 has shape \(19, 20\), its mask \(20, 20\)"):
        rank_bounded([*maps[:3], maps[3][1:], *maps[4:]], truth)


def test_what_the_histogram_lacks_is_an_error():
    maps, masks, _, _ = made_set(0)
    bounded = rank_bounded(maps, PixelTruth.of(masks), regions=False)
    for name in ("pixel_aupro", "pixel_spro"):
        with pytest.raises(ValueError, match=f"{name} needs a limit, and a histogram"):
            bounded.enclosure(name, 0.3)


@pytest.mark.filterwarnings("error")
def test_large_sets_have_small_bounds_under_any_scale():
    rng = np.random.default_rng(2)
    masks = [None, *(rng.random((300, 300)) < 0.02 for _ in range(3))]
    maps = [rng.normal(size=(300, 300)) + (0 if mask is None else 1.5 * mask) for mask in masks]
    truth = PixelTruth.of(masks)
    for moved in (maps, [np.exp(5 * m) for m in maps], [1e-3 * m + 7 for m in maps]):
        moved = [m.astype(np.float32) for m in moved]
        found = evaluate(moved, truth, np.arange(4), [0, 1, 1, 1], memory=1e6)
        exact = evaluate(moved, truth, np.arange(4), [0, 1, 1, 1])
        for name, bound in found.bounds.items():
            assert abs(found.values[name] - exact.values[name]) <= bound <= 5e-5

"""Bootstrap intervals: every replicate against re-ranking the images drawn, and what an interval promises."""

from statistics import NormalDist

import numpy as np
import pytest
from metric_oracles import made_set
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from ad_bench.errors import PredictionError, UsageError
from ad_bench.metrics import bootstrap, evaluate_maps
from ad_bench.metrics.bootstrap import (
    bootstrap_images,
    bootstrap_pixels,
    draws,
    replicate_images,
    replicate_pixels,
)
from ad_bench.metrics.truth import PixelTruth

IMAGE = ["image_auroc", "image_aupr", "image_f1max"]
PLAIN = ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou"]
PIXEL = [*PLAIN, "pixel_aupro", "pixel_aupro@0.05", "pixel_aupro@0.01"]
LABELS = np.array([0, 0, 0, 1, 1, 1, 0])


def drawn(weights):
    return np.repeat(np.arange(len(weights)), weights)


def reranked(maps, truth, names, weights):
    """(R, names) the exact metrics of the images that each row of weights draws, ranked from scratch."""
    rows = []
    for row in weights:
        images = drawn(row)
        labels = np.zeros(len(images), int)
        values = evaluate_maps([maps[i] for i in images], truth.subset(images), labels, labels, names)
        rows.append([values[name] for name in names])
    return np.array(rows)


def replicated(maps, truth, names, weights):
    values = replicate_pixels(maps, truth, names, weights)
    return np.stack([values[name] for name in names], axis=1)


def smooth_set(seed, images=24, size=64):
    """Maps whose defects have thousands of distinct scores, a quarter of the images normal."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    maps, masks = [], []
    for image in range(images):
        mask = np.zeros((size, size), bool)
        for _ in range(0 if image % 4 == 0 else rng.integers(1, 4)):
            top, left = rng.integers(0, size, 2)
            mask |= (rows - top) ** 2 + (columns - left) ** 2 < rng.integers(1, 9) ** 2
        noise = gaussian_filter(rng.normal(size=(size, size)), 2) * 7 + rng.normal(scale=0.3)
        maps.append((noise + 2 * gaussian_filter(mask * rng.uniform(0.5, 2.0), 2)).astype(np.float32))
        masks.append(mask)
    return maps, PixelTruth.of(masks), np.array([int(mask.any()) for mask in masks])


@pytest.fixture(scope="module")
def smooth():
    return smooth_set(5)


def test_draws_never_change():
    # Worked out once: who changes this changes every interval ever published.
    assert draws(LABELS, 3, 0).tolist() == [
        [3, 0, 1, 1, 1, 1, 0],
        [1, 2, 0, 3, 0, 0, 1],
        [1, 2, 0, 0, 1, 2, 1],
    ]


def test_draws_keep_the_classes_apart_and_differ_by_seed():
    weights = draws(LABELS, 500, 1)
    assert (weights[:, LABELS == 0].sum(axis=1) == 4).all()
    assert (weights[:, LABELS == 1].sum(axis=1) == 3).all()
    assert (weights != draws(LABELS, 500, 2)).any()
    assert (weights[:20] == draws(LABELS, 20, 1)).all()


def test_draws_are_uniform():
    labels = np.repeat([0, 1], [7, 100])
    weights = draws(labels, 4000, 0)
    for label, count in ((0, 7), (1, 100)):
        own = weights[:, labels == label]
        assert own.mean(axis=0) == pytest.approx(np.ones(count), abs=0.08)  # 5 deviations of the mean
        assert own.var() == pytest.approx(1 - 1 / count, rel=0.05)


@pytest.mark.parametrize("levels", [None, 2])
def test_image_replicates_equal_those_of_repeated_images(levels):
    _, _, scores, labels = made_set(1, images=15, levels=levels)
    scores[:2] += 1.0  # a normal image above some of the anomalous
    weights = draws(labels, 40, 3)
    values = replicate_images(scores, labels, IMAGE, weights)
    for row, images in enumerate(map(drawn, weights)):
        truth = evaluate_maps(None, None, scores[images], labels[images], IMAGE)
        assert {n: values[n][row] for n in IMAGE} == pytest.approx(truth, abs=1e-12, rel=0)
        assert values["image_auroc"][row] == pytest.approx(
            roc_auc_score(labels, scores, sample_weight=weights[row]), abs=1e-12, rel=0
        )
        assert values["image_aupr"][row] == pytest.approx(
            average_precision_score(labels, scores, sample_weight=weights[row]), abs=1e-12, rel=0
        )


def test_image_replicates_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    _, _, scores, labels = made_set(2, images=12, levels=2)
    whole = replicate_images(scores, labels, IMAGE, draws(labels, 50, 0))
    monkeypatch.setattr(bootstrap, "_CHUNK", 30)
    parts = replicate_images(scores, labels, IMAGE, draws(labels, 50, 0))
    assert all((whole[name] == parts[name]).all() for name in IMAGE)


def halves(mask):
    """An image's defects for sPRO: the whole mask, saturated by 3 pixels, and its upper half by 1."""
    upper = mask.copy()
    upper[len(mask) // 2 :] = False
    return [(mask, 3)] + ([(upper, 1)] if upper.any() else [])


SETS = {
    "distinct": {"images": 20},
    "ties": {"levels": 2},
    "float16": {"dtype": np.float16, "levels": 8},
    "ragged": {"sizes": [(24, 24), (7, 31), (1, 1), (40, 3), (13, 24), (24, 5)], "levels": 4},
}


@pytest.mark.parametrize("kind", SETS)
def test_pixel_replicates_are_exact_for_few_scores(kind):
    maps, masks, _, _ = made_set(4, **SETS[kind])
    rng = np.random.default_rng(0)
    ignore = [rng.random(mask.shape) < 0.2 for mask in masks]
    masks = [mask & ~hidden for mask, hidden in zip(masks, ignore, strict=True)]
    for values, hidden in zip(maps, ignore, strict=True):
        values[rng.random(values.shape) < 0.1] = -np.inf  # pixels never seen, defective and normal
        values[hidden] = np.nan  # of no interest
    defects = [halves(mask) if mask.any() else None for mask in masks]
    truth = PixelTruth.of(masks, ignore, defects)
    assert len(np.unique(np.concatenate([m[k] for m, k in zip(maps, masks, strict=True)]))) <= bootstrap.MARKS
    labels = np.array([int(mask.any()) for mask in masks])
    names = [*PIXEL, "pixel_aupro@1", "pixel_spro", "pixel_spro@0.3"]
    weights = draws(labels, 25, 0)
    found = replicated(maps, truth, names, weights)
    assert found == pytest.approx(reranked(maps, truth, names, weights), abs=1e-12, rel=0)


def test_pixel_replicates_are_close_for_many_scores(smooth):
    maps, truth, labels = smooth
    weights = np.vstack([np.ones_like(labels), draws(labels, 60, 0)])
    found = replicated(maps, truth, PIXEL, weights)
    exact = reranked(maps, truth, PIXEL, weights)
    assert np.abs(found[0] - exact[0]).max() < 2e-4
    error = np.abs((found[1:] - found[0]) - (exact[1:] - exact[0]))
    best = np.isin(PIXEL, ["pixel_f1max", "pixel_iou"])  # the one best threshold may lie between two marks
    assert error[:, best].max() < 2.5e-3
    assert error[:, ~best].max() < 6e-4
    assert (error.mean(axis=0) < 0.01 * exact[1:].std(axis=0)).all()


@pytest.mark.parametrize(
    "transform",
    [lambda s: np.exp(8 * s), lambda s: 1e6 + s, lambda s: -1 / (s + 20)],
    ids=["exp", "shifted", "inverse"],
)
def test_marks_hold_whatever_the_scale(smooth, transform):
    """An increasing transform moves no interval at all: the same pixels are marks, in the same order."""
    maps, truth, labels = smooth
    maps = [values.astype(np.float64) for values in maps]
    plain = bootstrap_pixels(maps, truth, PIXEL, 50, labels=labels)
    assert bootstrap_pixels([transform(m) for m in maps], truth, PIXEL, 50, labels=labels) == plain


def test_pixel_intervals_are_those_of_reranked_images(smooth):
    maps, truth, labels = smooth
    exact = evaluate_maps(maps, truth, labels, labels, PIXEL)
    intervals = bootstrap_pixels(maps, truth, PIXEL, 80, 0.9, 7, labels=labels, exact=exact)
    brute = reranked(maps, truth, PIXEL, draws(labels, 80, 7))
    for name, values in zip(PIXEL, brute.T, strict=True):
        ours = intervals[name]
        assert [ours.low, ours.high] == pytest.approx(np.quantile(values, [0.05, 0.95]), abs=1e-3)
        assert ours.se == pytest.approx(values.std(ddof=1), rel=0.02)
        assert ours.low < exact[name] < ours.high


def test_image_intervals_are_quantiles_of_the_replicates():
    _, _, scores, labels = made_set(3, images=20)
    intervals = bootstrap_images(scores, labels, ["pixel_auroc", *IMAGE], 200, 0.8, 4)
    values = replicate_images(scores, labels, IMAGE, draws(labels, 200, 4))
    assert list(intervals) == IMAGE  # pixel metrics are not its own
    for name in IMAGE:
        low, high = np.quantile(values[name], [0.1, 0.9])
        assert intervals[name] == bootstrap.Interval(low, high, np.std(values[name], ddof=1))


def test_intervals_are_moved_to_the_exact_value_and_stay_within_0_and_1(smooth):
    maps, truth, labels = smooth
    name = "pixel_auroc"
    counted = replicate_pixels(maps, truth, [name], np.ones((1, len(maps)), int))[name][0]
    plain = bootstrap_pixels(maps, truth, [name], 50, labels=labels)[name]
    moved = bootstrap_pixels(maps, truth, [name], 50, labels=labels, exact={name: counted - 0.01})[name]
    assert (moved.low, moved.high) == pytest.approx((plain.low - 0.01, plain.high - 0.01), abs=1e-12)
    assert moved.se == plain.se
    assert bootstrap_pixels(maps, truth, [name], 50, labels=labels, exact={name: 1.0})[name].high == 1.0
    assert bootstrap_pixels(maps, truth, [name], 50, labels=labels, exact={name: np.nan}) == {}


def test_the_order_of_images_makes_no_difference_to_a_replicate(smooth):
    maps, truth, labels = smooth
    order = np.random.default_rng(1).permutation(len(maps))
    weights = draws(labels, 30, 0)
    turned = replicated([maps[i] for i in order], truth.subset(order), PIXEL, weights[:, order])
    assert turned == pytest.approx(replicated(maps, truth, PIXEL, weights), abs=1e-12, rel=0)


def test_the_same_seed_gives_the_same_intervals(smooth):
    maps, truth, labels = smooth
    first, again = (bootstrap_pixels(maps, truth, PIXEL, 30, labels=labels) for _ in range(2))
    assert first == again
    assert first != bootstrap_pixels(maps, truth, PIXEL, 30, seed=1, labels=labels)


class Asked:
    """Maps that are made when asked for, and count how often."""

    def __init__(self, maps):
        self.maps, self.times = maps, np.zeros(len(maps), int)

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, image):
        self.times[image] += 1
        return self.maps[image].copy()


def test_each_map_is_asked_for_twice_at_most(smooth):
    maps, truth, labels = smooth
    lazy = Asked(maps)
    assert bootstrap_pixels(lazy, truth, PIXEL, 30, labels=labels) == bootstrap_pixels(
        maps, truth, PIXEL, 30, labels=labels
    )
    assert lazy.times.max() <= 2


def test_constant_maps_and_maps_equal_to_their_masks_do_not_scatter():
    _, masks, _, labels = made_set(6)
    truth = PixelTruth.of(masks)
    perfect = bootstrap_pixels([m.astype(float) for m in masks], truth, PIXEL, 30, labels=labels)
    assert all((i.low, i.high, i.se) == pytest.approx((1, 1, 0), abs=1e-12) for i in perfect.values())
    flat = bootstrap_pixels([np.ones(m.shape) for m in masks], truth, PIXEL, 30, labels=labels)
    assert (flat["pixel_auroc"].low, flat["pixel_auroc"].high) == (0.5, 0.5)
    assert flat["pixel_aupro"].high == pytest.approx(0.15)
    assert flat["pixel_aupr"].se > 0  # the share of defect pixels scatters


def test_no_interval_from_one_image_of_a_class():
    maps, masks, scores, labels = made_set(0)
    truth = PixelTruth.of(masks)
    assert bootstrap_images(scores, labels, IMAGE)
    assert bootstrap_pixels(maps, truth, PLAIN, labels=labels)
    for images in ([0, 2, 3, 4], [0, 1, 2], [2, 3, 4], [0, 1]):  # one normal, one anomalous, none of a class
        assert bootstrap_images(scores[images], labels[images], IMAGE) == {}
    for images in ([0, 2, 3, 4], [0, 1, 2], [0, 1]):
        some = [maps[i] for i in images]
        assert bootstrap_pixels(some, truth.subset(images), PLAIN, labels=labels[images]) == {}
    # Without any normal image there are still normal pixels.
    assert set(bootstrap_pixels(maps[2:], truth.subset([2, 3, 4, 5]), PLAIN, labels=labels[2:])) == set(PLAIN)


def test_no_spro_without_defects(smooth):
    maps, truth, labels = smooth
    assert list(bootstrap_pixels(maps, truth, ["pixel_spro", "pixel_iou"], 5, labels=labels)) == ["pixel_iou"]


def test_replicates_without_a_defect_pixel_are_left_out():
    maps, masks, _, _ = made_set(0, images=8)
    labels = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    masks = [mask if image < 4 else np.zeros_like(mask) for image, mask in enumerate(masks)]
    truth = PixelTruth.of(masks)
    replicates = replicate_pixels(maps, truth, PIXEL, draws(labels, 200, 0))
    empty = draws(labels, 200, 0)[:, 2:4].sum(axis=1) == 0
    assert 0 < empty.sum() < 60
    assert all((np.isnan(values) == empty).all() for values in replicates.values())
    interval = bootstrap_pixels(maps, truth, PIXEL, 200, labels=labels)["pixel_auroc"]
    assert interval.low == pytest.approx(np.quantile(replicates["pixel_auroc"][~empty], 0.025), abs=1e-12)


def test_the_interval_holds_the_true_value_as_often_as_it_says():
    """Normal scores one deviation apart: AUROC is Phi(1 / sqrt 2); 250 test sets of 40 + 40 images."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    truth = NormalDist().cdf(0.5**0.5)
    held, widths, values = 0, [], []
    for trial in range(250):
        scores = rng.normal(size=80) + labels
        interval = bootstrap_images(scores, labels, ["image_auroc"], 200, 0.9, trial)["image_auroc"]
        held += interval.low <= truth <= interval.high
        widths.append(interval.se)
        values.append(evaluate_maps(None, None, scores, labels, ["image_auroc"])["image_auroc"])
    assert 0.85 < held / 250 < 0.94
    assert np.mean(widths) == pytest.approx(np.std(values), rel=0.1)


@pytest.mark.parametrize(("replicates", "level"), [(1, 0.95), (10, 0.0), (10, 1.0), (10, 95)])
def test_refuses_settings_that_make_no_interval(replicates, level):
    maps, masks, scores, labels = made_set(0)
    with pytest.raises(UsageError, match="got"):
        bootstrap_images(scores, labels, IMAGE, replicates, level)
    with pytest.raises(UsageError, match="got"):
        bootstrap_pixels(maps, PixelTruth.of(masks), PIXEL, replicates, level, labels=labels)


def test_refuses_what_cannot_be_ranked():
    maps, masks, scores, labels = made_set(0)
    truth = PixelTruth.of(masks)
    scores[3] = maps[3][0, 0] = np.nan
    with pytest.raises(PredictionError, match="1 NaN"):
        bootstrap_images(scores, labels, IMAGE, 10)
    with pytest.raises(PredictionError, match="image 3 holds 1 NaN"):
        bootstrap_pixels(maps, truth, PIXEL, 10, labels=labels)
    with pytest.raises(ValueError, match="4 maps, 6 masks"):
        bootstrap_pixels(maps[:4], truth, PIXEL, 10, labels=labels)
    with pytest.raises(ValueError, match="got shape"):
        replicate_images(np.arange(6), labels, IMAGE, np.ones((2, 5), int))
    with pytest.raises(UsageError, match="pixel_auroc"):
        bootstrap_pixels(maps, truth, ["pixel_auroq"], 10, labels=labels)

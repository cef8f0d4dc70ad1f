"""What has no value, what is refused, what is left out, and thresholds."""

import subprocess
import sys

import numpy as np
import pytest
from metric_oracles import flat, made_set, sklearn_values
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from ad_bench.errors import PredictionError, UsageError
from ad_bench.metrics import at_threshold, catalogue, check_names, evaluate, evaluate_maps, rank_images
from ad_bench.metrics.truth import PixelTruth

PIXEL = ["pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro"]
IMAGE = ["image_auroc", "image_aupr", "image_f1max"]
WAYS = {"counted or sorted": {}, "sorted by torch": {"device": "cpu"}, "bounded": {"memory": 0}}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def assert_undefined(result, reasons):
    assert result.reasons == reasons
    assert all(np.isnan(result.values[name]) for name in reasons)
    assert not any(np.isnan(value) for name, value in result.values.items() if name not in reasons)


@every_way
def test_no_defect_anywhere(way):
    maps, masks, scores, _ = made_set(1)
    result = evaluate(maps, [np.zeros_like(m) for m in masks], scores, np.zeros(6, int), **way)
    expected = dict.fromkeys(IMAGE, "no anomalous image") | dict.fromkeys(PIXEL, "no defective pixel")
    assert_undefined(result, expected)
    assert result.thresholds == result.points == result.bounds == {}


@every_way
def test_nothing_normal(way):
    maps, masks, scores, _ = made_set(1)
    result = evaluate(maps, [np.ones_like(m) for m in masks], scores, np.ones(6, int), **way)
    expected = dict.fromkeys(IMAGE, "no normal image") | dict.fromkeys(PIXEL, "no normal pixel")
    assert_undefined(result, expected)


@every_way
def test_no_normal_image_but_normal_pixels(way):
    maps, masks, scores, _ = made_set(1)
    result = evaluate(maps[2:], masks[2:], scores[2:], np.ones(4, int), **way)
    assert_undefined(result, dict.fromkeys(IMAGE, "no normal image"))
    assert list(result.thresholds) == list(result.points) == ["pixel"]


@every_way
def test_anomalous_images_with_empty_masks(way):
    maps, masks, scores, labels = made_set(1)
    result = evaluate(maps, [np.zeros_like(m) for m in masks], scores, labels, **way)
    assert_undefined(result, dict.fromkeys(PIXEL, "no defective pixel"))
    assert list(result.thresholds) == list(result.points) == ["image"]


@every_way
def test_empty_set(way):
    result = evaluate([], [], [], [], **way)
    assert_undefined(
        result, dict.fromkeys(IMAGE, "no image to score") | dict.fromkeys(PIXEL, "no pixel to score")
    )


@every_way
def test_all_pixels_ignored(way):
    maps, masks, scores, labels = made_set(1)
    ignore = [np.ones(m.shape, bool) for m in maps]
    result = evaluate(maps, masks, scores, labels, ignore=ignore, **way)
    assert_undefined(result, dict.fromkeys(PIXEL, "no pixel to score"))


@every_way
def test_a_constant_map_has_values(way):
    _, masks, scores, labels = made_set(1)
    result = evaluate([np.full(m.shape, 3.5) for m in masks], masks, scores, labels, PIXEL, **way)
    share = flat(masks).mean()
    wanted = [0.5, share, 2 * share / (1 + share), share, 0.15]
    for name, value in zip(PIXEL, wanted, strict=True):
        assert abs(result.values[name] - value) <= result.bounds.get(name, 1e-15)
    assert result.thresholds["pixel"] == 3.5
    assert result.points["pixel"]["fpr"] == result.points["pixel"]["recall"] == 1.0


def test_a_method_without_maps_and_data_without_masks():
    maps, masks, scores, labels = made_set(1)
    assert list(evaluate_maps(None, masks, scores, labels)) == IMAGE
    assert list(evaluate_maps(maps, None, scores, labels)) == IMAGE
    names = ["image_auroc", "pixel_auroc"]
    assert_undefined(
        evaluate(None, masks, scores, labels, names), {"pixel_auroc": "the method gives no anomaly maps"}
    )
    assert_undefined(
        evaluate(maps, None, scores, labels, names), {"pixel_auroc": "the data set has no masks"}
    )


def test_one_pixel_maps():
    maps, masks = [np.array([[0.2]]), np.array([[0.9]])], [np.array([[False]]), np.array([[True]])]
    assert set(evaluate_maps(maps, masks, [0.2, 0.9], [0, 1]).values()) == {1.0}


def test_none_is_a_mask_without_defect_for_normal_images_only():
    maps, masks, scores, labels = made_set(1)
    blank = [mask if label else None for mask, label in zip(masks, labels, strict=True)]
    assert evaluate_maps(maps, blank, scores, labels) == evaluate_maps(maps, masks, scores, labels)
    with pytest.raises(ValueError, match="image 3 is anomalous but has no mask"):
        evaluate_maps(maps, [*masks[:3], None, *masks[4:]], scores, labels)


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_masks_of_numbers(top, dtype):
    maps, masks, scores, labels = made_set(1)
    numbers = [(mask * top).astype(dtype) for mask in masks]
    assert evaluate_maps(maps, numbers, scores, labels) == evaluate_maps(maps, masks, scores, labels)


@pytest.mark.parametrize("levels", [[0, 128], [0, 1, 255], [0, 254, 255], [-1, 0]])
def test_grey_masks_are_refused(levels):
    mask = np.resize(np.array(levels), (4, 4))
    with pytest.raises(ValueError, match=r"mask of image 0 holds the .* choose a threshold"):
        evaluate_maps([np.zeros((4, 4))], [mask], [1], [1])


@every_way
@pytest.mark.parametrize("names", [None, ["image_auroc"], ["pixel_aupro"]])
@pytest.mark.parametrize(("value", "text"), [(np.nan, "2 NaN"), (np.inf, r"2 \+inf")])
def test_nan_and_inf_name_the_image(names, value, text, way):
    maps, masks, scores, labels = made_set(1)
    maps[4][3, 3:5] = value
    with pytest.raises(PredictionError, match=f"anomaly map of image 4 holds {text} in 576 pixels;"):
        evaluate(maps, masks, scores, labels, names, **way)
    maps[5][0, 0] = value
    one_by_one = way == {"memory": 0} or names == ["image_auroc"]  # then it ends with the first
    with pytest.raises(
        PredictionError, match="image 4 " if one_by_one else r"image 4 .* \(2 images are so\)"
    ):
        evaluate(maps, masks, scores, labels, names, **way)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_an_anomalous_image_without_a_mask_is_refused_whatever_is_ignored(share):
    # else its defects would count as normal pixels
    maps, masks, scores, labels = made_set(1)
    ignore = [None, None, None, np.random.default_rng(0).random((24, 24)) < share, None, None]
    with pytest.raises(ValueError, match="image 3 is anomalous but has no mask"):
        evaluate_maps(maps, [*masks[:3], None, *masks[4:]], scores, labels, ignore=ignore)


def test_a_truth_that_was_read_is_not_read_again():
    maps, masks, scores, labels = made_set(1)
    truth = PixelTruth.of(masks)
    assert evaluate_maps(maps, truth, scores, labels) == evaluate_maps(maps, masks, scores, labels)
    for further in ({"ignore": [None] * 6}, {"defects": [[]] * 6}):
        with pytest.raises(ValueError, match=r"give them to PixelTruth\.of"):
            evaluate_maps(maps, truth, scores, labels, **further)


def test_many_images_of_any_type():
    # 20,000 is far beyond where NumPy changes its ways of sorting, which differ by type
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    scores = np.round(2 * rng.normal(size=20_000) + labels) / 2
    wanted = sklearn_values(scores, labels)
    for dtype in (np.float16, np.float32, np.float64):
        values = evaluate_maps(None, None, scores.astype(dtype), labels)
        assert [values[name] for name in IMAGE] == pytest.approx(wanted, abs=1e-12, rel=0)
        assert (np.diff(rank_images(scores.astype(dtype), labels).scores.astype(float)) < 0).all()


def test_images_that_were_never_seen():
    scores = np.array([-np.inf, 0.1, -np.inf, 0.5])
    assert evaluate_maps(None, None, scores, [1, 0, 0, 1])["image_auroc"] == pytest.approx((2 + 0.5) / 4)


def test_nan_image_score_is_named():
    with pytest.raises(PredictionError, match=r"1 NaN and 1 \+inf among 4 image scores, first at image 1"):
        evaluate_maps(None, None, [0.1, np.nan, np.inf, 1.0], [0, 1, 0, 1])


def test_scores_that_are_no_numbers():
    with pytest.raises(PredictionError, match="complex"):
        evaluate_maps(None, None, np.array([1j, 2.0]), [0, 1])
    with pytest.raises(PredictionError, match="image 0 holds object"):
        evaluate_maps([np.array([[None]])], [np.array([[True]])], [1.0], [1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": [0, 1]}, r"shapes \(6,\) and \(2,\)"),
        ({"labels": [0, 0, 1, 1, 1, 2]}, "got .*2.* for image 5"),
        ({"masks": []}, "6 image scores but 0 masks"),
        ({"maps": [np.zeros((24, 24))]}, "6 image scores but 1 maps"),
        ({"ignore": [None]}, "6 image scores but 1 ignore"),
        ({"maps": [np.zeros((24, 23))] * 6}, r"map of image 0 has shape \(24, 23\), its mask \(24, 24\)"),
        ({"maps": [np.zeros((1, 24, 24))] * 6}, r"is \(H, W\); that of image 0 has shape \(1, 24, 24\)"),
        ({"ignore": [None, np.zeros((2, 2), bool), *[None] * 4]}, r"ignore of image 1 must be bool"),
        ({"ignore": [None, np.zeros((24, 24), int), *[None] * 4]}, r"ignore of image 1 must be bool"),
    ],
)
def test_shapes_that_do_not_fit(change, text):
    maps, masks, scores, labels = made_set(1)
    given = {"maps": maps, "masks": masks, "image_scores": scores, "labels": labels} | change
    with pytest.raises(ValueError, match=text):
        evaluate_maps(**given)


def test_names():
    maps, masks, scores, labels = made_set(1)
    everything = evaluate_maps(maps, masks, scores, labels)
    assert list(everything) == [*IMAGE, *PIXEL]
    assert list(catalogue()) == [*IMAGE, *PIXEL, "pixel_spro"]
    names = ["pixel_aupro@0.05", "image_auroc", "pixel_aupro@0.3"]
    some = evaluate_maps(maps, masks, scores, labels, names)
    assert list(some) == names
    assert some["pixel_aupro@0.3"] == everything["pixel_aupro"] > some["pixel_aupro@0.05"]
    with pytest.raises(UsageError, match=r"no metric 'pixel_aupo'\. Did you mean .*pixel_aupro"):
        check_names(["pixel_aupo"])
    with pytest.raises(UsageError, match=r"no metric 'zzz'\. There are image_auroc, "):
        evaluate_maps(None, None, scores, labels, ["zzz"])
    with pytest.raises(UsageError, match="only pixel_aupro and pixel_spro take a limit; write pixel_auroc"):
        check_names(["pixel_auroc@0.3"])


@pytest.mark.parametrize("name", ["pixel_aupro", "pixel_spro"])
@pytest.mark.parametrize("limit", ["0", "1.5", "-1", "nan", "x", ""])
def test_limits_that_make_no_sense(name, limit):
    with pytest.raises(UsageError, match=rf"in \(0, 1\], as in {name}@"):
        check_names([f"{name}@{limit}"])


def test_the_catalogue_loads_nothing_heavy():
    code = (
        "import sys; from ad_bench.metrics import catalogue; assert len(catalogue()) == 9; "
        "sys.exit(str([m for m in ('torch', 'scipy', 'sklearn', 'pandas') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_unseen_defects_are_missed():
    maps, masks, scores, labels = made_set(4)
    for values, mask in zip(maps, masks, strict=True):
        values[:, :8][mask[:, :8]] = -np.inf
    below = [np.where(np.isinf(m), flat(maps)[np.isfinite(flat(maps))].min() - 1, m) for m in maps]
    values = evaluate_maps(maps, masks, scores, labels)
    assert values == evaluate_maps(below, masks, scores, labels)
    assert flat(maps).min() == -np.inf

    found = np.zeros((4, 4))
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    found[0] = [1, 1, 1, -np.inf]  # one region, one of its four pixels never seen
    result = evaluate_maps([found], [mask], [1], [1])
    assert result["pixel_aupro"] == pytest.approx(0.75)
    assert result["pixel_auroc"] == pytest.approx(0.75)


def test_ignored_pixels_count_for_nothing():
    maps, masks, scores, labels = made_set(4, levels=4)
    ignore = [np.zeros(m.shape, bool) for m in maps]
    for hidden, mask in zip(ignore, masks, strict=True):
        hidden[:, :8] = ~mask[:, :8]
    values = evaluate_maps(maps, masks, scores, labels, ignore=[*ignore[:3], None, *ignore[4:]])
    ignore[3][:] = False
    keep = ~flat(ignore)
    auroc, aupr, f1max = sklearn_values(flat(maps)[keep], flat(masks)[keep])
    assert [values[n] for n in PIXEL[:3]] == pytest.approx([auroc, aupr, f1max], abs=1e-12)
    for image, hidden in enumerate(ignore):  # whatever stands there, NaN included
        maps[image] = np.where(hidden, np.nan, maps[image])
    assert evaluate_maps(maps, masks, scores, labels, ignore=ignore) == values
    assert (
        evaluate_maps(maps, masks, scores, labels, ["image_auroc"], ignore)["image_auroc"]
        == values["image_auroc"]
    )


def test_regions_are_those_of_the_whole_mask():
    # A bar with a pixel left out stays one region, of four pixels: 2 / 4 found, not the mean of 1 and 1 / 3.
    mask = np.array([[True] * 5, [False] * 5])
    found = np.array([[2.0, 2.0, 2.0, 0, 0], [1.0] * 5])
    hidden = np.zeros((2, 5), bool)
    hidden[0, 1] = True
    name = "pixel_aupro@0.5"
    assert evaluate_maps([found], [mask], [1], [1], [name], [hidden])[name] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(3))
def test_at_threshold_equals_scikit_learn(seed):
    maps, masks, _, _ = made_set(seed, levels=4)
    for threshold in (-0.5, 0.0, 0.25, 1.1):
        truth, called = flat(masks), flat(maps) >= threshold
        values = at_threshold(maps, masks, threshold)
        assert values == pytest.approx(
            {
                "precision": precision_score(truth, called),
                "recall": recall_score(truth, called),
                "tpr": recall_score(truth, called),
                "fpr": called[~truth].mean(),
                "iou": jaccard_score(truth, called),
                "f1": f1_score(truth, called),
            }
        )


@pytest.mark.parametrize(
    "options",
    [{}, {"levels": 3}, {"dtype": np.float32}, {"dtype": np.float16}, {"size": 120, "dtype": np.float32}],
)
@pytest.mark.parametrize("hide", [False, True])
def test_the_best_point_is_what_its_threshold_gives(options, hide):
    maps, masks, scores, labels = made_set(9, **options)
    ignore = [np.random.default_rng(0).random(m.shape) < 0.3 for m in maps] if hide else None
    truth = PixelTruth.of(masks, ignore)
    result = evaluate(maps, truth, scores, labels)
    for kind, given in (("pixel", (maps, truth)), ("image", (scores, labels))):
        point = at_threshold(*given, result.thresholds[kind])
        assert point == result.points[kind]  # to the last bit: both from whole numbers
        assert point["f1"] == result.values[f"{kind}_f1max"]
        # and no other score is better
        others = np.unique(flat(given[0]).astype(float))[::7][:60]
        assert max(at_threshold(*given, other)["f1"] for other in others) <= point["f1"]
    assert result.points["pixel"]["iou"] == result.values["pixel_iou"]
    if hide:
        assert at_threshold(maps, masks, result.thresholds["pixel"], ignore) == result.points["pixel"]


def test_the_highest_of_several_best_thresholds():
    # F1 is 2/3 at 3 (one of two found) and at 1 (two of two found, two false ones).
    values, mask = np.array([[3.0, 2.0, 2.0, 1.0]]), np.array([[1, 0, 0, 1]], bool)
    result = evaluate([values], [mask], [1], [1])
    assert result.values["pixel_f1max"] == pytest.approx(2 / 3)
    assert result.thresholds["pixel"] == 3.0
    assert result.points["pixel"]["fpr"] == 0.0


def test_best_is_to_call_everything():
    values, mask = np.array([[-np.inf, 0.5, -np.inf]]), np.array([[1, 0, 1]], bool)
    result = evaluate([values], [mask], [1], [1])
    assert result.thresholds["pixel"] == -np.inf
    assert result.points["pixel"] == at_threshold([values], [mask], -np.inf)
    assert result.points["pixel"]["recall"] == result.points["pixel"]["fpr"] == 1.0


@pytest.mark.parametrize("threshold", [-np.inf, -0.5, 0.0, 0.25, 3.0, np.inf])
def test_at_threshold_of_a_truth_that_was_read(threshold):
    maps, masks, _, _ = made_set(3, levels=4, sizes=[(24, 24), (7, 31), (1, 1), (40, 3), (13, 24), (24, 5)])
    masks[0] = None
    ignore = [np.random.default_rng(i).random(m.shape) < 0.3 if i % 2 else None for i, m in enumerate(maps)]
    keep = ~flat([np.zeros(m.shape, bool) if h is None else h for m, h in zip(maps, ignore, strict=True)])
    defect = flat([np.zeros(m.shape, bool) if k is None else k for m, k in zip(maps, masks, strict=True)])[
        keep
    ]
    called = flat(maps)[keep] >= threshold
    found = at_threshold(maps, PixelTruth.of(masks, ignore), threshold)
    assert found == pytest.approx(at_threshold(maps, masks, threshold, ignore), nan_ok=True)
    assert found["recall"] == found["tpr"] == (called & defect).sum() / defect.sum()
    assert found["fpr"] == (called & ~defect).sum() / (~defect).sum()
    assert found["iou"] == (called & defect).sum() / (called | defect).sum()
    assert found["f1"] == 2 * (called & defect).sum() / (called.sum() + defect.sum())
    if called.any():
        assert found["precision"] == (called & defect).sum() / called.sum()
    else:
        assert np.isnan(found["precision"])


def test_undefined_metrics_have_no_point():
    maps, masks, scores, labels = made_set(1)
    result = evaluate(maps, [np.zeros_like(m) for m in masks], scores, labels)
    assert list(result.points) == ["image"]
    everything = at_threshold(maps, [None] * 6, -np.inf)
    assert (everything["precision"], everything["fpr"]) == (0.0, 1.0)
    assert all(np.isnan(everything[name]) for name in ("recall", "tpr"))


def test_at_threshold_leaves_out_what_is_ignored_and_says_nan():
    values = at_threshold(
        [np.array([[1.0, 0.0]])], [np.array([[True, False]])], 0.5, [np.array([[True, False]])]
    )
    assert values["fpr"] == 0.0
    assert all(np.isnan(values[name]) for name in ("precision", "recall", "tpr", "iou", "f1"))
    with pytest.raises(ValueError, match="threshold is NaN"):
        at_threshold([1.0], [1], float("nan"))
    with pytest.raises(ValueError, match="2 and 1"):
        at_threshold([1.0, 2.0], [1], 0.0)


def test_a_threshold_is_not_rounded_to_the_scores_type():
    half = np.array([0.1, 0.3], np.float16)
    assert at_threshold(half, [0, 1], float(half[1]) + 1e-9)["recall"] == 0.0
    assert at_threshold(half, [0, 1], float(half[1]))["recall"] == 1.0


def test_a_threshold_refuses_what_is_no_number():
    maps, masks, scores, labels = made_set(1)
    maps[2][3, 4] = np.nan  # nan >= t is false: it would count as normal
    with pytest.raises(PredictionError, match="image 2 holds 1 NaN"):
        at_threshold(maps, masks, 0.5)
    with pytest.raises(PredictionError, match="1 NaN among 6 image scores, first at image 5"):
        at_threshold(np.append(scores[:5], np.nan), labels, 0.5)


def test_wider_floats_are_ranked_as_float64():
    maps, masks, scores, labels = made_set(1)
    wide = [m.astype(np.longdouble) for m in maps]
    wanted = evaluate(maps, masks, scores, labels)
    assert evaluate(wide, masks, scores, labels).values == wanted.values
    bounded = evaluate(wide, masks, scores, labels, memory=0)
    assert all(abs(bounded.values[name] - wanted.values[name]) <= b for name, b in bounded.bounds.items())

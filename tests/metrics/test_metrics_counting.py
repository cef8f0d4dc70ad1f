"""Counting pixels by their place must give what sorting them gives: on any scores, any grid, any device."""

import subprocess
import sys
import warnings
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import brute_ranking, flat

from ad_bench.metrics import counting, rank_pixels, ranking
from ad_bench.metrics.grid import Grid, place_of, score_at
from ad_bench.metrics.truth import PixelTruth

SHAPES = [(150, 203), (1, 77), (211, 180), (40, 3)]  # 68,627 pixels: more than are sorted for being few
FIELDS = ("scores", "hits", "above", "ties")
KINDS = {
    "plain": lambda rng, truth: rng.normal(size=truth.size) + 1.5 * truth,
    "quarters": lambda rng, truth: np.round(4 * rng.normal(size=truth.size) + 4 * truth) / 4,
    "256 levels": lambda rng, truth: np.round(255 * (rng.random(truth.size) + 0.3 * truth) / 1.3) / 255,
    "two levels": lambda rng, truth: (rng.random(truth.size) < 0.2 + 0.5 * truth).astype(float),
    "heavy tails": lambda rng, truth: np.exp(20 * np.clip(rng.normal(size=truth.size) + truth, -4, 4)),
    "zeros of both signs": lambda rng, truth: (
        rng.normal(size=truth.size) * (rng.random(truth.size) < 0.5 + 0.2 * truth)
    ),
    "all negative": lambda rng, truth: -np.exp(rng.normal(size=truth.size)) + 0.1 * truth,
    "offset": lambda rng, truth: 1000 + 1e-3 * (rng.normal(size=truth.size) + truth),
    "two scales": lambda rng, truth: np.where(
        rng.random(truth.size) < 0.5, 1e-6 * rng.normal(size=truth.size), 1e3 + rng.random(truth.size)
    ),
    "denormal": lambda rng, truth: np.array([1e-42, 1e-310])[0] * rng.normal(size=truth.size),
    "huge": lambda rng, truth: 2.9 * (2 * rng.random(truth.size) - 1),  # times what the type holds, see scene
    "unseen defects": lambda rng, truth: np.where(
        truth & (rng.random(truth.size) < 0.3), -np.inf, rng.normal(size=truth.size) + truth
    ),
    "unseen pixels": lambda rng, truth: np.where(
        rng.random(truth.size) < 0.3, -np.inf, rng.normal(size=truth.size) + truth
    ),
    "no defect seen": lambda rng, truth: np.where(truth, -np.inf, rng.normal(size=truth.size)),
    "one defect score": lambda rng, truth: np.where(truth, 0.5, np.round(rng.random(truth.size), 2)),
    "one defect score and unseen": lambda rng, truth: np.where(
        truth, np.where(rng.random(truth.size) < 0.5, 0.5, -np.inf), np.round(rng.random(truth.size), 2)
    ),
    "constant": lambda rng, truth: np.full(truth.size, 0.7),
    # as many normal pixels as possible where the defects crowd: most must be searched for
    "normal pixels among the defects": lambda rng, truth: np.where(
        truth | (rng.random(truth.size) < 0.9), 1 + 1e-3 * rng.random(truth.size), 50 * rng.random(truth.size)
    ),
    "defects close together": lambda rng, truth: np.where(
        truth, 1 + 1e-5 * rng.random(truth.size), 1e4 * rng.normal(size=truth.size)
    ),
}
TOP = {"float16": 2.2e4, "float32": 1.1e38, "float64": 6e307}
TINY = {"float16": 1e36, "float32": 1.0, "float64": 1e-270}  # what brings 1e-42 to the denormals of the type


@lru_cache
def scene(kind, dtype, seed=0, shapes=tuple(SHAPES), hide=False):
    """Maps, masks, what is ignored, and the ranking that a plain sort gives."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros(shape, bool) for shape in shapes]
    for mask in masks[::2]:
        for _ in range(30):
            top, left = (int(rng.integers(0, n)) for n in mask.shape)
            mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
    truth = flat(masks)
    scores = KINDS[kind](rng, truth)
    scores = scores * {"huge": TOP[dtype], "denormal": TINY[dtype]}.get(kind, 1.0)
    if dtype == "float16":
        scores = np.where(np.isfinite(scores), np.clip(scores, -6e4, 6e4), scores)
    with np.errstate(under="ignore"):
        scores = scores.astype(dtype)
    ends = np.cumsum([mask.size for mask in masks])
    maps = [part.reshape(shape) for part, shape in zip(np.split(scores, ends[:-1]), shapes, strict=True)]
    ignore = [rng.random(shape) < 0.2 for shape in shapes] if hide else None
    keep = ~flat(ignore) if hide else np.ones(len(truth), bool)
    return maps, masks, ignore, brute_ranking(scores[keep], truth[keep])


def assert_same(found, wanted):
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), wanted[name]), name
    assert found.positives == wanted["hits"].sum()


class OneGrid:
    """Stands for Grid in the counting: the grid of one kind, or none."""

    def __init__(self, ordered):
        self.wanted = ordered

    def between(self, low, high, cells, dtype, ordered):
        return Grid.between(low, high, cells, dtype, ordered) if ordered is self.wanted else None


WAYS = [
    "as it chooses",
    "equal width",
    "floating-point order",
    "equal width, no torch",
    "parted",
    "parted, no torch",
    "sorted",
    "device",
]


@pytest.fixture
def counted(monkeypatch):
    """What was counted: a list that grows with each ranking that did not sort."""
    made = []
    for way in (counting.Places, counting.Parts):
        finish = way.finish
        monkeypatch.setattr(way, "finish", lambda self, finish=finish: made.append(self) or finish(self))
    return made


def part_early(monkeypatch):
    """Pixels are parted however few defect scores there are, into small parts that are counted often."""
    for name, value in (("_MANY", 3), ("_COLUMNS", 40), ("_RANGE", 16), ("_PARTED", 5000), ("_HELD", 1)):
        monkeypatch.setattr(counting, name, value)


def sorts_slowly(monkeypatch):
    """As NumPy does with AVX-512 on some processors: then counting pays."""
    monkeypatch.setattr(counting, "_sort_step", lambda kind: 1.0)


def take(way, monkeypatch):
    if way == "sorted":
        monkeypatch.setattr(counting, "sort_cost", lambda *_: -1.0)  # nothing is as cheap
    elif way not in ("as it chooses", "device"):
        monkeypatch.setattr(counting, "sort_cost", lambda *_: np.inf)
        if "parted" in way:
            part_early(monkeypatch)
        else:
            monkeypatch.setattr(counting, "Grid", OneGrid(way == "floating-point order"))
    if "no torch" in way:
        monkeypatch.delitem(sys.modules, "torch")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("error")
def test_any_way_ranks_as_a_plain_sort(kind, dtype, way, monkeypatch, counted):
    maps, masks, _, wanted = scene(kind, dtype)
    take(way, monkeypatch)
    found = rank_pixels(maps, masks, regions=False, device="cpu" if way == "device" else None)
    assert_same(found, wanted)
    if way in ("sorted", "device") or np.isfinite(wanted["scores"]).sum() < 2:  # one score makes no grid
        assert not counted
    elif way == "floating-point order" or (way != "as it chooses" and kind not in ("huge", "denormal")):
        parted = "parted" in way and np.isfinite(wanted["scores"]).sum() > 3
        assert [type(one) for one in counted] == [counting.Parts if parted else counting.Places]


@pytest.mark.parametrize("way", WAYS[:6])
@pytest.mark.parametrize("kind", ["plain", "quarters", "heavy tails", "unseen pixels", "two scales"])
def test_what_is_ignored_is_not_counted(kind, way, monkeypatch):
    maps, masks, ignore, wanted = scene(kind, "float32", shapes=((301, 203), (160, 170)), hide=True)
    take(way, monkeypatch)
    assert_same(rank_pixels(maps, PixelTruth.of(masks, ignore), regions=False), wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.filterwarnings("error")
def test_whatever_stands_where_pixels_are_ignored(value):
    maps, masks, ignore, wanted = scene("plain", "float32", shapes=((301, 203), (160, 170)), hide=True)
    maps = [np.where(hidden, np.float32(value), m) for m, hidden in zip(maps, ignore, strict=True)]
    assert_same(rank_pixels(maps, PixelTruth.of(masks, ignore), regions=False), wanted)


@pytest.mark.parametrize("block", [1, 100, 5000, 1 << 15])
@pytest.mark.parametrize("torch_loaded", [True, False])
def test_blocks_may_end_anywhere(block, torch_loaded, monkeypatch):
    maps, masks, ignore, wanted = scene("quarters", "float32", shapes=((301, 3), (31, 170)), hide=True)
    monkeypatch.setattr(counting, "_FEW", 0)
    monkeypatch.setattr(counting, "sort_cost", lambda *_: np.inf)
    monkeypatch.setattr(counting, "_KEPT", 2 * block)  # counted again and again
    for module in (counting, ranking):
        monkeypatch.setattr(module, "BLOCK", block)
    if not torch_loaded:
        monkeypatch.delitem(sys.modules, "torch")
    assert_same(rank_pixels(maps, PixelTruth.of(masks, ignore), regions=False), wanted)


@pytest.mark.parametrize(("step", "sorts"), [(0.01, True), (10.0, False)])
def test_a_processor_that_sorts_quickly_sorts(step, sorts, monkeypatch, counted):
    monkeypatch.setattr(counting, "_sort_step", lambda kind: step)
    maps, masks, _, wanted = scene("plain", "float32")
    assert_same(rank_pixels(maps, masks, regions=False), wanted)
    assert bool(counted) is not sorts


def test_how_quickly_a_processor_sorts_is_tried_once():
    counting._sort_step.cache_clear()
    kind = np.dtype(np.float32)
    assert 0 < counting.sort_cost(kind, 1 << 20, 100) < counting.sort_cost(kind, 1 << 24, 10_000)
    counting.sort_cost(kind, 1 << 22, 1)
    assert counting._sort_step.cache_info().misses == 1


@pytest.mark.parametrize("cells", [4, 1 << 12])
def test_counts_may_be_read_on_the_way(cells):
    rng = np.random.default_rng(0)
    rising = np.unique(np.round(rng.normal(size=300), 2))
    places = counting.Places(rising, Grid.between(rising[0], rising[-1], cells, rising.dtype, False))
    every = np.round(rng.normal(size=3000), 2)
    for end in (1000, 2000, 3000):
        places.add(every[end - 1000 : end])
        left, right = (np.searchsorted(rising, every[:end], side=side) for side in ("left", "right"))
        assert np.array_equal(places.finish(), np.bincount(left + right, minlength=2 * len(rising) + 1))


@pytest.mark.parametrize("kind", ["plain", "normal pixels among the defects"])
def test_more_pixels_than_are_kept_at_once(kind, monkeypatch, counted):
    sorts_slowly(monkeypatch)
    shapes = ((1100, 1000), (1030, 1024), (1024, 1024), (1301, 1000))
    assert sum(h * w for h, w in shapes) > counting._KEPT + counting.BLOCK
    maps, masks, _, wanted = scene(kind, "float32", shapes=shapes)
    assert_same(rank_pixels(maps, masks, regions=False), wanted)
    assert counted or kind != "plain"


def test_many_defect_scores_are_parted(monkeypatch, counted):
    sorts_slowly(monkeypatch)
    # More of them than a table in the cache can tell apart; among the pixels ties and crowds.
    rng = np.random.default_rng(0)
    mask = rng.random((1200, 1200)) < 0.3
    values = (rng.normal(size=mask.shape) ** 3 + mask).astype(np.float32)
    values[:400] = np.round(1000 * values[:400]) / 1000
    assert_same(rank_pixels([values], [mask], regions=False), brute_ranking(values.ravel(), mask.ravel()))
    assert [type(one) for one in counted] == [counting.Parts]


def test_the_grid_follows_the_scores(monkeypatch, counted):
    sorts_slowly(monkeypatch)
    # After exp() cells of equal width hold nearly all pixels in one: then the other grid must be taken.
    for kind, ordered in (("plain", False), ("heavy tails", True)):
        rank_pixels(*scene(kind, "float32")[:2], regions=False)
        assert counted[-1].grid.ordered is ordered
    assert len(counted) == 2


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, -np.inf]),
)


@given(
    values=st.lists(st.tuples(FLOATS, st.booleans()), min_size=1, max_size=40),
    ordered=st.booleans(),
    wide=st.booleans(),
    parted=st.booleans(),
    smallest=st.sampled_from([2, 16, 1 << 12]),
)
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("error")
def test_any_floats_are_counted_as_sorted(values, ordered, wide, parted, smallest):
    scores = np.array([value for value, _ in values], np.float64 if wide else np.float32)
    truth = np.array([defect for _, defect in values])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_FEW", 0)
        patch.setattr(counting, "sort_cost", lambda *_: np.inf)
        patch.setattr(counting, "_CELLS", (smallest, 1 << 22))
        patch.setattr(counting, "Grid", OneGrid(ordered))
        if parted:
            part_early(patch)
        found = rank_pixels([scores[None]], [truth[None]], regions=False)
    assert_same(found, brute_ranking(scores, truth))


@given(st.lists(FLOATS, min_size=2, max_size=30), st.booleans(), st.booleans(), st.integers(2, 1 << 22))
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("error")
def test_a_grid_swaps_no_two_scores(values, ordered, wide, cells):
    kind = np.dtype(np.float64 if wide else np.float32)
    rising = np.sort(np.array(values, kind))
    finite = rising[np.isfinite(rising)]
    low, high = (finite[len(finite) // 4], finite[-1 - len(finite) // 4]) if len(finite) else (0, 1)
    grid = Grid.between(low, high, cells, kind, ordered)
    if grid is not None:
        own = grid.of(rising)
        assert (np.diff(own) >= 0).all()
        assert own.min() >= 0
        assert own.max() <= cells
        assert (own[rising == low] >= 1).all()  # so that cell 0 holds nothing but what is below


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_places_follow_each_other_as_the_floats_do(dtype):
    one = np.array([-np.inf, -1.5, -1e-45, -0.0, 0.0, 1e-310, 1.0, 3e38], dtype)
    assert place_of(one).tolist() == sorted(place_of(one).tolist())
    assert place_of(one)[3] == place_of(one)[4] == 0
    up = np.nextafter(one[4:], dtype(np.inf))
    assert (place_of(up) == place_of(one[4:]) + 1).all()
    assert (score_at(place_of(one), np.dtype(dtype)) == one).all()


def test_the_values_do_not_depend_on_torch_being_loaded():
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from ad_bench.metrics import evaluate_maps\n"
        "rng = np.random.default_rng(3)\n"
        "for levels in (4, 10_000):\n"
        "    mask = np.kron(rng.random((50, 50)) < 0.02, np.ones((6, 6), bool))\n"
        "    scores = np.round(levels * (rng.random(mask.shape) + mask)) / levels\n"
        "    values = evaluate_maps([scores], [mask], [1], [1])\n"
        "    print({name: value.hex() for name, value in values.items()})\n"
        "print('torch' in sys.modules)"
    )
    without, with_torch = (
        subprocess.run(
            [sys.executable, "-c", start + code], capture_output=True, text=True, check=True
        ).stdout
        for start in ("", "import torch; ")
    )
    assert "pixel_aupro" in without
    assert without.removesuffix("False\n") == with_torch.removesuffix("True\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: torch.cuda finds none")
def test_a_cuda_device_ranks_alike(kind):
    for dtype in ("float32", "float64"):
        maps, masks, _, wanted = scene(kind, dtype)
        assert_same(rank_pixels(maps, masks, regions=False, device="cuda"), wanted)


def test_no_warning_reaches_the_caller():
    # Defects close together make narrow cells, and far from them a normal pixel overflows: which is no fault.
    rng = np.random.default_rng(0)
    mask = rng.random((300, 300)) < 0.02
    values = np.where(mask, 1 + 1e-5 * rng.random(mask.shape), rng.normal(size=mask.shape)).astype(np.float32)
    values[0, :2] = 3e38, -3e38
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rank_pixels([values], [mask], regions=False)
    assert_same(found, brute_ranking(values.ravel(), mask.ravel()))

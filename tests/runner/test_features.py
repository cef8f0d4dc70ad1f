"""Features that fits share: computed once, the same to the last bit, and never where they might not be."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench import config
from ad_bench.errors import UsageError
from ad_bench.geometry import Geometry
from ad_bench.parts.backbone import Backbone
from ad_bench.runner import features, kept, packs, room
from ad_bench.runner.plan import Fit, Sharing, make_plan
from ad_bench.runner.sweep import run_plan
from ad_bench.runner.trainset import to_device
from ad_bench.samples import Sample
from tests.runner.test_kept import write_weights

TINY = "test_resnet.r160_in1k"
CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    features.end()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each batch that a backbone has computed."""
    found: list[int] = []
    plain = Backbone.features

    def counted(self: Backbone, images: Tensor) -> list[Tensor]:
        found.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(Backbone, "features", counted)
    return found


def opened(layers: tuple[int, ...] = (1, 2, 3), limit: float = 1e9) -> features.FeatureMemory:
    return features.FeatureMemory(Sharing((), frozenset(layers)), limit)


def backbone(
    memory: features.FeatureMemory, layers: tuple[int, ...] = (1, 2, 3), weights: str = "random"
) -> Backbone:
    network = kept.backbone(TINY, layers, weights)
    assert isinstance(network, Backbone)
    memory.attach(network)
    return network


def batch(pixels: np.ndarray = PIXELS) -> Tensor:
    return features.recurring(to_device(pixels, CPU), pixels)


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(
        torch.equal(one, other) and one.stride() == other.stride()
        for one, other in zip(some, others, strict=True)
    )


# ---- one batch -------------------------------------------------------------------------------------------


def test_a_batch_is_computed_once_for_all_who_read_it(computed: list[int]) -> None:
    memory = opened()
    wanted = kept.backbone(TINY, (1, 2, 3), "random")(batch())
    computed.clear()
    for _ in range(3):  # methods of their own, with networks of their own
        assert equal(backbone(memory)(batch()), wanted)
    assert equal(backbone(memory, (2, 3))(batch()), wanted[1:])  # layers are kept apart
    assert computed == [3]
    assert (memory.asked, memory.reused) == (4, 3)


def test_what_may_differ_is_computed(computed: list[int]) -> None:
    """Other pixels, layers or precision; a batch of other size; less deep: it has no time of its own."""
    memory = opened()
    backbone(memory, (2, 3))(batch())
    changed = PIXELS.copy()
    changed[2, 47, 47, 2] ^= 1
    backbone(memory, (2, 3))(batch(changed))
    backbone(memory, (1, 3))(batch())
    backbone(memory, (2,))(batch())
    half = backbone(memory, (2, 3))
    half.precision = torch.bfloat16
    half(batch())
    backbone(memory, (2, 3))(batch(PIXELS[:2]))
    assert computed == [3, 3, 3, 3, 3, 2]
    assert memory.reused == 0
    backbone(memory, (1, 2, 3))(batch())  # each of its layers came from another
    assert memory.reused == 1


def test_other_weights_have_other_features(computed: list[int], tmp_path: Path) -> None:
    memory, path = opened(), tmp_path / "weights.safetensors"
    for scale, count in ((1.0, 1), (2.0, 2)):  # under the same name
        write_weights(path, scale)
        for _ in range(2):
            backbone(memory, (2, 3), str(path))(batch())
        assert len(computed) == count


def test_a_batch_that_is_not_said_to_recur_or_was_written_to_is_not_looked_up(computed: list[int]) -> None:
    memory = opened()
    network = backbone(memory)
    network(batch())
    images = batch()
    network(images.flip(3))
    network(to_device(PIXELS, CPU))
    wanted = network.features(images.mul(2))
    assert equal(network(images.mul_(2)), wanted)
    network(batch().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        network(batch())
    assert memory.asked == 1
    assert len(computed) == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda network: next(network.parameters()).detach().mul_(2),
        lambda network: network.mean.add_(0.1),
        lambda network: network.requires_grad_(True),
        lambda network: network.network.register_forward_hook(lambda *_: None),
        lambda network: setattr(network.network.layer1, "0", nn.Identity()),
    ],
    ids=["weights", "normalisation", "training", "listening", "layers"],
)
def test_a_network_that_its_method_changed_computes_for_itself(change: Any, computed: list[int]) -> None:
    memory = opened()
    backbone(memory)(batch())
    network = backbone(memory)
    change(network)
    network(batch())
    copy.deepcopy(backbone(memory))(batch())  # whose it is, nobody knows
    assert len(computed) == 3
    assert memory.asked == 1


def test_who_writes_into_features_spoils_none(computed: list[int]) -> None:
    memory = opened()
    network = backbone(memory)
    wanted = [maps.clone() for maps in network.features(batch())]
    for _ in range(3):
        found = network(batch())
        assert equal(found, wanted)
        for maps in found:
            maps.zero_()
    assert len(computed) == 2


def test_only_layers_that_others_read_are_kept(computed: list[int]) -> None:
    memory = opened((2,))
    first = backbone(memory)
    size = first(batch())[1].nbytes
    assert memory.bytes == size
    backbone(memory, (2, 3))(batch())
    assert memory.reused == 0
    assert memory.bytes == size


def test_the_bounds_hold_and_what_came_first_stays(
    computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sum(maps.nbytes for maps in backbone(opened())(batch()))
    memory = opened(limit=2.5 * one)
    network = backbone(memory)
    batches = [PIXELS + number for number in range(4)]
    computed.clear()
    for _ in range(2):
        for pixels in batches:
            network(batch(pixels))
    assert memory.bytes == 2 * one
    assert len(computed) == 4 + 2
    memory = opened()
    monkeypatch.setattr(features, "available", lambda: 1.5 * one)  # it takes no more than it leaves
    for pixels in batches:
        backbone(memory)(batch(pixels))
    assert memory.bytes == one


# ---- what the runner sees --------------------------------------------------------------------------------


def fit(sharing: Sharing | None, limit: object = 2) -> Any:
    return SimpleNamespace(
        sharing=sharing, config=SimpleNamespace(runtime=SimpleNamespace(feature_memory_gb=limit))
    )


def test_a_memory_lasts_as_long_as_its_group() -> None:
    one, same, other = (Sharing((name,), frozenset({1})) for name in "aab")
    features.begin(fit(one))
    memory = features._open
    assert memory is not None
    backbone(memory)(batch())
    features.begin(fit(same))
    assert features._open is memory
    assert memory.bytes > 0
    features.begin(fit(other))
    assert features._open is not memory
    assert memory.bytes == 0
    for alone in (fit(None), fit(one, 0)):
        features.begin(fit(other))
        features.begin(alone)
        assert features._open is None


@pytest.mark.parametrize("limit", [-1, "2GB", None, float("nan")])
def test_a_limit_that_means_nothing_is_refused(limit: object) -> None:
    with pytest.raises(UsageError, match=r"runtime\.feature_memory_gb=.*0 for none"):
        features.begin(fit(None, limit))


def test_seconds_are_those_that_computing_would_have_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Backbone.features

    def slow(self: Backbone, images: Tensor) -> list[Tensor]:
        time.sleep(0.3)
        return plain(self, images)

    monkeypatch.setattr(Backbone, "features", slow)
    features.begin(fit(Sharing((), frozenset({1, 2, 3}))))
    network = kept.backbone(TINY, (1, 2, 3), "random")
    features.attach(network)
    network(batch())
    stopwatch, start = features.Stopwatch(CPU), time.perf_counter()
    network(batch())
    assert time.perf_counter() - start < 0.2
    assert stopwatch.seconds() > 0.3
    assert stopwatch.batches() == (1, 1)


def test_the_peak_of_a_cell_leaves_out_what_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(nn.Module):
        layers, precision = (1,), torch.float32

        def features(self, images: Tensor) -> list[Tensor]:
            return [torch.ones(len(images), 8, 1024, 1024)]  # 96 MiB

        def forward(self, images: Tensor) -> list[Tensor]:
            return self.memory(self, images)  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(features, "origin", lambda network: ("large",))
    features.begin(fit(Sharing((), frozenset({1}))))
    network = Large()
    features.attach(network)
    network(batch())  # the allocator has seen such sizes
    before = features.PeakMemory(CPU)
    if not before.since_start:
        pytest.skip("this system does not let a process set back its peak")
    start = before.host()
    for number in range(1, 5):
        network(batch(PIXELS + number))
    assert features._open is not None
    assert features._open.bytes == 5 * 96 * 2**20
    assert before.host() - start < 2.5 * 96 * 2**20  # what was computed, and its copy for a moment


def test_only_plain_batches_of_a_training_set_say_that_they_recur() -> None:
    samples = [Sample(Path(f"{n}.png"), f"{n}.png", "a", "train", 0) for n in range(3)]
    sizes = np.full((3, 2), 48)
    train = features.Recurring(samples, PIXELS, sizes, Geometry(size=(48, 48)), CPU, 2, 0)
    pixels = [one.images.recurs[0] for one in train.batches()]  # type: ignore[attr-defined]
    assert np.array_equal(np.concatenate(pixels), PIXELS)
    for changed in (train.batches(shuffle=True), train.batches(augment=lambda image: image)):
        assert not any(hasattr(one.images, "recurs") for one in changed)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("0::/jobs/mine", ("memory.max", "memory.current", "inactive_file")),
        ("4:memory:/jobs/mine", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ],
)
def test_the_tightest_limit_of_the_own_cgroups_counts(
    line: str, names: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, most in (("", 10**9), ("jobs", 500), ("jobs/mine", "max")):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in zip((*names[:2], "memory.stat"), (most, 400, f"x 1\n{names[2]} 30"), strict=True):
            (tmp_path / folder / name).write_text(str(text))
    layouts = tuple((beginning, str(tmp_path), *rest) for beginning, _, *rest in room.CGROUPS)
    monkeypatch.setattr(room, "CGROUPS", layouts)
    assert min(room._left([line])) == 130
    assert 0 < room.available() < float("inf") or not Path("/proc/meminfo").exists()


# ---- a sweep ---------------------------------------------------------------------------------------------


@pytest.fixture
def plan_of(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def plan(*words: str) -> Any:
        common = ("dataset=mvtec", "backbone=bundled", "runtime.device=cpu", "runtime.latency_repeats=1")
        return make_plan(config.choices([*common, *words], [], True))

    return plan


def test_fits_that_share_come_together_and_most_layers_first(plan_of: Any) -> None:
    words = (
        "method=patchcore,stfpm,mean_image,padim",
        "method.loader.batch_size=4",
        "dataset.input={size: 64, interpolation: bilinear}",
    )
    fits: list[Fit] = packs.together(packs.warm(plan_of(*words).fits))
    assert [(one.group.name, one.cells[0].id.method) for one in fits if one.sharing] == [
        (category, method) for category in ("bottle", "cable") for method in ("stfpm", "padim", "patchcore")
    ]
    assert [one.cells[0].id.method for one in fits if not one.sharing] == ["mean_image"] * 2
    assert len({one.sharing for one in fits}) == 3
    assert fits[1].sharing.layers == {1, 2, 3}


@pytest.mark.parametrize(
    "words",
    [
        ("method=padim", "seed=0"),
        ("method=padim", "method.model.dimensions=5", "method.model.backbone.layers=[1],[2]"),
        ("method=padim", "method.loader.batch_size=4,8"),
        ("method=padim", "seed=0,1", "runtime.feature_memory_gb=0"),
    ],
    ids=["alone", "other layers", "other batches", "off"],
)
def test_who_shares_nothing_has_no_memory(words: tuple[str, ...], plan_of: Any) -> None:
    assert all(one.sharing is None for one in packs.together(plan_of(*words).fits))


def test_a_sweep_has_the_same_results_and_computes_each_batch_once(
    plan_of: Any, tmp_path: Path, computed: list[int]
) -> None:
    """Memory banks, Gaussians, retrieval, and a network that trains on the features."""
    words = (
        "method=patchcore,padim,spade,stfpm",
        "category=bottle",
        "seed=0,1",
        "method.loader.batch_size=4",
        "dataset.input={size: 64, interpolation: bilinear}",
    )
    found, batches = {}, {}
    for gigabytes in (2, 0):
        computed.clear()
        results = tmp_path / f"results{gigabytes}"
        more = (f"paths.results={results}", f"runtime.feature_memory_gb={gigabytes}", "runtime.quick=true")
        assert run_plan(plan_of(*words, *more)) == 0
        assert features._open is None
        files = sorted(results.rglob("record.json"))
        records = [json.loads(path.read_text()) for path in files]
        assert len(records) == 8
        found[gigabytes] = [
            (record["method"], record["metrics"], (path.parent / "samples.csv").read_text())
            for path, record in zip(files, records, strict=True)
        ]
        whole = [record for record in records if record["method"] != "stfpm"]
        shares = [record["timing"].get("features_reused") for record in whole]
        assert shares.count(1.0) == (5 if gigabytes else 0)
        assert shares.count(None) == (0 if gigabytes else 6)
        batches[gigabytes] = sum(size > 1 for size in computed)  # the others are of latencies and operations
    assert found[2] == found[0]
    # 6 images train and 6 are tested, by 4: two batches each. stfpm trains on batches in an order of its own.
    assert batches[0] - batches[2] == 5 * 4 + 2 * 2

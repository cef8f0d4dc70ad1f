"""What every YAML in conf/method/ must keep. `contract.exempt` in the YAML is the only way out of a test."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from ad_bench.config import backbones, compose, options
from ad_bench.contract import Inputs, Method, Prediction, Run
from ad_bench.parts.backbone import Backbone
from ad_bench.runner.best import Tested
from ad_bench.runner.progress import Watch
from ad_bench.runner.training import Checkpoints, WatchedRun
from tests import tiny

METHODS = sorted(options("method"))
BACKBONE = "test_resnet.r160_in1k"
TAXONOMIES = {
    "baseline",
    "teacher_student",
    "one_class",
    "distribution_map",
    "memory_bank",
    "reconstruction",
    "supervised",
    "few_shot",
    "zero_shot",
    "noisy",
    "3d",
    "synthesis",
}
# A method is fitted once, so its tests run in one process.
every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in METHODS]
)


@functools.cache
def config_of(name: str) -> DictConfig:
    """The method's YAML, its backbones replaced by a tiny untrained one."""
    config = compose([f"method={name}", "dataset=mvtec"])
    method = OmegaConf.create(OmegaConf.to_container(config.method, resolve=True))
    nodes = backbones(method.model)
    for node in nodes:
        node.name, node.weights = BACKBONE, "random"
    if nodes:
        settings = (method.get("backbones") or {}).get(BACKBONE.partition(".")[0], {})
        method.model = OmegaConf.merge(method.model, settings)
    # `contract.model`: a schedule of seconds where the paper's takes hours; no number of the tables uses it
    method.model = OmegaConf.merge(method.model, (method.get("contract") or {}).get("model") or {})
    return method


def train_set(name: str) -> tiny.TensorTrainSet:
    images, needs = tiny.textures(12), config_of(name).needs
    labels = masks = None
    if {"labels", "masks"} & set(needs):
        images, masks = images.clone(), torch.zeros(12, *images.shape[2:], dtype=torch.bool)
        images[8:], masks[8:] = tiny.planted(images[8:], seed=7)
        labels = masks.flatten(1).any(1).long()
    given = tiny.TensorTrainSet(
        images, labels if "labels" in needs else None, masks if "masks" in needs else None
    )
    if "support" in needs:
        given.support = tiny.TensorTrainSet(images[:2])
    return given


def fit(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)  # the runner seeds the global generators too
    method: Method = instantiate(config_of(name).model)
    method.train()
    method.fit(train_set(name), Run(seed=seed))
    return method.eval()


@functools.cache
def _fitted(name: str) -> Method:
    return fit(name)


@pytest.fixture
def method(name: str) -> Method:
    return copy.deepcopy(_fitted(name))


def predict(method: Method, images: torch.Tensor) -> Prediction:
    with torch.no_grad():
        return method.predict(Inputs(images, ("",) * len(images)))


@functools.cache
def test_images() -> torch.Tensor:
    clean = tiny.textures(6, seed=5)
    return torch.cat([clean[:3], tiny.planted(clean[3:])[0]])


test_images.__test__ = False  # type: ignore[attr-defined]


def same(one: Prediction, two: Prediction, exactly: bool = True) -> None:
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(one.scores, two.scores, **tolerance)
    torch.testing.assert_close(one.maps, two.maps, **tolerance)


def exempt(name: str) -> dict[str, str]:
    """The tests that a YAML takes its method out of, each with its reason."""
    return (config_of(name).get("contract") or {}).get("exempt") or {}


def not_exempt(name: str, test: str) -> None:
    if reason := exempt(name).get(test):
        pytest.skip(f"{name} is exempt: {reason}")


@every_method
def test_yaml_gives_exactly_the_constructors_arguments(name: str) -> None:
    def check(node: Any, where: str) -> None:
        if isinstance(node, DictConfig):
            target = node.get("_target_")
            if target and target.startswith("ad_bench."):
                signature = inspect.signature(get_class(target))
                wanted = list(signature.parameters)
                assert [key for key in node if not key.startswith("_")] == wanted, where
            if where == "model":
                defaults = {p.name for p in signature.parameters.values() if p.default is not p.empty}
                assert not defaults, f"{target} has defaults for {defaults}: a number lives once, in the YAML"
            for key, value in node.items():
                check(value, f"{where}.{key}")

    check(config_of(name).model, "model")


@every_method
def test_yaml_says_what_tables_and_reports_need(name: str) -> None:
    method = config_of(name)
    assert method.title
    assert method.taxonomy in TAXONOMIES
    assert method.source in {"survey", "list", "ours"}
    assert method.fidelity in {"reference", "paper", "reinterpretation"}
    assert method.paper.selection in {"last", "best_test_epoch"}
    assert method.source == "ours" or method.paper.arxiv
    assert method.loader.batch_size >= 1
    assert set(method.input) & {"size", "short"}
    assert set(method.paper_eval) == {"size", "mask_interpolation", "mask_rule"}
    known = {test.removeprefix("test_") for test in globals() if test.startswith("test_")}
    assert set(exempt(name)) <= known, "exempt names no test of this file"


@every_method
def test_shapes(name: str, method: Method) -> None:
    images = test_images()
    prediction = predict(method, images)
    assert prediction.scores.shape == (len(images),)
    assert prediction.scores.dtype == torch.float32
    assert prediction.scores.isfinite().all()
    if prediction.maps is not None:
        assert prediction.maps.ndim == 3
        assert len(prediction.maps) == len(images)
        assert prediction.maps.dtype == torch.float32
        assert prediction.maps.isfinite().all()
    assert prediction.scores.unique().numel() > 1, "one score for all images"


@every_method
def test_batch_scores_as_its_images_one_by_one(name: str, method: Method) -> None:
    not_exempt(name, "batch_scores_as_its_images_one_by_one")
    images = test_images()
    alone = [predict(method, image[None]) for image in images]
    maps = None if alone[0].maps is None else torch.cat([p.maps for p in alone if p.maps is not None])
    same(predict(method, images), Prediction(torch.cat([p.scores for p in alone]), maps), exactly=False)


@every_method
def test_order_does_not_matter(name: str, method: Method) -> None:
    not_exempt(name, "order_does_not_matter")
    images, order = test_images(), torch.tensor([4, 0, 5, 2, 1, 3])
    straight, shuffled = predict(method, images), predict(method, images[order])
    maps = None if straight.maps is None else straight.maps[order]
    same(Prediction(straight.scores[order], maps), shuffled, exactly=False)


@every_method
def test_predicting_changes_nothing(name: str, method: Method) -> None:
    images = test_images()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    untouched = images.clone()
    first = predict(method, images)
    torch.manual_seed(99)
    same(first, predict(method, images))
    torch.testing.assert_close(images, untouched, rtol=0, atol=0)
    after = method.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), f"predict changed {key}"


@every_method
def test_same_seed_same_scores(name: str, method: Method) -> None:
    same(predict(method, test_images()), predict(fit(name), test_images()))


@every_method
def test_save_and_load(name: str, method: Method, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in method.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    torch.manual_seed(123)  # a fresh instance must not depend on how it was initialised
    fresh: Method = instantiate(config_of(name).model)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    same(predict(method, test_images()), predict(fresh.eval(), test_images()))


class Killed(Exception):
    """In place of a signal: the process would be gone."""


class Killing(Checkpoints):
    """The second checkpoint is the last thing that the process does."""

    def save(self, state: Mapping[str, Any], loop: int, epoch: int) -> None:
        super().save(state, loop, epoch)
        if epoch == 1:
            raise Killed


@every_method
def test_a_killed_training_goes_on_with_the_same_result(name: str, tmp_path: Path) -> None:
    """And scoring test epochs on the way, as some papers do, changes nothing either."""

    def train(kept: Checkpoints | None, look: bool) -> tuple[Method, WatchedRun, Tested | None]:
        torch.manual_seed(0)
        method: Method = instantiate(config_of(name).model)
        method.train()

        def score() -> dict[str, Any]:
            assert not method.training
            return {"one": {"image": {"mean": float(predict(method, test_images()).scores.mean())}}}

        tested, train = (Tested(score, 3) if look else None), train_set(name)
        run = WatchedRun(0, torch.device("cpu"), Watch(1), kept, 3, tested, method, train)  # type: ignore[arg-type]
        method.fit(train, run)
        return method.eval(), run, tested

    whole, run, _ = train(None, look=False)
    if not run.trained:
        return  # nothing to kill
    with pytest.raises(Killed):
        train(Killing(tmp_path, 0.0), look=True)
    torch.manual_seed(123)
    rest, run, tested = train(Checkpoints(tmp_path, 0.0), look=True)
    assert run.resumed == 2
    assert tested is not None
    scored = [one["epoch"] for one in tested.held]
    assert scored
    assert scored == [1, 2] * (len(scored) // 2)  # of each loop
    wanted = whole.state_dict()
    for key, value in rest.state_dict().items():
        assert torch.equal(value, wanted[key]), key
    same(predict(rest, test_images()), predict(whole, test_images()))


@every_method
def test_frozen_weights_stay(name: str, method: Method) -> None:
    not_exempt(name, "frozen_weights_stay")
    frozen = [(key, module) for key, module in method.named_modules() if isinstance(module, Backbone)]
    if not frozen:
        assert not backbones(config_of(name).model)
        return
    torch.manual_seed(0)
    fresh = dict(instantiate(config_of(name).model).named_modules())
    for key, module in frozen:
        assert not module.train().training
        for buffer, value in module.state_dict().items():
            assert torch.equal(value, fresh[key].state_dict()[buffer]), f"fit changed {key}.{buffer}"


@every_method
def test_planted_defect(name: str, method: Method) -> None:
    """A defect raises the score of its image, and its pixels stand out on the map."""
    not_exempt(name, "planted_defect")
    clean = tiny.textures(6, seed=11)
    broken, masks = tiny.planted(clean, seed=12)
    both = predict(method, torch.cat([clean, broken]))  # one test set, as some score images by one another
    normal, anomalous = both.scores.split(len(clean))
    assert (anomalous > normal).all()
    if both.maps is not None:
        size, maps = (masks.shape[1], masks.shape[2]), both.maps[len(clean) :]
        maps = torch.nn.functional.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0]
        for anomaly_map, mask in zip(maps, masks, strict=True):
            assert anomaly_map[mask].mean() > anomaly_map[~mask].mean()


def test_there_are_methods() -> None:
    assert {"patchcore", "padim", "random", "mean_image"} <= set(METHODS)

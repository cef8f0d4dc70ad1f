"""Backbones kept between fits: copies that nobody can spoil, of files as they are now."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from ad_bench import config
from ad_bench.parts.backbone import Backbone
from ad_bench.runner import kept, scoring

TINY = "test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    kept._kept.clear()
    yield
    kept._kept.clear()


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def write_weights(path: Path, scale: float) -> None:
    torch.manual_seed(0)
    tensors = {
        name: (value * scale).contiguous()
        for name, value in timm.create_model("test_resnet").state_dict().items()
    }
    save_file(tensors, path)


def test_two_methods_share_no_tensor_and_cannot_spoil_a_third() -> None:
    first, second = (kept.backbone(TINY, [2, 3], "random") for _ in range(2))
    places = [{value.data_ptr() for value in one.state_dict().values()} for one in (first, second)]
    assert not places[0] & places[1]
    wanted = state(Backbone(TINY, [2, 3], "random"))
    assert equal(state(first), wanted)
    for value in (*first.state_dict().values(), *second.state_dict().values()):
        value.zero_()
    assert equal(state(kept.backbone(TINY, [2, 3], "random")), wanted)


@pytest.mark.parametrize(
    ("name", "layers"),
    [(TINY, [1, 2]), ("test_efficientnet.r160_in1k", [1, 2]), ("test_vit.r160_in1k", [0, 1])],
)
def test_a_copy_computes_what_a_new_one_does(name: str, layers: list[int]) -> None:
    """Of timm's kinds of feature networks; one that works by hooks must not call those of the original."""
    images = torch.rand(2, 3, 160, 160)
    kept.backbone(name, layers, "random")
    copied, new = kept.backbone(name, layers, "random"), Backbone(name, layers, "random")
    with torch.no_grad():
        for got, wanted in zip(copied(images), new(images), strict=True):
            assert torch.equal(got, wanted)
    assert not any(one.training for one in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    """Even of the same size and with its mtime put back."""
    path = tmp_path / f"{TINY}.safetensors"
    write_weights(path, 1.0)
    before = path.stat()
    one = kept.backbone(TINY, [1], str(path))
    write_weights(path, 2.0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    other = kept.backbone(TINY, [1], str(path))
    assert not equal(state(one), state(other))
    assert equal(state(other), state(Backbone(TINY, [1], str(path))))


def test_a_file_replaced_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{TINY}.safetensors"
    write_weights(path, 1.0)

    class Replaced(Backbone):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            write_weights(path, 2.0)

    monkeypatch.setattr("hydra.utils.get_class", lambda _: Replaced)
    kept.backbone(TINY, [1], str(path))
    assert not kept._kept


def test_it_is_built_once_and_the_last_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, tuple[int, ...]]] = []

    class Counted(Backbone):
        def __init__(self, name: str, layers: list[int], weights: str | None = None) -> None:
            built.append((name, tuple(layers)))
            super().__init__(name, layers, weights)

    monkeypatch.setattr("hydra.utils.get_class", lambda _: Counted)
    for layers in ([1], [2], [1], [2], [1], [3], [1], [2]):
        kept.backbone(TINY, layers, "random")
    assert [layers for _, layers in built] == [(1,), (2,), (3,), (2,)]
    assert len(kept._kept) == kept.KEPT


@pytest.mark.parametrize("method", ["patchcore", "stfpm", "mean_image"])
def test_a_method_is_built_as_without_keeping(method: str) -> None:
    """The same values, the same random numbers left to the caller, and the settings untouched."""
    (choice,) = config.choices([f"method={method}", "backbone=bundled"])
    model = choice.config.method.model
    text = OmegaConf.to_yaml(model)
    for _ in range(2):
        torch.manual_seed(5)
        plain, after = instantiate(model), torch.rand(1)
        torch.manual_seed(5)
        built = kept.build(model)
        assert torch.equal(torch.rand(1), after)
        assert type(built) is type(plain)
        assert equal(state(built), state(plain))
    assert OmegaConf.to_yaml(model) == text
    assert bool(kept._kept) == (method != "mean_image")


def test_what_a_fit_leaves_in_a_circle_is_freed_and_what_outlives_it_is_not_searched_again() -> None:
    class Circle:
        def __init__(self) -> None:
            self.itself = self

    gc.collect()
    gc.freeze()
    left, outlives = Circle(), Circle()
    gone, there = weakref.ref(left), weakref.ref(outlives)
    del left
    scoring.end_fit()
    assert gone() is None
    assert gc.get_freeze_count() > 0
    del outlives  # garbage only now: found when all is searched
    for _ in range(scoring.SEARCH_ALL_EVERY):
        scoring.end_fit()
    assert there() is None
    gc.unfreeze()

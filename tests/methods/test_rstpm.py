"""RSTPM: what its result is made of, and that it finds what STFPM's pair alone does."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ad_bench.contract import Inputs, Run
from ad_bench.methods.rstpm import RSTPM
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.pairs import Pairs
from tests import tiny

SGD, ADAM = partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.Adam, lr=1e-3)


def model(epochs: int = 1, validation: float = 0.2) -> RSTPM:
    torch.manual_seed(0)
    first, second = (Backbone("test_resnet.adbench", [1, 2, 3], "bundled") for _ in range(2))
    return RSTPM(Pairs(first, second, None, validation, epochs, 4, SGD, ADAM))


def test_the_map_is_the_product_of_all_six(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of the coarser ones; nothing where one of them sees nothing."""
    method = model()
    fine, coarse = torch.rand(1, 8, 8), [torch.rand(1, 4, 4), torch.rand(1, 2, 2)]
    monkeypatch.setattr(method.pairs, "forward", lambda _: [fine, *coarse, fine, *coarse])
    first = method.predict(Inputs(torch.zeros(1, 3, 32, 32)))
    monkeypatch.setattr(method.pairs, "forward", lambda _: [fine, fine, *reversed(coarse), *coarse])
    other = method.predict(Inputs(torch.zeros(1, 3, 32, 32)))
    assert first.maps is not None
    assert other.maps is not None
    torch.testing.assert_close(first.maps, other.maps)
    assert first.maps.shape == (1, 32, 32)
    torch.testing.assert_close(first.scores, first.maps.amax((1, 2)))
    coarse[1].zero_()
    assert method.predict(Inputs(torch.zeros(1, 3, 32, 32))).scores.item() == 0


@pytest.mark.parametrize(("images", "held"), [(1, None), (2, 1), (12, 3)])
def test_images_held_out(images: int, held: int | None) -> None:
    method, notes, run = model(), {}, Run()  # type: ignore[var-annotated]
    run.note = notes.update  # type: ignore[method-assign, assignment]
    method.train().fit(tiny.TensorTrainSet(tiny.textures(images)), run)
    assert notes.get("validation_images") == held


def test_a_planted_defect_stands_out_under_trained_teachers() -> None:
    method = model(epochs=15)
    method.train().fit(tiny.TensorTrainSet(tiny.textures(12)), Run())
    clean = tiny.textures(4, seed=11)
    broken, masks = tiny.planted(clean, seed=12)
    with torch.no_grad():
        normal, anomalous = (method.eval().predict(Inputs(images)) for images in (clean, broken))
    assert (anomalous.scores > 2 * normal.scores).all()
    assert anomalous.maps is not None
    for found, mask in zip(anomalous.maps, masks, strict=True):
        assert found[mask].mean() > 2 * found[~mask].mean()

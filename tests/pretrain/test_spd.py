"""SPD's loss by hand, and the command from a folder of images to weights that a backbone takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from ad_bench.errors import DataError, UsageError, WeightsError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.weights import safetensors_metadata
from ad_bench.pretrain import training
from ad_bench.pretrain.recipe import Recipe
from ad_bench.pretrain.spd import SPD, info_nce, spd_term
from ad_bench.pretrain.views import View
from tests import tiny

SETTINGS = [
    "model.backbone.name=test_resnet.r160_in1k",
    "model.backbone.layers=[2]",
    "model.projector=[8,8]",
    "model.predictor=4",
    "model.strong.size=32",
    "model.weak.size=32",
    "batch_size=4",
    "epochs=3",
    "optimizer.lr=0.05",
    "workers=1",
    "device=cpu",
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for number, image in enumerate(tiny.textures(6)):
        (folder / str(number % 2)).mkdir(parents=True, exist_ok=True)
        pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels[: 40 + number]).save(folder / str(number % 2) / f"{number}.png")
    return folder


def recipe(images: Path, out: Path, *words: str) -> Recipe:
    return Recipe.from_words("spd", [f"images={images}", f"out={out}", *SETTINGS, *words])


def view(**changes: Any) -> View:
    still: dict[str, Any] = {
        "size": 32, "crop": (1.0, 1.0), "colours": (0.4, 0.4, 0.4, 0.1), "coloured": 0.0, "grey": 0.0,
        "blurred": 0.0, "blur": (0.1, 2.0), "mirrored": 0.0,
    }  # fmt: skip
    return View(**{**still, **changes})


def test_the_term_is_nothing_for_equal_views_and_falls_as_the_edited_one_turns_away() -> None:
    anchor, other = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert float(spd_term(anchor, other, other)) == 0
    one, across = F.normalize(anchor[:1], dim=1), torch.zeros(1, 8)
    across[0, :2] = torch.stack([-one[0, 1], one[0, 0]])
    across = F.normalize(across, dim=1)
    found = []
    for degrees in (0, 30, 60, 90, 150):
        turned = math.cos(math.radians(degrees)) * one + math.sin(math.radians(degrees)) * across
        found.append(float(spd_term(one, one, 3 * turned)))
        assert found[-1] == pytest.approx(math.cos(math.radians(degrees)) - 1, abs=1e-6)
    assert found == sorted(found, reverse=True)
    assert float(spd_term(one, across, one)) == pytest.approx(1, abs=1e-6)


def test_info_nce_agrees_with_a_loop() -> None:
    one, other = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    rows = F.normalize(torch.cat([one, other]), dim=1)
    expected = 0.0
    for index in range(6):
        partner = (index + 3) % 6
        others = [math.exp(float(rows[index] @ rows[k]) / 0.2) for k in range(6) if k != index]
        expected -= math.log(math.exp(float(rows[index] @ rows[partner]) / 0.2) / sum(others)) / 6
    assert float(info_nce(one, other, 0.2)) == pytest.approx(expected, rel=1e-5)


def test_views_do_what_their_settings_say() -> None:
    generator, image = torch.Generator().manual_seed(0), tiny.textures(1, 32)[0]
    still = [view()(image, generator) for _ in range(10)]
    for found in still:  # the whole image, but for the ratio of its sides
        assert found.shape == (3, 32, 32)
        assert float(found.mean()) == pytest.approx(float(image.mean()), abs=0.03)
    grey = view(grey=1.0)(image, generator)
    assert torch.equal(grey[0], grey[2])
    smooth = view(blurred=1.0, blur=(2.0, 2.0))(image, torch.Generator().manual_seed(1))
    assert smooth.diff(dim=2).abs().mean() < 0.5 * image.diff(dim=2).abs().mean()
    coloured = [view(coloured=1.0)(image, generator).mean((1, 2)) for _ in range(20)]
    assert torch.stack(coloured).std(0).min() > 0.02
    assert all(float(one.min()) >= 0 and float(one.max()) <= 1 for one in coloured)
    rising = torch.linspace(0, 1, 32).expand(3, 32, 32)
    assert view(mirrored=1.0)(rising, generator)[0, 0].diff().max() <= 0
    with pytest.raises(UsageError, match="rising shares"):
        view(crop=(0.5, 0.2))


@pytest.mark.parametrize("objective", ["simsiam", "simclr"])
def test_a_network_is_trained_as_the_objective_says(objective: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet.r160_in1k", [2], "random")
    weak = view(crop=(0.8, 1.0))
    settings = {"area": (0.01, 0.02), "aspect": 0.3, "softness": 0.1, "strength": 0.2}
    model = SPD(backbone, objective, [8, 8], 4, 0.1, 0.1, view(crop=(0.2, 1.0)), weak, **settings)  # type: ignore[arg-type]
    views = model.views(list(tiny.textures(4)), torch.Generator().manual_seed(0))
    assert [tuple(one.shape) for one in views] == [(4, 3, 32, 32)] * 5
    found, term = model.losses(views)
    (found + model.eta * term).backward()
    assert all(one.grad is not None for one in model.network.parameters())
    assert all((one.grad is None) == (objective == "simclr") for one in model.predictor.parameters())
    assert -2 <= term.item() <= 2
    if objective == "simsiam":
        assert -1 <= found.item() <= 1
    with pytest.raises(UsageError, match="simsiam or simclr"):
        SPD(backbone, "moco", [8, 8], 4, 0.1, 0.1, weak, weak, **settings)  # type: ignore[arg-type]


def test_a_folder_becomes_weights_that_a_backbone_takes(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "test_resnet.spd.safetensors"
    assert training.pretrain(recipe(images, out)) == out
    told = json.loads(out.with_suffix(".json").read_text())
    learnt = Backbone("test_resnet.spd", [1, 2], str(out))
    assert told["sha256"] == learnt.weights.sha256
    assert learnt.weights.tag == "spd"
    assert safetensors_metadata(out)["recipe"] == told["recipe"]
    assert told["settings"]["pictures"] == 6
    assert len(told["losses"]["epochs"]) == 3
    assert np.isfinite(told["losses"]["epochs"]).all()
    fresh = Backbone("test_resnet.r160_in1k", [1, 2], "random")
    torch.testing.assert_close(learnt.mean, fresh.mean)
    moved = [not torch.equal(a, b) for a, b in zip(learnt.parameters(), fresh.parameters(), strict=True)]
    assert all(moved)
    assert not out.with_name(out.name + ".training").exists()
    again = tmp_path / "again.safetensors"
    training.pretrain(recipe(images, again))
    for key, value in load_file(out).items():
        assert torch.equal(value, load_file(again)[key]), key
    other = tmp_path / "other.safetensors"
    training.pretrain(recipe(images, other, "seed=1"))
    assert any(not torch.equal(value, load_file(other)[key]) for key, value in load_file(out).items())


def test_a_stopped_training_goes_on_with_the_same_result(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    training.pretrain(recipe(images, whole))
    batches, passes = training.batches, []

    def killing(*words: Any) -> Any:
        passes.append(words)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return batches(*words)

    monkeypatch.setattr(training, "batches", killing)
    with pytest.raises(KeyboardInterrupt):
        training.pretrain(recipe(images, stopped, "checkpoint_minutes=0"))
    assert not stopped.exists()
    monkeypatch.setattr(training, "batches", batches)
    with pytest.raises(UsageError, match="another recipe: seed differ"):
        training.pretrain(recipe(images, stopped, "seed=1"))
    torch.manual_seed(123)
    training.pretrain(recipe(images, stopped))
    expected = load_file(whole)
    for key, value in load_file(stopped).items():
        assert torch.equal(value, expected[key]), key
    held = [json.loads(one.with_suffix(".json").read_text()) for one in (whole, stopped)]
    assert held[0]["losses"] == held[1]["losses"]


def test_wrong_input_is_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 images"):
        _ = recipe(tmp_path / "empty", out).files
    with pytest.raises(UsageError, match="no such folder"):
        _ = recipe(tmp_path / "missing", out).files
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        recipe(images, tmp_path / "out.pt")
    with pytest.raises(UsageError, match=r"optimiser\.lr=1: .* Did you mean optimizer"):
        recipe(images, out, "optimiser.lr=1")
    with pytest.raises(UsageError, match="Did you mean spd"):
        Recipe.from_words("spdd", [])
    with pytest.raises(UsageError, match="images=FOLDER"):
        Recipe.from_words("spd", [])
    with pytest.raises(WeightsError, match="no model"):
        training.pretrain(recipe(images, out, "model.backbone.name=resnet1"))
    (images / "1" / "9.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"9\.png"):
        training.pretrain(recipe(images, tmp_path / "corrupt.safetensors", "batch_size=7"))
    out.write_bytes(b"")
    with pytest.raises(UsageError, match="exists"):
        recipe(images, out)


def test_the_command_asks_before_torch_is_looked_at(images: Path, adbench: Callable[..., Any]) -> None:
    answer = adbench("pretrain")
    assert answer.returncode == 2
    assert "wants a recipe" in answer.stderr
    answer = adbench("pretrain", "spd", f"images={images}/none", "out=x.safetensors")
    assert answer.returncode == 2
    assert "no such folder" in answer.stderr

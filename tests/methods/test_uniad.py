"""UniAD against the authors' code, and what its paper says of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.methods.uniad import UniAD
from ad_bench.parts.backbone import Backbone
from scripts.seeded import drawn, fill
from tests import tiny

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "uniad.npz")
GRID = tuple(REFERENCE["grid"].tolist())


class Given(nn.Module):
    """Stands for a backbone: one level, whatever the images."""

    def __init__(self, level: Tensor):
        super().__init__()
        self.level, self.channels = level, (level.shape[1],)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.level[: len(images)]]


def uniad(backbone: nn.Module | None = None, **changed: object) -> UniAD:
    settings: dict[str, object] = {
        "grid": (4, 4),
        "width": 16,
        "heads": 2,
        "encoders": 2,
        "decoders": 2,
        "inner": 24,
        "dropout": 0.0,
        "neighbours": 3,
        "jitter": 20.0,
        "epochs": 1,
        "batch_size": 4,
        "optimizer": partial(torch.optim.AdamW, lr=1e-3),
        "schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=800),
        "clip": 0.1,
        "pool": 16,
    }
    torch.manual_seed(0)
    backbone = backbone or Backbone("test_resnet.r160_in1k", [1, 2, 3], "random")
    return UniAD(backbone, **{**settings, **changed})  # type: ignore[arg-type]


def theirs(name: str) -> str:
    """One of our parameters in the reference's words."""
    plain = {"enter": "input_proj", "leave": "output_proj", "norm": "transformer.decoder.norm"}
    plain |= {"places.rows": "pos_embed.row_embed", "places.columns": "pos_embed.col_embed"}
    head, _, last = name.rpartition(".")
    if head in plain:
        return f"{plain[head]}.{last}"
    coder, number, *rest = name.split(".")
    parts = {"query": "learned_embed", "among.attention": "self_attn", "among.norm": "norm1"}
    parts |= {"encoded.attention": "self_attn", "encoded.norm": "norm1"}
    parts |= {"before.attention": "multihead_attn", "before.norm": "norm2"}
    parts |= {"forth.layers.0": "linear1", "forth.layers.3": "linear2"}
    parts["forth.norm"] = "norm2" if coder == "encoder" else "norm3"
    inside = ".".join(rest)
    found = next(key for key in parts if inside.startswith(f"{key}."))
    return f"transformer.{coder}.layers.{number}.{parts[found]}{inside.removeprefix(found)}"


@pytest.fixture
def filled() -> UniAD:
    features = drawn("features", (int(REFERENCE["images"]), int(REFERENCE["channels"]), *GRID))
    sizes = ("width", "heads", "encoders", "decoders", "inner", "neighbours")
    method = uniad(Given(features), grid=GRID, **{name: int(REFERENCE[name]) for name in sizes})
    fill({theirs(name): value for name, value in method.named_parameters()})
    return method


def test_maps_equal_the_reference(filled: UniAD) -> None:
    images = torch.zeros(int(REFERENCE["images"]), 3, 16 * GRID[0], 16 * GRID[1])
    with torch.no_grad():
        prediction = filled.eval().predict(Inputs(images))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::7, ::7], REFERENCE["maps"], rtol=1e-4)
    by_hand = F.avg_pool2d(prediction.maps, 16, stride=1).flatten(1).amax(1)
    torch.testing.assert_close(prediction.scores, by_hand)


def test_loss_and_gradients_equal_the_reference(filled: UniAD) -> None:
    filled.train()
    features = filled.backbone.level.flatten(2).transpose(1, 2)
    noise = drawn("noise", (GRID[0] * GRID[1], len(features), features.shape[2])).transpose(0, 1)
    loss = F.mse_loss(filled.reconstruct(filled.disturbed(features, noise)), features)
    loss.backward()
    assert loss.item() == pytest.approx(REFERENCE["loss"].item(), rel=1e-4)
    largest = max(np.abs(REFERENCE[key]).max() for key in REFERENCE.files if key.startswith("gradient "))
    count = 0
    for name, one in filled.named_parameters():
        assert one.grad is not None
        wanted = REFERENCE[f"gradient {theirs(name)}"]
        error = np.abs(one.grad.flatten()[::5].numpy() - wanted).max()
        assert error <= 1e-4 * max(np.abs(wanted).max(), 1e-3 * largest), name
        count += 1
    assert count == sum(key.startswith("gradient ") for key in REFERENCE.files)


def test_a_cell_is_reconstructed_from_elsewhere(filled: UniAD) -> None:
    """No attention sees the 3 x 3 cells around the one that asks; a second layer may, by a detour."""
    method = uniad(filled.backbone, grid=GRID, encoders=0, decoders=1).eval()
    features = method.embed(torch.zeros(1, 3, 96, 80))
    changed = features.clone()
    near = method.hidden[12]
    changed[:, near] += 3
    with torch.no_grad():
        before, after = method.reconstruct(features), method.reconstruct(changed)
    torch.testing.assert_close(after[:, 12], before[:, 12])
    assert (after - before)[:, ~near].abs().max() > 1e-3


def test_trained_it_reconstructs_what_it_knows() -> None:
    images = tiny.textures(8)
    method = uniad(epochs=80, jitter=1.0, clip=1.0)
    with torch.no_grad():
        start = method.predict(Inputs(images)).scores.mean()
    method.fit(tiny.TensorTrainSet(images), Run())
    with torch.no_grad():
        known = method.eval().predict(Inputs(tiny.textures(4, seed=3))).scores
        broken = method.predict(Inputs(tiny.planted(tiny.textures(4, seed=3))[0])).scores
    assert known.mean() < 0.7 * start
    assert (broken > known).all()


def test_noise_grows_with_the_token() -> None:
    method, noise = uniad(), torch.ones(1, 2, 4)
    features = torch.tensor([[[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    disturbed = method.disturbed(features, noise) - features
    assert disturbed[0, 0].tolist() == [20 * 5 / 4] * 4
    assert disturbed[0, 1].tolist() == [0.0] * 4


def test_images_of_another_size_are_brought_to_the_grid() -> None:
    method = uniad()
    assert method.embed(torch.zeros(1, 3, 96, 160)).shape == method.embed(torch.zeros(1, 3, 64, 64)).shape

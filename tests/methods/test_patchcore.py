"""PatchCore against numbers worked out independently: embedding by loops, scores by hand, a real category."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.patchcore import PatchCore
from ad_bench.parts.backbone import Backbone
from tests import tiny

SETTINGS = {
    "patch_size": 3,
    "pretrain_dim": 1024,
    "target_dim": 1024,
    "coreset_ratio": 0.1,
    "projection_dim": 128,
    "starts": 10,
    "neighbors": 1,
    "reweight": None,
    "sigma": 4.0,
    "backend": "auto",
}


class Given(nn.Module):
    """Stands for a backbone: the same two levels for every image, or the images themselves."""

    def __init__(self, *levels: Tensor):
        super().__init__()
        self.levels = list(levels)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.levels or [images]


def patchcore(*levels: Tensor, **changed: object) -> PatchCore:
    return PatchCore(Given(*levels), **{**SETTINGS, **changed})  # type: ignore[arg-type]


def stretch_means(row: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """1-D adaptive average pooling, as torch documents it."""
    n = len(row)
    return np.array([row[i * n // length : -(-(i + 1) * n // length)].mean() for i in range(length)])


def bilinear(plane: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    out = np.empty(size)
    for row, column in np.ndindex(*size):
        y = max((row + 0.5) * plane.shape[0] / size[0] - 0.5, 0)
        x = max((column + 0.5) * plane.shape[1] / size[1] - 0.5, 0)
        top, left = int(y), int(x)
        below, right = min(top + 1, plane.shape[0] - 1), min(left + 1, plane.shape[1] - 1)
        upper = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
        lower = plane[below, left] * (1 - x + left) + plane[below, right] * (x - left)
        out[row, column] = upper * (1 - y + top) + lower * (y - top)
    return out


def reference_embedding(
    levels: list[NDArray[np.float64]], patch: int, pretrain: int, target: int
) -> NDArray[np.float64]:
    """The released code's order, in loops: unfold, resize every (channel, cell) plane, pool, stack, pool."""
    size = levels[0].shape[1:]
    pooled = []
    for level in levels:
        channels, height, width = level.shape
        padded = np.pad(level, ((0, 0), (patch // 2,) * 2, (patch // 2,) * 2))
        planes = [
            padded[channel, i : i + height, j : j + width]
            for channel in range(channels)
            for i in range(patch)
            for j in range(patch)
        ]
        blocks = np.stack([bilinear(plane, size) if plane.shape != size else plane for plane in planes], -1)
        pooled.append(np.apply_along_axis(stretch_means, -1, blocks, pretrain))
    return np.apply_along_axis(stretch_means, -1, np.concatenate(pooled, -1), target)


REFERENCE = json.loads((Path(__file__).parent / "patchcore_reference.json").read_text())


def written_down(count: int, shift: float) -> list[Tensor]:
    """The levels that scripts/make_patchcore_fixture.py gave to the authors' code."""
    levels = []
    for shape in ((6, 8, 6), (10, 4, 3)):
        index = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(shape)
        images = [
            torch.sin(index * 0.37 + (image + shift) * 0.05 * (1 + index % 3)) for image in range(count)
        ]
        levels.append(torch.stack(images).float())
    return levels


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=["baseline", "segmentation"])
def test_agrees_with_the_authors_code(case: dict[str, Any]) -> None:
    """Embedding, scores and maps that the released code gave (the fixture names its commit)."""
    settings = {key: case[key] for key in ("patch_size", "pretrain_dim", "target_dim", "neighbors")}
    model = patchcore(*written_down(3, 0.0), coreset_ratio=1.0, **settings)
    model.fit(tiny.TensorTrainSet(torch.zeros(3, 3, 64, 48)), Run())
    model.backbone.levels = written_down(2, 0.4)
    images = torch.zeros(2, 3, 64, 48)
    rows = model.embed(images).flatten(0, 2)[::17]
    torch.testing.assert_close(rows, torch.tensor(case["embedding"]), rtol=1e-5, atol=1e-6)
    prediction = model.predict(Inputs(images))
    torch.testing.assert_close(prediction.scores, torch.tensor(case["scores"]), rtol=1e-4, atol=1e-7)
    assert prediction.maps is not None
    torch.testing.assert_close(prediction.maps[:, ::9, ::7], torch.tensor(case["maps"]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("patch", "pretrain", "target"), [(3, 40, 40), (3, 16, 50), (5, 64, 7), (1, 8, 8)])
def test_embedding_equals_the_references_order(patch: int, pretrain: int, target: int) -> None:
    generator = torch.Generator().manual_seed(patch)
    second, third = (
        torch.rand(2, 6, 8, 6, generator=generator),
        torch.rand(2, 10, 4, 3, generator=generator),
    )
    model = patchcore(second, third, patch_size=patch, pretrain_dim=pretrain, target_dim=target)
    embedded = model.embed(torch.empty(2, 3, 64, 48))
    for image in range(2):
        levels = [second[image].double().numpy(), third[image].double().numpy()]
        wanted = reference_embedding(levels, patch, pretrain, target)
        np.testing.assert_allclose(embedded[image].numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_first_half_is_the_first_level() -> None:
    second, third = torch.rand(1, 16, 8, 8), torch.rand(1, 32, 4, 4)
    model = patchcore(second, third, pretrain_dim=20, target_dim=20)
    whole = model.embed(torch.empty(1, 3, 64, 64))
    model.backbone.levels[1] = torch.zeros(1, 32, 4, 4)
    first_only = model.embed(torch.empty(1, 3, 64, 64))
    assert torch.equal(whole[..., :10], first_only[..., :10])
    assert torch.equal(first_only[..., 10:], torch.zeros(1, 8, 8, 10))
    assert whole[..., 10:].abs().min() > 0


def test_a_constant_image_varies_only_at_the_border() -> None:
    second, third = torch.rand(1, 6, 1, 1).expand(1, 6, 12, 12), torch.rand(1, 9, 1, 1).expand(1, 9, 6, 6)
    embedded = patchcore(second, third).embed(torch.empty(1, 3, 96, 96))
    inside = embedded[
        :, 3:-3, 3:-3
    ]  # zeros beyond the border reach one deep cell in, and its resized neighbours
    torch.testing.assert_close(inside, inside[:, :1, :1].expand_as(inside))
    assert not torch.allclose(embedded[:, 0, 0], embedded[:, 5, 5])


def test_the_whole_bank_scores_its_own_patches_zero() -> None:
    images = tiny.textures(3)
    model = PatchCore(
        Backbone("test_resnet.r160_in1k", [2, 3], "random"), **{**SETTINGS, "coreset_ratio": 1.0}
    )  # type: ignore[arg-type]
    model.fit(tiny.TensorTrainSet(images, batch_size=2), Run())
    assert model.bank.points.shape == (3 * 8 * 8, 1024)
    prediction = model.predict(Inputs(images))
    assert prediction.scores.abs().max() < 1e-9
    assert prediction.maps is not None
    assert prediction.maps.abs().max() < 1e-9


def plain(images: Tensor, **changed: object) -> PatchCore:
    """A PatchCore whose patch features are the pixels' channels, fitted with all patches kept."""
    settings = {"patch_size": 1, "pretrain_dim": 3, "target_dim": 3, "coreset_ratio": 1.0, "sigma": 0.0}
    model = patchcore(**{**settings, **changed})
    model.fit(tiny.TensorTrainSet(images), Run())
    return model


def test_scores_are_squared_distances_and_the_map_is_smoothed_after() -> None:
    normal, broken = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    broken[0, :, 4, 5] = torch.tensor([0.0, 0.3, 0.4])
    prediction = plain(normal, sigma=2.0).predict(Inputs(broken))
    assert prediction.scores.item() == pytest.approx(0.25)  # the square of 0.5, from before the smoothing
    raw = np.zeros((16, 16))
    raw[4, 5] = 0.25
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[0].numpy(), gaussian_filter(raw, 2.0), atol=1e-7)


def test_several_neighbours_are_averaged() -> None:
    normal = (
        torch.tensor([0.0, 0.1, 0.6])[None, None, :, None].expand(1, 3, 3, 1)
        * torch.tensor([1, 0, 0])[:, None, None]
    )
    query = torch.zeros(1, 3, 1, 1)
    assert plain(normal, neighbors=2).predict(Inputs(query)).scores.item() == pytest.approx((0 + 0.01) / 2)
    assert plain(normal, neighbors=3).predict(Inputs(query)).scores.item() == pytest.approx((0.01 + 0.36) / 3)


def test_reweighting_is_equation_7() -> None:
    first = torch.tensor([1, 0, 0])[:, None, None]
    normal = torch.tensor([1.0, 1.5, 4.0])[None, None, :, None].expand(1, 3, 3, 1) * first
    score = plain(normal, reweight=2).predict(Inputs(torch.zeros(1, 3, 1, 1))).scores.item()
    # d* = 1 to m* = 1.0; the two of the bank nearest to m* are itself and 1.5
    wanted = (1 - np.exp(1.0) / (np.exp(1.0) + np.exp(1.5))) * 1.0
    assert score == pytest.approx(wanted, rel=1e-5)


def test_the_coreset_has_its_size_and_follows_the_seed() -> None:
    images = torch.rand(5, 3, 16, 16)
    banks = []
    for seed in (0, 0, 1):
        model = patchcore(patch_size=1, pretrain_dim=3, target_dim=3, coreset_ratio=0.0101)
        notes: dict[str, object] = {}
        run = Run(seed=seed)
        run.note = notes.update  # type: ignore[method-assign, assignment]
        model.fit(tiny.TensorTrainSet(images, batch_size=2), run)
        banks.append(model.bank.points)
    assert len(banks[0]) == notes["coreset"] == int(0.0101 * 5 * 256) == 12
    assert notes["patches"] == 1280
    assert notes["neighbors_backend"] == "torch"
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])
    rows = {tuple(row) for row in images.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    assert all(tuple(row) in rows for row in banks[0].tolist()), (
        "the bank keeps the features, not the projection"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"coreset_ratio": 0.0}, "coreset_ratio"),
        ({"coreset_ratio": 1.5}, "coreset_ratio"),
        ({"neighbors": 0}, "neighbors"),
        ({"reweight": 1}, "reweight"),
        ({"backend": "annoy"}, "annoy"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        patchcore(**changed)


def test_no_training_images() -> None:
    with pytest.raises(ValueError, match="0 images"):
        patchcore().fit(tiny.TensorTrainSet(torch.empty(0, 3, 8, 8)), Run())


def bottle(files: list[Path]) -> Tensor:
    pixels = [
        np.asarray(Image.open(f).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)) for f in files
    ]
    return torch.from_numpy(np.stack(pixels)[:, 16:240, 16:240]).permute(0, 3, 1, 2) / 255


def test_real_bottles(unpacked: Callable[[str], Path], test_weights: Path) -> None:
    """40 of 209 training images and half the test set, real resnet18: the category is known to be easy."""
    root = next(unpacked("mvtec_bottle/bottle_300.tar").rglob("bottle"))
    tests = sorted((root / "test").glob("*/*.png"))[::2]
    labels = [f.parent.name != "good" for f in tests]
    masks = []
    for file, label in zip(tests, labels, strict=True):
        mask = torch.zeros(1, 1, 224, 224)
        if label:
            name = root / "ground_truth" / file.parent.name / f"{file.stem}_mask.png"
            pixels = torch.from_numpy(np.array(Image.open(name).convert("L"))).float()
            mask = F.interpolate(pixels[None, None], size=(256, 256), mode="nearest")[..., 16:240, 16:240]
        masks.append(mask[0, 0] > 127)
    backbone = Backbone("resnet18.tv_in1k", [2, 3], str(test_weights / "resnet18.tv_in1k.safetensors"))
    model = PatchCore(backbone, **{**SETTINGS, "coreset_ratio": 0.01})  # type: ignore[arg-type]
    model.fit(tiny.TensorTrainSet(bottle(sorted((root / "train/good").glob("*.png"))[::5][:40])), Run())
    with torch.no_grad():
        predictions = [model.predict(Inputs(images)) for images in bottle(tests).split(8)]
    scores = torch.cat([prediction.scores for prediction in predictions])
    maps = torch.cat([prediction.maps for prediction in predictions if prediction.maps is not None])
    assert roc_auc_score(labels, scores) > 0.99
    assert roc_auc_score(torch.stack(masks).flatten(), maps.flatten()) > 0.965

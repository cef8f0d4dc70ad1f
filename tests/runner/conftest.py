from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.records import Record, read_all

SIDE = 48


def write_category(root: Path, category: str, train: int = 6, normal: int = 3, defects: int = 3) -> None:
    """A category in MVTec's layout: stripes with noise, and a bright square as the defect."""
    draws = np.random.default_rng(sum(category.encode()))

    def picture() -> np.ndarray:
        stripes = 90 + 50 * ((np.arange(SIDE) // 6) % 2)
        return np.clip(stripes[None, :, None] + draws.normal(0, 6, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)

    def save(pixels: np.ndarray, *where: str) -> None:
        path = root.joinpath(category, *where)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for index in range(train):
        save(picture(), "train", "good", f"{index:03}.png")
    for index in range(normal):
        save(picture(), "test", "good", f"{index:03}.png")
    for index in range(defects):
        pixels, mask = picture(), np.zeros((SIDE, SIDE), np.uint8)
        mask[10 + index : 26 + index, 12:28] = 255
        pixels[mask > 0] = 250
        save(pixels, "test", "spot", f"{index:03}.png")
        save(mask, "ground_truth", "spot", f"{index:03}_mask.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two categories of MVTec AD, tiny, below <tmp>/data/mvtec."""
    for category in ("bottle", "cable"):
        write_category(tmp_path / "data" / "mvtec", category)
    return tmp_path / "data" / "mvtec"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own folder with a method for each way to go wrong."""
    folder = tmp_path / "mine"
    (folder / "method").mkdir(parents=True)
    (folder / "my_methods.py").write_text(
        '''"""Methods of a user, and ways to go wrong."""
import os
import time

import torch

from ad_bench.contract import Method, Prediction


class Brightness(Method):
    """Distance of the mean brightness from that of the training images."""

    def __init__(self, power: float):
        super().__init__()
        self.power = power
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, train, run):
        self.mean = torch.stack([b.images.mean() for b in train.batches(batch_size=1)]).mean()

    def predict(self, inputs):
        maps = (inputs.images.mean(1) - self.mean).abs() ** self.power
        return Prediction(maps.amax((1, 2)), maps)


class Slow(Brightness):
    def fit(self, train, run):
        super().fit(train, run)
        time.sleep(float(os.environ.get("SLOW", "0")))


class NaNOnTheThird(Brightness):
    def predict(self, inputs):
        prediction = super().predict(inputs)
        if len(prediction.scores) > 2:
            prediction.scores[2] = float("nan")
        return prediction


class Crash(Brightness):
    def fit(self, train, run):
        raise RuntimeError("this method is broken")


class WrongShape(Brightness):
    def predict(self, inputs):
        return Prediction(super().predict(inputs).maps.mean(2), None)


class Overtrained(Brightness):
    """Right after the first epoch, the wrong way round at the end."""

    def __init__(self, power: float):
        super().__init__(power)
        self.register_buffer("sign", torch.zeros(()))

    def fit(self, train, run):
        super().fit(train, run)
        for epoch in run.epochs(3):
            assert self.training
            for _ in train.batches(batch_size=4, shuffle=True):
                pass
            self.sign = torch.tensor(1.0 if epoch == 0 else -1.0)

    def predict(self, inputs):
        prediction = super().predict(inputs)
        return Prediction(prediction.scores * self.sign, prediction.maps * self.sign)


class ScoresOnly(Brightness):
    def predict(self, inputs):
        return Prediction(super().predict(inputs).scores, None)
'''
    )
    names = {
        "brightness": "Brightness",
        "slow": "Slow",
        "nan_on_the_third": "NaNOnTheThird",
        "crash": "Crash",
        "wrong_shape": "WrongShape",
        "scores_only": "ScoresOnly",
        "overtrained": "Overtrained",
    }
    for ident, name in names.items():
        (folder / "method" / f"{ident}.yaml").write_text(
            f"title: {name}\ntaxonomy: baseline\nsource: ours\nneeds: []\n"
            f"model: {{_target_: my_methods.{name}, power: 1}}\n"
            "input: {size: 48}\npaper_eval: {size: 48, mask_interpolation: nearest, mask_rule: nearest}\n"
            "loader: {batch_size: 4}\n"
            f"paper: {{arxiv: null, selection: {'best_test_epoch' if ident == 'overtrained' else 'last'}}}\n"
        )
    return folder


def records(tmp_path: Path) -> dict[str, Record]:
    """Every record below <tmp>/results by 'method/category'."""
    found, problems = read_all(tmp_path / "results")
    assert problems == []
    return {f"{r['method']}/{r['category']}": r for r in found}

"""The network that adbench carries: what is in the file, that it loads, what its features are worth."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from ad_bench.contract import Inputs, Method, Run
from ad_bench.datasets import synthetic
from ad_bench.methods.mean_image import MeanImage
from ad_bench.methods.patchcore import PatchCore
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.weights import BUNDLED
from tests.tiny import TensorTrainSet

ROOT = Path(__file__).resolve().parents[1]
NAME = OmegaConf.load(ROOT / "conf" / "backbone" / "bundled.yaml").name
FILE = BUNDLED / f"{NAME}.safetensors"


def test_file_is_small_and_no_pickle() -> None:
    content = FILE.read_bytes()
    assert len(content) <= 2_000_000
    (length,) = struct.unpack("<Q", content[:8])  # safetensors: a JSON header, then bare numbers
    header = json.loads(content[8 : 8 + length])
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    assert 8 + length + max(ends) == len(content)


def test_metadata_says_how_to_use_it() -> None:
    with safe_open(FILE, "pt") as file:
        metadata = file.metadata()
    assert f"{metadata['timm_name']}.{metadata['tag']}" == NAME
    assert [len(metadata[key].split(",")) for key in ("mean", "std")] == [3, 3]
    assert "Apache-2.0" in metadata["licence"]
    assert {"training", "seed", "steps"} <= set(metadata)


def test_readme_states_this_file() -> None:
    readme = (BUNDLED / "README.md").read_text()
    assert re.findall(r"\b[0-9a-f]{64}\b", readme) == [hashlib.sha256(FILE.read_bytes()).hexdigest()]


def test_loads_into_plain_timm_strictly() -> None:
    network = timm.create_model(NAME.partition(".")[0], features_only=True, out_indices=(1, 2, 3))
    network.load_state_dict(load_file(FILE), strict=True)
    assert network.feature_info.reduction() == [4, 8, 16]
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_backbone_finds_it_without_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADBENCH_WEIGHTS", raising=False)
    backbone = Backbone(NAME, [1, 2, 3], "bundled")
    assert backbone.weights.source == "bundled"
    with safe_open(FILE, "pt") as file:
        metadata = file.metadata()
    for stated, used in (("mean", backbone.mean), ("std", backbone.std)):
        expected = torch.tensor([float(v) for v in metadata[stated].split(",")])
        torch.testing.assert_close(used.flatten(), expected)
    maps = backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in maps] == [(16, 24), (8, 12), (4, 6)]


def pictures(category: str, kinds: dict[str, int], split: str) -> list[synthetic.Picture]:
    return [synthetic.draw(category, split, kind, i) for kind, count in kinds.items() for i in range(count)]


def images(drawn: list[synthetic.Picture]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(p.image).permute(2, 0, 1) for p in drawn]).float() / 255


def scored(method: Method, category: str, train: int, normal: int, each: int) -> tuple[float, float]:
    """Image and pixel AUROC of a method on (a part of) a synthetic category."""
    tests = pictures(category, {"good": normal} | dict.fromkeys(synthetic.DEFECTS, each), "test")
    method.fit(TensorTrainSet(images(pictures(category, {"good": train}, "train"))), Run())
    method.eval()
    with torch.no_grad():
        scores, maps = method.predict(Inputs(images(tests), ("",) * len(tests)))
    assert maps is not None
    masks = torch.stack([torch.from_numpy(p.mask) for p in tests])
    maps = torch.nn.functional.interpolate(maps[:, None], masks.shape[1:], mode="bilinear")[:, 0]
    labels = masks.flatten(1).any(1)
    return (
        float(roc_auc_score(labels, scores)),
        float(roc_auc_score(masks.flatten(), maps.flatten())),
    )


def patchcore(weights: str) -> PatchCore:
    """As conf/method/patchcore.yaml has it."""
    model = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "method" / "patchcore.yaml").model)
    assert isinstance(model, dict)
    settings = {str(k): v for k, v in model.items() if k not in ("_target_", "backbone")}
    return PatchCore(backbone=Backbone(NAME, model["backbone"]["layers"], weights), **settings)


def test_features_beat_the_untrained_network_and_the_mean_image() -> None:
    image, pixel = scored(patchcore("bundled"), "mosaic", train=12, normal=8, each=2)
    assert image > 0.9
    assert pixel > 0.95
    for floor in (patchcore("random"), MeanImage(sigma=4.0)):
        image, pixel = scored(floor, "mosaic", train=12, normal=8, each=2)
        assert image < 0.8
        assert pixel < 0.93


def test_numbers_of_the_synthetic_set_mean_something() -> None:
    counts = synthetic.TRAIN, synthetic.TEST_NORMAL, synthetic.TEST_PER_DEFECT
    means = {}
    for name, method in {
        "bundled": lambda: patchcore("bundled"),
        "random weights": lambda: patchcore("random"),
        "mean image": lambda: MeanImage(sigma=4.0),
    }.items():
        rows = torch.tensor([scored(method(), category, *counts) for category in synthetic.CATEGORIES])
        means[name] = rows.mean(0).tolist()
    assert min(means["bundled"]) > 0.95, means
    assert max(means["random weights"]) < 0.93, means
    assert max(means["mean image"]) < 0.8, means

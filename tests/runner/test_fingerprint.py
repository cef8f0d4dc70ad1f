from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ad_bench import config
from ad_bench.runner import fingerprint
from ad_bench.samples import Group, Sample


def fit(
    tmp_path: Path, *words: str, seed: int = 0, weights: tuple[str, ...] = ("aa",), images: int = 2
) -> str:
    paths = [tmp_path / f"{i}.png" for i in range(images)]
    for path in paths:
        path.write_bytes(b"x" * 10)
    samples = tuple(Sample(p, p.name, "c", "train", 0) for p in paths)
    (choice,) = config.choices(["method=patchcore", *words])
    return fingerprint.fit_fingerprint(choice.config, Group("c", samples, {}), seed, "geometry", weights)


def test_what_changes_no_number_changes_no_fingerprint(tmp_path: Path) -> None:
    same = {
        fit(tmp_path),
        fit(tmp_path, "rerun=always", "save.maps=true", "paths.results=/elsewhere", "runtime.threads=1"),
        fit(tmp_path, "backbone.weights=/one/machine/wide.safetensors"),
    }
    assert len(same) == 1


def test_what_changes_a_number_changes_it(tmp_path: Path) -> None:
    different = [
        fit(tmp_path),
        fit(tmp_path, "method.model.coreset_ratio=0.2"),
        fit(tmp_path, "backbone=resnet18"),
        fit(tmp_path, "runtime=debug"),
        fit(tmp_path, "method.revision=2"),
        fit(tmp_path, seed=1),
        fit(tmp_path, weights=("bb",)),
        fit(tmp_path, images=3),
    ]
    assert len(set(different)) == len(different)


def test_a_changed_image_of_the_same_name_is_seen(tmp_path: Path) -> None:
    before = fit(tmp_path)
    (tmp_path / "0.png").write_bytes(b"x" * 11)
    samples = tuple(Sample(tmp_path / f"{i}.png", f"{i}.png", "c", "train", 0) for i in range(2))
    (choice,) = config.choices(["method=patchcore"])
    after = fingerprint.fit_fingerprint(choice.config, Group("c", samples, {}), 0, "geometry", ("aa",))
    assert after != before


def test_sources_are_the_method_its_parts_and_no_other(tmp_path: Path) -> None:
    (choice,) = config.choices(["method=patchcore"])
    model = OmegaConf.to_container(choice.config.method.model)
    found = set(fingerprint.sources(*fingerprint.targets(model)))
    assert {"ad_bench.methods.patchcore", "ad_bench.parts.coreset", "ad_bench.parts.backbone"} <= found
    assert "ad_bench.parts.weights" in found  # through the backbone
    assert not found & {"ad_bench.parts.gaussian", "ad_bench.methods.padim", "ad_bench.contract"}
    assert set(fingerprint.sources("no.such.module")) == set()


def test_a_source_counts_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_fingerprinted_method.py"

    def hashed(text: str) -> dict[str, str]:
        module.write_text(text)
        fingerprint._read.cache_clear()
        return fingerprint.sources("my_fingerprinted_method")

    assert hashed("x = 1\n") == hashed("x = 1   \n")
    assert hashed("x = 1\n") != hashed("x = 2\n")

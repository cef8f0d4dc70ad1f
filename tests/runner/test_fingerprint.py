from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ad_bench import config
from ad_bench.runner import fingerprint
from ad_bench.runner.plan import Fit, make_plan
from ad_bench.samples import Group, MaskFiles, Sample, mask_files


def fit(
    tmp_path: Path, *words: str, seed: int = 0, weights: tuple[str, ...] = ("aa",), images: int = 2
) -> str:
    paths = [tmp_path / f"{i}.png" for i in range(images)]
    for path in paths:
        path.write_bytes(b"x" * 10)
    samples = tuple(Sample(p, p.name, "c", "train", 0) for p in paths)
    (choice,) = config.choices(["method=patchcore", *words])
    return fingerprint.Fingerprints().fit(choice.config, Group("c", samples, {}), seed, "geometry", weights)


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
    after = fingerprint.Fingerprints().fit(choice.config, Group("c", samples, {}), 0, "geometry", ("aa",))
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


def plain_digest(facts: Any) -> str:
    """The rule itself: JSON with sorted keys, hashed. Every record of the past was named by it."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def plain_identities(samples: Iterable[Sample]) -> list[Any]:
    found = []
    for s in samples:
        masks = [(path.name, path.stat().st_size) for path in mask_files(s.mask)]
        found.append([s.name, s.image.stat().st_size, s.label, s.defect, s.split, masks])
        if s.mask is not None and not isinstance(s.mask, MaskFiles):
            found[-1].append(repr(s.mask))
    return found


def plain_fit(fit: Fit) -> str:
    """The hash of a fit, each part made anew."""
    settings = OmegaConf.to_container(fit.config.method)
    assert isinstance(settings, dict)
    model = without_paths(settings["model"])
    group = fit.group
    facts = {
        "settings": {
            "model": model,
            **{key: settings.get(key) for key in ("needs", "loader", "transductive")},
        },
        "sources": settings.get("revision")
        or fingerprint.sources(
            *fingerprint.targets(model),
            "ad_bench.geometry",
            "ad_bench.datasets.images",
            "ad_bench.runner.trainset",
        ),
        "train": plain_identities(
            [*group.train, *group.support, *(s for part in group.stages for s in part)]
        ),
        "seed": fit.seed,
        "geometry": str(fit.geometry),
        "weights": sorted(one.sha256 or "random" for one in fit.weights),
        "max_train": fit.config.runtime.max_train,
    }
    if fit.config.runtime.max_epochs is not None:
        facts["max_epochs"] = fit.config.runtime.max_epochs
    found = plain_digest(facts)
    augment = list(fit.config.protocol.get("augment") or ())
    if augment and group.support:
        found = plain_digest([found, augment, fingerprint.sources("ad_bench.parts.augmentation")])
    return plain_digest([found, "skipped"]) if group.skipped else found


def without_paths(model: Any) -> Any:
    if isinstance(model, dict):
        return {
            key: without_paths(value)
            for key, value in model.items()
            if not (key == "weights" and "name" in model)
        }
    return [without_paths(value) for value in model] if isinstance(model, list) else model


def plain_evaluation(fit: Fit, tests: tuple[Sample, ...]) -> str:
    return plain_digest(
        {
            "tests": plain_identities(tests),
            "geometry": str(fit.geometry),
            "paper_eval": fit.paper_eval,
            "metrics": OmegaConf.to_container(fit.config.metric),
            "sources": fingerprint.sources("ad_bench.metrics", "ad_bench.runner.evaluation"),
            "max_test": fit.config.runtime.max_test,
            "notes": sorted(map(str, fit.group.notes.items())),
        }
    )


@pytest.mark.parametrize(
    "words",
    [
        ["method=patchcore,padim,random,devnet,regad"],  # three protocols, one skips nothing
        ["method=patchcore", "protocol=few_shot", "protocol.augment=[flips]"],
        ["method=patchcore", "protocol=noisy", "protocol.ratio=0.3"],
        ["method=patchcore,uniad", "protocol=continual,unified"],
        ["method=patchcore", "protocol=supervised"],  # skipped: it sees no labels
        ["method=patchcore,stfpm", "runtime=debug", "method.revision=7"],
    ],
)
def test_what_a_plan_shares_changes_no_hash(words: list[str], data: Path, tmp_path: Path) -> None:
    places = [f"paths.data={data.parent}", f"paths.results={tmp_path / 'results'}", "backbone.weights=random"]
    choices = config.choices([*words, "dataset=mvtec", "seed=0,1,2", *places], multirun=True)
    plan = make_plan(choices)
    assert len(plan.fits) >= 3 * len(choices)
    for fit in plan.fits:
        for cell in fit.cells:
            assert cell.fit_hash == plain_fit(fit), cell.id
            assert cell.evaluation_hash == plain_evaluation(fit, cell.tests), cell.id
            assert cell.fingerprint == plain_digest([cell.fit_hash, cell.evaluation_hash])


def test_hashes_of_earlier_versions(tmp_path: Path) -> None:
    """Made before hashes shared anything: the next change of the rule would lose every record."""
    for name in ("a.png", "b.png", "m.png"):
        (tmp_path / name).write_bytes(b"x" * 10)
    a, b = (Sample(tmp_path / f"{n}.png", f"c/{n}.png", "c", "train", 0) for n in "ab")
    t = Sample(tmp_path / "b.png", "c/t.png", "c", "test", 1, "cut", MaskFiles((tmp_path / "m.png",)))
    node = {
        "method": {
            "model": {"_target_": "x.Y", "backbone": {"name": "n.t", "weights": "/there"}, "rate": 0.1},
            "needs": [],
            "loader": {"batch_size": 2},
            "revision": 3,
        },
        "metric": {"names": None, "aupro_limits": [0.3, 0.05]},
        "runtime": {"max_train": None, "max_test": 4, "max_epochs": 2},
    }
    group = Group("c", (a, b), {"c": (t,)}, support=(a,))
    settings = OmegaConf.create(node)
    assert fingerprint.Fingerprints().fit(settings, group, 5, "a geometry", ["bb", "aa"]) == "7b595e194aba"


def test_a_source_is_found_without_importing_what_is_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimiser is a `_target_` too, and torch takes two seconds that a plan need not."""
    for name in ("heavy/__init__.py", "heavy/below/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('imported')\n")
    for name in ("heavy/part.py", "heavy/below/deep.py", "spread/part.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = {
        module: fingerprint.importable(module)
        for module in ("heavy", "heavy.part", "heavy.below", "heavy.below.deep", "spread.part")
    }
    assert found == {
        "heavy": tmp_path / "heavy/__init__.py",
        "heavy.part": tmp_path / "heavy/part.py",
        "heavy.below": tmp_path / "heavy/below/__init__.py",
        "heavy.below.deep": tmp_path / "heavy/below/deep.py",
        "spread.part": tmp_path / "spread/part.py",  # a folder without __init__.py
    }
    assert fingerprint.importable("heavy.part.Thing") is None
    assert fingerprint.importable("no_such_package.part") is None
    assert fingerprint.importable("os.path") == fingerprint.importable("posixpath")  # put there by hand

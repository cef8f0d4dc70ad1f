"""What a result depends on, as two hashes: of the fit and of its evaluation. Imports no torch.

A record is found again by them, so nothing may enter that does not change a number: no times, no machine
paths, no package version (a release must not void every record), no order of keys.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ad_bench.samples import Group, MaskFiles, Sample, mask_files

# Keys of a method's YAML that say how it learns and predicts; the others describe it.
FIT_KEYS = ("model", "needs", "loader", "transductive")
PACKAGE = Path(__file__).resolve().parents[1]


def fit_fingerprint(
    config: DictConfig, group: Group, seed: int, geometry: Any, weights: Iterable[str]
) -> str:
    """Hash of everything that the fitted method depends on; `weights` are SHA-256 sums or 'random'."""
    method = OmegaConf.to_container(config.method, resolve=True)
    assert isinstance(method, dict)
    settings = {key: method.get(key) for key in FIT_KEYS}
    settings["model"] = _without_weight_paths(settings["model"])
    limit = config.runtime.get("max_epochs")  # of debug runs; without one nothing is added to the hash
    return digest(
        {
            **({} if limit is None else {"max_epochs": limit}),
            "settings": settings,
            "sources": method.get("revision")
            or sources(
                *targets(settings["model"]),
                "ad_bench.geometry",
                "ad_bench.datasets.images",
                "ad_bench.runner.trainset",
            ),
            "train": [_identity(s) for s in (*group.train, *group.support, *sum(group.stages, ()))],
            "seed": seed,
            "geometry": str(geometry),
            "weights": sorted(weights),
            "max_train": config.runtime.max_train,
        }
    )


def evaluation_fingerprint(
    config: DictConfig,
    tests: Iterable[Sample],
    geometry: Any,
    paper_eval: Mapping[str, Any] | None,
    protocol_notes: Mapping[str, object],
) -> str:
    """Hash of everything that turns predictions into metrics."""
    return digest(
        {
            "tests": [_identity(s) for s in tests],
            "geometry": str(geometry),
            "paper_eval": paper_eval,
            "metrics": _plain(config.metric),
            "sources": sources("ad_bench.metrics", "ad_bench.runner.evaluation"),
            "max_test": config.runtime.max_test,
            "notes": sorted(map(str, protocol_notes.items())),
        }
    )


def digest(facts: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of `facts` as JSON with sorted keys."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _without_weight_paths(model: Any) -> Any:
    """The model's settings without where its weights lie: their hash counts, not their folder."""
    if isinstance(model, dict):
        return {
            k: _without_weight_paths(v) for k, v in model.items() if not (k == "weights" and "name" in model)
        }
    if isinstance(model, list):
        return [_without_weight_paths(v) for v in model]
    return model


def _identity(sample: Sample) -> list[Any]:
    masks = [(path.name, _size(path)) for path in mask_files(sample.mask)]
    facts = [sample.name, _size(sample.image), sample.label, sample.defect, sample.split, masks]
    if sample.mask is not None and not isinstance(sample.mask, MaskFiles):
        facts.append(repr(sample.mask))  # what a table says instead of a file
    return facts


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # the store will say what is wrong with it


def targets(model: Any) -> list[str]:
    """The modules of every `_target_` inside a method's `model`: the method's own, its backbone's, ..."""
    if isinstance(model, list):
        return [module for value in model for module in targets(value)]
    if not isinstance(model, dict):
        return []
    own = [str(model["_target_"]).rpartition(".")[0]] if "_target_" in model else []
    return own + [module for value in model.values() for module in targets(value)]


def sources(*modules: str) -> dict[str, str]:
    """Hashes of the source files of modules and of all of adbench that they import, by module name."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or (path := importable(module)) is None:
            continue
        text, imported = _read(path, module)
        found[module] = text
        waiting += imported
    return found


def importable(module: str) -> Path | None:
    """The source file of a module of adbench or of a user's own folder, without importing it."""
    if module.startswith("ad_bench."):
        base = PACKAGE.joinpath(*module.split(".")[1:])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).suffix == ".py" else None


@functools.cache
def _read(path: Path, module: str) -> tuple[str, list[str]]:
    """The file's hash, blind to trailing blanks, and the adbench modules that it imports."""
    text = path.read_text(encoding="utf-8")
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    imported: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    own = [name for name in imported if name.startswith("ad_bench.") and name not in NO_INFLUENCE]
    return hashlib.sha256(lines.encode()).hexdigest()[:16], own


# Modules that words and interfaces come from; no number does.
NO_INFLUENCE = {"ad_bench.errors", "ad_bench.contract", "ad_bench.samples"}

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
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec
from itertools import chain
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ad_bench.config import precision
from ad_bench.samples import Group, MaskFiles, Sample, mask_files, remembered

# Keys of a method's YAML that say how it learns and predicts; the others describe it.
FIT_KEYS = ("model", "needs", "loader", "transductive")
FIT_SOURCES = ("ad_bench.geometry", "ad_bench.datasets.images", "ad_bench.runner.trainset")
PACKAGE = Path(__file__).resolve().parents[1]


class Fingerprints:
    """The hashes of one planning: each file is looked at once, and what many hashes share is written once.

    Not to be kept any longer: a file that changes afterwards would not be seen. Things are known by identity,
    which holds because they are kept here; nobody changes them meanwhile.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}
        self._sources: dict[tuple[str, ...], str] = {}
        self._size = functools.cache(_size)
        self._identities = remembered(self._written)

    def fit(self, config: DictConfig, group: Group, seed: int, geometry: Any, weights: Iterable[str]) -> str:
        """Hash of everything that the fitted method depends on; `weights` are SHA-256 sums or 'random'."""
        return _hash(
            {
                **self._once(config, self._settings)[0],
                "train": self._identities(
                    (*group.train, *group.support, *chain(*group.stages))
                    if group.support or group.stages
                    else group.train
                ),
                "seed": _text(seed),
                "geometry": self._once(geometry, _quoted),
                "weights": self._once(weights, lambda sums: _text(sorted(sums))),
            }
        )

    def evaluation(
        self,
        config: DictConfig,
        tests: Iterable[Sample],
        geometry: Any,
        paper_eval: Mapping[str, Any] | None,
        protocol_notes: Mapping[str, object],
    ) -> str:
        """Hash of everything that turns predictions into metrics."""
        return _hash(
            {
                **self._once(config, self._settings)[1],
                "tests": self._identities(tests),
                "geometry": self._once(geometry, _quoted),
                "paper_eval": self._once(paper_eval, _text),
                "notes": _text(sorted(map(str, protocol_notes.items()))),
            }
        )

    def sources(self, *modules: str) -> str:
        """The sources of modules, see `sources`, as JSON."""
        if modules not in self._sources:
            self._sources[modules] = _text(sources(*modules))
        return self._sources[modules]

    def _once(self, thing: Any, make: Callable[[Any], Any]) -> Any:
        """What `make` gives for a thing, which is always asked for with the same `make`."""
        found = self._known.get(id(thing))
        if found is None:
            found = self._known[id(thing)] = thing, make(thing)
        return found[1]

    def _settings(self, config: DictConfig) -> tuple[dict[str, str], dict[str, str]]:
        """What a configuration alone gives to the hash of a fit and of an evaluation, by key, as JSON."""
        method = OmegaConf.to_container(config.method, resolve=True)
        assert isinstance(method, dict)
        settings = {key: method.get(key) for key in FIT_KEYS}
        settings["model"] = _without_weight_paths(settings["model"])
        revision = method.get("revision")
        fit = {
            "settings": _text(settings),
            "sources": _text(revision)
            if revision
            else self.sources(*targets(settings["model"]), *FIT_SOURCES),
            "max_train": _text(config.runtime.max_train),
        }
        limit = config.runtime.get("max_epochs")  # of debug runs; without one nothing is added to the hash
        if limit is not None:
            fit["max_epochs"] = _text(limit)
        if (computed := precision(config)) != "float32":
            fit["precision"] = _text(computed)
        evaluation = {
            "metrics": _text(_plain(config.metric)),
            "sources": self.sources("ad_bench.metrics", "ad_bench.runner.evaluation"),
            "max_test": _text(config.runtime.max_test),
        }
        return fit, evaluation

    def _written(self, samples: Iterable[Sample]) -> str:
        """The identities of samples as a list in JSON."""
        samples, known = tuple(samples), self._known
        try:  # mostly all are known, and a sweep asks for millions
            texts = [known[id(sample)][1] for sample in samples]
        except KeyError:
            texts = [self._once(sample, self._identity) for sample in samples]
        return f"[{', '.join(texts)}]"

    def _identity(self, sample: Sample) -> str:
        return _text(_identity(sample, self._size))


def digest(facts: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of `facts` as JSON with sorted keys."""
    return hashlib.sha256(_text(facts).encode()).hexdigest()[:12]


def _text(facts: Any) -> str:
    return json.dumps(facts, sort_keys=True, default=str)


def _quoted(thing: Any) -> str:
    return _text(str(thing))


def _hash(facts: Mapping[str, str]) -> str:
    """`digest` of facts whose values are JSON already."""
    text = ", ".join([f'"{key}": {facts[key]}' for key in sorted(facts)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:12]


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


def _identity(sample: Sample, size: Callable[[Path], int]) -> list[Any]:
    masks = [(path.name, size(path)) for path in mask_files(sample.mask)]
    facts = [sample.name, size(sample.image), sample.label, sample.defect, sample.split, masks]
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
        spec = _spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).suffix == ".py" else None


def _spec(module: str) -> ModuleSpec | None:
    """What `importlib.util.find_spec` says, which imports the packages above: torch takes seconds."""
    above = module.rpartition(".")[0]
    if not above or above in sys.modules or module in sys.modules:
        return importlib.util.find_spec(module)
    package = _spec(above)
    if package is None or package.submodule_search_locations is None:
        return None
    for finder in sys.meta_path:
        spec = finder.find_spec(module, package.submodule_search_locations)
        if spec is not None:
            return spec
    return importlib.util.find_spec(module)  # a package may make modules that no finder knows


@functools.cache
def _read(path: Path, module: str) -> tuple[str, list[str]]:
    """The file's hash, blind to trailing blanks, and the adbench modules that it imports."""
    text = path.read_text(encoding="utf-8")
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    imported: list[str] = []
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            imported += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        # Imports are statements: what only holds expressions is not looked into.
        waiting += [one for one in ast.iter_child_nodes(node) if isinstance(one, STATEMENTS)]
    own = [name for name in imported if name.startswith("ad_bench.") and name not in NO_INFLUENCE]
    return hashlib.sha256(lines.encode()).hexdigest()[:16], own


STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
# Modules that words and interfaces come from; no number does.
NO_INFLUENCE = {"ad_bench.errors", "ad_bench.contract", "ad_bench.samples"}

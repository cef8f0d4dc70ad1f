"""The method of a run that kept its model: built from its settings, filled from its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ad_bench import records
from ad_bench.config import backbones, options, precision
from ad_bench.contract import Method
from ad_bench.errors import AdbenchError, UsageError, WeightsError
from ad_bench.foreign import check_config
from ad_bench.geometry import Geometry
from ad_bench.parts.weights import find_weights
from ad_bench.records import Record
from ad_bench.runner.heap import keep_freed_memory
from ad_bench.runner.plan import method_geometry
from ad_bench.runner.precision import allow, apply

MODEL = "model.safetensors"


@dataclass(frozen=True)
class SavedRun:
    """A fitted method in eval mode on the CPU, and the record and settings that it came with."""

    folder: Path
    record: Record
    config: DictConfig
    geometry: Geometry
    method: Method


def load_run(where: Path, config_dirs: Sequence[Path] = (), trust: bool = False) -> SavedRun:
    """What a run folder (or its record.json) holds. Raises UsageError for what cannot score images.

    The settings say what is built, and may come from anyone: only what the method files of adbench and of
    `config_dirs` name is called, unless `trust`. Raises WeightsError where the tensors do not fit.
    """
    folder = where.parent if where.name == "record.json" else where
    record = _record(folder)
    if not (folder / MODEL).is_file():
        raise UsageError(
            f"{folder} has no {MODEL}: the run did not keep its model. Run it again with save.model=true"
            " rerun=always"
        )
    config = _settings(folder, config_dirs, trust)
    if config.method.get("transductive"):
        raise UsageError(
            f"{record['method']} scores the images of a test set by one another: a single image has no score"
        )
    geometry, _ = method_geometry(config)
    return SavedRun(folder, record, config, geometry, _method(folder, config).eval())


def _record(folder: Path) -> Record:
    try:
        record = records.read(folder / "record.json")
    except FileNotFoundError as error:
        raise UsageError(
            f"no record.json in {folder}: name a run's folder, as in"
            " results/cells/<dataset>/<category>/<method>/<protocol>-seed<k>/<fingerprint>"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if record.get("status") != "done":
        raise UsageError(f"{folder} is of a run that {record.get('status')}: it left no model")
    return record


def _settings(folder: Path, config_dirs: Sequence[Path], trust: bool) -> DictConfig:
    path = folder / "config.yaml"
    try:
        check_config(path)
        loaded = OmegaConf.load(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} {error}; it is not what a run writes") from error
    if not trust:
        _check_targets(OmegaConf.to_container(loaded, resolve=False), path, config_dirs)
    try:
        config = OmegaConf.create(OmegaConf.to_container(loaded, resolve=True))
    except OmegaConfBaseException as error:
        raise UsageError(f"{path} cannot be resolved: {error}") from error
    parts = ("method", "dataset", "runtime")
    if not isinstance(config, DictConfig) or any(not OmegaConf.is_dict(config.get(key)) for key in parts):
        raise UsageError(f"{path} holds no settings of a run")
    return config


def _check_targets(held: Any, path: Path, config_dirs: Sequence[Path]) -> None:
    """Refuse what would call anything but the parts of a known method, or look beyond the file."""
    known = {
        str(value)
        for file in options("method", config_dirs).values()
        for key, value in _items(yaml.safe_load(file.read_text(encoding="utf-8")))
        if key == "_target_"
    }
    method = held.get("method")
    for key, value in _items(method.get("model") if isinstance(method, dict) else None):
        if key.startswith("_") and key not in ("_target_", "_partial_"):
            raise UsageError(f"{path} sets {key} of a part, which no method's file does. {_TRUST}")
        if key == "_target_" and not (isinstance(value, str) and value in known):
            raise UsageError(f"{path} would call {str(value)[:80]!r}, which no method's file names. {_TRUST}")
    if any("${" in str(value) for pair in _items(held) for value in pair):
        raise UsageError(
            f"{path} refers to values elsewhere (${{...}}), which a run's file never does. {_TRUST}"
        )


_TRUST = (
    "If it is a method of yours, --config-dir DIR names the folder of its file; if you trust who made the"
    " run, --trust builds whatever the file says"
)


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, and every bare value under a blank key, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key), value
            yield from _items(value)
    elif isinstance(node, list):
        for value in node:
            yield "", value
            yield from _items(value)


def _method(folder: Path, config: DictConfig) -> Method:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for node in backbones(config.method.model):
        node.weights = _local_weights(str(node.name), node.get("weights"))
    try:
        method = instantiate(config.method.model)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, AdbenchError):
            raise cause from None
        raise UsageError(f"{folder / 'config.yaml'} builds no method: {cause}") from cause
    if not isinstance(method, Method):
        raise UsageError(f"{folder / 'config.yaml'} builds {type(method).__name__}, which is no method")
    try:
        state = load_file(folder / MODEL)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder / MODEL} is damaged ({error}); run the cell again") from error
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise WeightsError(
            f"{folder / MODEL} does not fit the method that config.yaml describes: {lines[:400]}. Was one of"
            " the two changed, or was the run made by another version (see versions in record.json)?"
        ) from error
    apply(precision(config), method)
    return method


def _local_weights(name: str, weights: Any) -> str:
    """Pretrained weights if they are here, as they may state the network's padding; else none.

    Their numbers do not matter: all of them come from the saved model. So nothing is downloaded for them.
    """
    try:
        found = find_weights(name, None if weights is None else str(weights), online=False)
    except WeightsError:
        return "random"
    return str(found.path) if found.path else "random"


def begin(saved: SavedRun, device: torch.device) -> None:
    """The same numbers as in the run: its seed, and its threads where it set them."""
    from ad_bench.runner.cell import seed_everything

    keep_freed_memory()
    if saved.config.runtime.get("threads") is not None:
        torch.set_num_threads(int(saved.config.runtime.threads))
    allow(precision(saved.config), device)
    seed_everything(int(saved.record["seed"]), device)

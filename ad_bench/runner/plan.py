"""Choices -> fits and cells: what there is to do, and what is done. Imports no torch.

A choice is composed once; categories and seeds are expanded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ad_bench.config import Choice, backbones
from ad_bench.datasets.dataset import DataSet
from ad_bench.errors import AdbenchError, UsageError, closest
from ad_bench.geometry import Geometry
from ad_bench.metrics.settings import MetricSettings
from ad_bench.parts.weights import Weights, find_weights
from ad_bench.records import CellId, Record, find
from ad_bench.runner.fingerprint import digest, evaluation_fingerprint, fit_fingerprint
from ad_bench.runner.maps import stored_as
from ad_bench.samples import Group, Sample

RERUN = ("never", "failed", "always")


@dataclass
class Cell:
    """One line of a plan: `done` holds its record where it has one that counts."""

    id: CellId
    tests: tuple[Sample, ...]
    fit_hash: str
    evaluation_hash: str
    done: Record | None = None

    @property
    def fingerprint(self) -> str:
        """What the cell's folder is named by."""
        return digest([self.fit_hash, self.evaluation_hash])


@dataclass
class Fit:
    """One training and the cells that it is scored as."""

    config: DictConfig
    group: Group
    seed: int
    geometry: Geometry
    paper_eval: dict[str, Any] | None
    weights: tuple[Weights, ...]
    cells: list[Cell]
    textures: frozenset[str] = frozenset()

    @property
    def waiting(self) -> list[Cell]:
        """The cells that have no record yet."""
        return [cell for cell in self.cells if cell.done is None]


@dataclass
class Plan:
    """What a command asks for."""

    fits: list[Fit] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # categories that the disk lacks, as data set/category

    @property
    def cells(self) -> list[Cell]:
        """All cells, the finished ones included."""
        return [cell for fit in self.fits for cell in fit.cells]


def make_plan(choices: Sequence[Choice]) -> Plan:
    """Look at the disk: data, weights, records. Every problem is found now, before hours are spent.

    Raises UsageError, listing all that is missing, before anything runs.
    """
    plan, problems = Plan(), []
    datasets: dict[str, DataSet] = {}
    for choice in choices:
        try:
            _add(plan, choice, datasets)
        except AdbenchError as error:
            text = str(error)
            if text not in problems:
                problems.append(text)
    if problems:
        raise UsageError("\n".join(problems))
    return plan


def _add(plan: Plan, choice: Choice, datasets: dict[str, DataSet]) -> None:
    config = choice.config
    if config.rerun not in RERUN:
        raise UsageError(
            f"rerun={config.rerun}: expected {', '.join(RERUN)}.{closest(str(config.rerun), RERUN)}"
        )
    stored_as(config.save.maps)  # refuses a word that it does not know
    MetricSettings.from_config(OmegaConf.to_container(config.metric))  # type: ignore[arg-type]
    key = str(OmegaConf.to_container(config.dataset))
    dataset = datasets.setdefault(key, DataSet.from_config(config.dataset))
    categories = _categories(choice, dataset, plan)
    samples = {category: _limited(dataset.samples(category), config) for category in categories}
    geometry, paper_eval = method_geometry(config)
    weights = find_backbones(config)
    for seed in choice.seeds:
        for group in protocol_groups(config, samples, seed):
            plan.fits.append(_fit(choice, group, seed, geometry, paper_eval, weights, dataset))


def _categories(choice: Choice, dataset: DataSet, plan: Plan) -> list[str]:
    available = dataset.available()
    unknown = [c for c in choice.categories if c not in dataset.categories]
    if unknown:
        raise UsageError(
            f"{dataset.id} has no category '{unknown[0]}'."
            f"{closest(unknown[0], dataset.categories, 'It has: ' + ', '.join(dataset.categories))}"
        )
    absent = [c for c in choice.categories if c not in available]
    if absent:
        raise UsageError(
            f"{dataset.id}: category {', '.join(absent)} is not below {dataset.root};"
            f" there are: {', '.join(available) or 'none'}"
        )
    if not choice.categories:
        for category in dataset.categories:
            if category not in available and f"{dataset.id}/{category}" not in plan.missing:
                plan.missing.append(f"{dataset.id}/{category}")
    if not available:
        raise UsageError(
            f"{dataset.id}: none of its {len(dataset.categories)} categories is below {dataset.root}"
        )
    return list(choice.categories or available)


def _limited(samples: Sequence[Sample], config: DictConfig) -> tuple[Sample, ...]:
    """All samples, or in debug runs a few of each split, normal and anomalous ones in turn."""
    limits = {"train": config.runtime.max_train, "test": config.runtime.max_test}
    kept: list[Sample] = []
    for split in ("train", "validation", "test"):
        part = [s for s in samples if s.split == split]
        limit = limits.get(split)
        if limit is not None and len(part) > limit:
            normal, anomalous = [s for s in part if not s.label], [s for s in part if s.label]
            half = min(len(anomalous), limit // 2)
            part = normal[: limit - half] + anomalous[:half]
        kept += part
    return tuple(kept)


def method_geometry(config: DictConfig) -> tuple[Geometry, dict[str, Any] | None]:
    """How images become inputs, and how the paper scores pixels; a data set may replace the first.

    Where it does, the paper's size no longer fits and masks are compared at the size of the input.
    """
    paper_eval = OmegaConf.to_container(config.method.paper_eval) if config.method.get("paper_eval") else None
    assert paper_eval is None or isinstance(paper_eval, dict)
    replaced = config.dataset.get("input")
    if replaced and paper_eval is not None:
        paper_eval["size"] = None
    return Geometry.from_config(config.method.input, replaced_by=replaced), paper_eval  # type: ignore[return-value]


def find_backbones(config: DictConfig) -> tuple[Weights, ...]:
    """Where the weights of the method's backbones lie; raises WeightsError where one is nowhere."""
    return tuple(
        find_weights(node.name, node.get("weights")) for node in backbones(config.method.get("model"))
    )


def protocol_groups(config: DictConfig, samples: Mapping[str, tuple[Sample, ...]], seed: int) -> list[Group]:
    """The groups that the protocol chooses."""
    from hydra.utils import instantiate

    return list(instantiate(config.protocol.groups)(samples=samples, seed=seed))


def _fit(
    choice: Choice,
    group: Group,
    seed: int,
    geometry: Geometry,
    paper_eval: dict[str, Any] | None,
    weights: tuple[Weights, ...],
    dataset: DataSet,
) -> Fit:
    config = choice.config
    sums = [w.sha256 or "random" for w in weights]
    fit_hash = fit_fingerprint(config, group, seed, geometry, sums)
    results = Path(config.paths.results)
    cells = []
    for category, tests in group.tests.items():
        ident = CellId(dataset.id, category, choice.method, choice.variant, choice.protocol, seed)
        cell = Cell(
            ident, tests, fit_hash, evaluation_fingerprint(config, tests, geometry, paper_eval, group.notes)
        )
        record = find(results, ident, cell.fingerprint)
        if record and (
            config.rerun == "never" or (config.rerun == "failed" and record["status"] != "failed")
        ):
            cell.done = record
        cells.append(cell)
    return Fit(config, group, seed, geometry, paper_eval, weights, cells, frozenset(dataset.textures))

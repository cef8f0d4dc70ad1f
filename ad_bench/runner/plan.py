"""Choices -> fits and cells: what there is to do, and what is done. Imports no torch.

A choice is composed once; categories and seeds are expanded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ad_bench.config import Choice, backbones
from ad_bench.datasets.dataset import DataSet
from ad_bench.errors import AdbenchError, UsageError, WeightsError, WeightsMissing, closest
from ad_bench.geometry import Geometry
from ad_bench.metrics.settings import MetricSettings
from ad_bench.parts.augmentation import check_augmentations
from ad_bench.parts.weights import Weights, find_weights
from ad_bench.records import CellId, Record, find, no_collecting
from ad_bench.runner import stopping
from ad_bench.runner.fingerprint import Fingerprints, digest, sources
from ad_bench.runner.maps import stored_as
from ad_bench.samples import ANOMALOUS, Group, Sample, remembered

RERUN = ("never", "failed", "always")
READS = ("asked", "all")


@dataclass
class Cell:
    """One line of a plan: `done` holds its record where it has one that counts."""

    id: CellId
    tests: tuple[Sample, ...]
    fit_hash: str
    evaluation_hash: str
    done: Record | None = None

    @cached_property
    def fingerprint(self) -> str:
        """What the cell's folder is named by."""
        return digest([self.fit_hash, self.evaluation_hash])


@dataclass(frozen=True, eq=False)
class Sharing:
    """Whose features a fit can use: fits of one group run the same backbones over the same batches.

    Of one plan all fits of a group have the same one.
    """

    group: tuple[Any, ...]
    layers: frozenset[int | str]  # that two or more of them read


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
    augment: tuple[str, ...] = ()  # names of the changed copies of the support
    settings: tuple[str, ...] = ()  # what differs from the method's YAML
    words: tuple[str, ...] = ()  # the overrides that plan it again, without the seed
    sharing: Sharing | None = None  # with other fits of a sweep, see packs.together

    @property
    def waiting(self) -> list[Cell]:
        """The cells that have no record yet."""
        return [cell for cell in self.cells if cell.done is None]


@dataclass
class Plan:
    """What a command asks for."""

    fits: list[Fit] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # categories that the disk lacks, as data set/category
    lacking: str = ""  # the weights that are nowhere, and what to do; who needs them has no fits here

    @property
    def cells(self) -> list[Cell]:
        """All cells, the finished ones included."""
        return [cell for fit in self.fits for cell in fit.cells]


def make_plan(choices: Sequence[Choice], complete: bool = True) -> Plan:
    """Look at the disk: data, weights, records. Every problem is found now, before hours are spent.

    Raises UsageError, listing all that is missing, before anything runs; of weights only where the plan is to
    be `complete`: a look at what there is to do can be had without them.
    """
    plan, problems, seen = Plan(), [], _Seen()
    without: dict[str, tuple[WeightsError, list[str]]] = {}  # by text, and the methods
    with no_collecting():
        for choice in choices:
            try:
                _add(plan, choice, seen)
            except WeightsError as error:
                without.setdefault(str(error), (error, []))[1].append(choice.method)
            except AdbenchError as error:
                text = str(error)
                if text not in problems:
                    problems.append(text)
    plan.lacking = _told(list(without.values()))
    if plan.lacking and complete:
        problems.append(plan.lacking)
    if problems:
        raise UsageError("\n".join(problems))
    return plan


def _told(without: Sequence[tuple[WeightsError, Sequence[str]]]) -> str:
    """What is wrong with weights, and for which methods. Where they were sought stands once."""
    if len(without) < 2:
        return "".join(str(error) for error, _ in without)
    lines, sought = [], []
    for error, methods in without:
        what = str(error)
        if isinstance(error, WeightsMissing):
            what, sought = f"no weights for '{error.args[0]}'", [f"The last of them: {error.args[1]}"]
        lines.append(f"{what} ({', '.join(dict.fromkeys(methods))})")
    return "\n".join([*lines, *sought])


class _Seen:
    """What one planning has seen of the disk. The next looks again."""

    def __init__(self) -> None:
        self.datasets: dict[str, DataSet] = {}
        self.weights: dict[tuple[str, str | None], Weights | WeightsError] = {}
        self.hashes = Fingerprints()


@dataclass(frozen=True)
class _Asked:
    """What all fits of a choice share, read once: a value of a configuration takes 20 microseconds."""

    choice: Choice
    dataset: DataSet
    geometry: Geometry
    paper_eval: dict[str, Any] | None
    weights: tuple[Weights, ...]
    sums: tuple[str, ...]  # SHA-256 of the weights, or "random"
    augment: tuple[str, ...]
    augmentation: dict[str, str]  # its sources; empty where nothing is augmented
    textures: frozenset[str]
    results: Path
    rerun: str


def _add(plan: Plan, choice: Choice, seen: _Seen) -> None:
    config = choice.config
    if config.rerun not in RERUN:
        raise UsageError(
            f"rerun={config.rerun}: expected {', '.join(RERUN)}.{closest(str(config.rerun), RERUN)}"
        )
    stored_as(config.save.maps)  # refuses a word that it does not know
    MetricSettings.from_config(OmegaConf.to_container(config.metric))  # type: ignore[arg-type]
    stopping.check(config.runtime.max_minutes, config.runtime.grace_seconds)
    dataset = _dataset(config.dataset, seen.datasets)
    categories = _categories(choice, dataset, plan)
    read = dataset.available() if _reads(config) == "all" else categories
    samples = {category: tuple(dataset.samples(category)) for category in read}
    protocol = _protocol(config, samples, _source(config, seen.datasets))
    asked = _asked(choice, dataset, seen)
    limits = config.runtime.max_train, config.runtime.max_test
    needs, trains = frozenset(config.method.needs or ()), bool(config.method.get("trains", True))
    named = str(config.protocol.id)
    for seed in choice.seeds:
        for group in protocol(seed=seed):
            tests = {category: group.tests[category] for category in categories if category in group.tests}
            if tests:
                group = _limited(replace(group, tests=tests), *limits)
                group = suited(group, choice.method, needs, trains, named)
                plan.fits.append(_fit(asked, group, seed, seen.hashes))


def _asked(choice: Choice, dataset: DataSet, seen: _Seen) -> _Asked:
    config = choice.config
    geometry, paper_eval = method_geometry(config)
    weights = find_backbones(config, seen.weights)
    augment = tuple(str(name) for name in config.protocol.get("augment") or ())
    check_augmentations(augment)
    return _Asked(
        choice,
        dataset,
        geometry,
        paper_eval,
        weights,
        tuple(one.sha256 or "random" for one in weights),
        augment,
        sources("ad_bench.parts.augmentation") if augment else {},
        frozenset(dataset.textures),
        Path(config.paths.results),
        str(config.rerun),
    )


def _dataset(node: DictConfig, datasets: dict[str, DataSet]) -> DataSet:
    """The data set of a node; choices share what it has listed."""
    key = str(OmegaConf.to_container(node))
    if key not in datasets:
        datasets[key] = DataSet.from_config(node)
    return datasets[key]


def _reads(config: DictConfig) -> str:
    """Which categories the protocol is shown: those asked for, or all that the disk has."""
    reads = str(config.protocol.get("reads", "asked"))
    if reads not in READS:
        raise UsageError(f"protocol.reads={reads}: expected {' or '.join(READS)}.{closest(reads, READS)}")
    return reads


def _source(config: DictConfig, datasets: dict[str, DataSet]) -> dict[str, tuple[Sample, ...]] | None:
    """The samples of the data set that the protocol trains on; None where it is the tested one."""
    node = config.protocol.get("source")
    if node is None:
        return None
    source = _dataset(node, datasets)
    available = source.available()
    wanted = [str(name) for name in config.protocol.get("source_categories") or ()]
    for category in wanted:
        if category not in available:
            hint = f"There are: {', '.join(available) or 'none'}"
            raise UsageError(
                f"protocol.source_categories: {source.id} has no '{category}' below {source.root}."
                f"{closest(category, available, hint)}"
            )
    if not available:
        raise UsageError(f"protocol.source: {source.id} has none of its categories below {source.root}")
    return {category: tuple(source.samples(category)) for category in wanted or available}


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
    wanted = choice.categories or available
    return [c for c in dataset.categories if c in wanted]  # the order of the words changes nothing


def _limited(group: Group, train: int | None, test: int | None) -> Group:
    """The group; in debug runs with few images."""
    if train is None and test is None:
        return group
    return replace(
        group,
        train=_few(group.train, train),
        support=_few(group.support, train),
        stages=tuple(_few(stage, train) for stage in group.stages),
        tests={category: _few(samples, test) for category, samples in group.tests.items()},
    )


def _few(samples: tuple[Sample, ...], limit: int | None) -> tuple[Sample, ...]:
    """At most `limit` of each category, half of them anomalous where there are so many."""
    if limit is None:
        return samples
    kept: list[Sample] = []
    for category in dict.fromkeys(s.category for s in samples):
        part = [s for s in samples if s.category == category]
        if len(part) > limit:
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


def find_backbones(
    config: DictConfig, known: dict[tuple[str, str | None], Weights | WeightsError] | None = None
) -> tuple[Weights, ...]:
    """Where the weights of the method's backbones lie; raises WeightsError where one is nowhere.

    `known` is what was found or sought in vain before, and grows: asking the hub may take seconds.
    """
    known, found = {} if known is None else known, []
    for node in backbones(config.method.get("model")):
        key = str(node.name), node.get("weights")
        if key not in known:
            try:
                known[key] = find_weights(*key)
            except WeightsError as error:
                known[key] = error
        one = known[key]
        if isinstance(one, WeightsError):
            raise one
        found.append(one)
    return tuple(found)


def protocol_groups(
    config: DictConfig,
    samples: Mapping[str, tuple[Sample, ...]],
    seed: int,
    source: Mapping[str, tuple[Sample, ...]] | None = None,
) -> list[Group]:
    """The groups that the protocol chooses; `source`: samples of the data set that it trains on (cross)."""
    return list(_protocol(config, samples, source)(seed=seed))


def _protocol(
    config: DictConfig,
    samples: Mapping[str, tuple[Sample, ...]],
    source: Mapping[str, tuple[Sample, ...]] | None,
) -> Callable[..., Iterable[Group]]:
    """(seed=...) -> groups."""
    from hydra.utils import instantiate

    more = {} if source is None else {"source": source}
    return partial(instantiate(config.protocol.groups), samples=samples, **more)


def suited(group: Group, method: str, needs: frozenset[str], trains: bool, protocol: str) -> Group:
    """The group; skipped with a reason where the method cannot use what the protocol gives it."""
    if group.skipped:
        return group
    labelled = _labelled(group.train)
    reason = None
    if trains and not group.train and not any(group.stages):
        reason = (
            f"{method} must be trained, and protocol={protocol} has no training images: use protocol=full or "
            "few_shot (a method that needs none says `trains: false` in its YAML)"
        )
    elif trains and labelled and not {"labels", "masks"} & needs:
        reason = (
            f"{method} sees no labels (its `needs` names neither labels nor masks): the {labelled} labelled "
            f"anomalies of protocol={protocol} would train as if they were normal. Use protocol=full, or "
            "protocol=noisy to measure just that"
        )
    elif "support" in needs and not group.support:
        reason = (
            f"{method} needs a support, a few known images of the tested category, and protocol={protocol} "
            "has none: use protocol=leave_one_out or few_shot"
        )
    return group if reason is None else replace(group, skipped=reason)


@remembered
def _labelled(train: Iterable[Sample]) -> int:
    return [sample.label for sample in train].count(ANOMALOUS)


def _fit(asked: _Asked, group: Group, seed: int, hashes: Fingerprints) -> Fit:
    choice, geometry = asked.choice, asked.geometry
    fit_hash = hashes.fit(choice.config, group, seed, geometry, asked.sums)
    augment = asked.augment if group.support else ()
    if augment:  # without, the hash is that of a fit that knows no copies
        fit_hash = digest([fit_hash, augment, asked.augmentation])
    if group.skipped:  # what was skipped is run once nothing speaks against it any more
        fit_hash = digest([fit_hash, "skipped"])
    cells = []
    for category, tests in group.tests.items():
        ident = CellId(asked.dataset.id, category, choice.method, choice.variant, choice.protocol, seed)
        evaluation = hashes.evaluation(choice.config, tests, geometry, asked.paper_eval, group.notes)
        cell = Cell(ident, tests, fit_hash, evaluation)
        record = find(asked.results, ident, cell.fingerprint)
        if record and (asked.rerun == "never" or (asked.rerun == "failed" and record["status"] != "failed")):
            cell.done = record
        cells.append(cell)
    return Fit(
        choice.config,
        group,
        seed,
        geometry,
        asked.paper_eval,
        asked.weights,
        cells,
        asked.textures,
        augment,
        choice.settings,
        (*choice.words, f"category={','.join(choice.categories)}") if choice.categories else choice.words,
    )

"""What every YAML in conf/dataset/ must keep, tried on the tree that tests/datasets/trees/<id>.py writes."""

from __future__ import annotations

import importlib
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ad_bench import cli, reference
from ad_bench.config import options
from ad_bench.datasets.check import unused_masks
from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.records import Record, read_all
from ad_bench.samples import ANOMALOUS, NORMAL, Boxes, Sample, mask_files

TREES = Path(__file__).resolve().parents[1] / "datasets" / "trees"
MADE_HERE = {"folder", "synthetic", "own"}  # no layout of somebody else's: their own tests are complete
NOT_IN_THE_SURVEY = {"real_iad", "mvtec_ad2", "aebad_v"}  # users ask for them; datasets.csv has the survey's
IDS = [name for name in options("dataset") if name not in MADE_HERE]
KEYS = {
    *("id", "title", "source", "root", "samples", "categories", "textures", "input", "split_seed"),
    *("annotation", "defined", "counts", "licence", "download", "citation"),
    *("size", "archives", "mask_files", "unverified"),
}
SPLITS = ("train", "validation", "test")
every_dataset = pytest.mark.parametrize("name", IDS)


def node(name: str, root: Path, **changes: object) -> DictConfig:
    """The `dataset` node with its parents, so that what it refers to resolves, and its root replaced."""
    own = OmegaConf.load(options("dataset")[name])
    config = OmegaConf.create({"paths": {"data": "data", "cache": "cache"}, "dataset": own})
    OmegaConf.update(config, "dataset", {"root": str(root), **changes})
    return config.dataset


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """trees("mtd") -> the root of its tree, written once."""
    written: dict[str, Path] = {}

    def write(name: str) -> Path:
        if not (TREES / f"{name}.py").is_file():
            pytest.fail(f"no tests/datasets/trees/{name}.py: write make(root), a small tree in its layout")
        if name not in written:
            root = tmp_path_factory.mktemp(name) / "root"
            root.mkdir()
            importlib.import_module(f"tests.datasets.trees.{name}").make(root)
            written[name] = root
        return written[name]

    return write


@pytest.fixture
def dataset(name: str, trees: Callable[[str], Path]) -> DataSet:
    return DataSet.from_config(node(name, trees(name)))


def listed(dataset: DataSet) -> dict[str, tuple[Sample, ...]]:
    return {category: dataset.samples(category) for category in dataset.available()}


def split_of(samples: tuple[Sample, ...], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]


def test_every_data_set_of_the_survey_has_a_yaml() -> None:
    assert set(reference.datasets()) - set(IDS) == set()


@every_dataset
def test_it_has_a_tree(name: str) -> None:
    assert (TREES / f"{name}.py").is_file(), f"write tests/datasets/trees/{name}.py with make(root)"


@every_dataset
def test_the_yaml_states_all_facts(name: str, tmp_path: Path) -> None:
    plain: Any = OmegaConf.to_container(node(name, tmp_path), resolve=True)
    assert set(plain) >= KEYS, f"{name}.yaml lacks {sorted(KEYS - set(plain))}"
    assert plain["id"] == name
    assert name in NOT_IN_THE_SURVEY or name in reference.datasets(), "ids are those of datasets.csv"
    assert plain["source"] in ("survey", "list", "ours")
    assert plain["categories"]
    assert len(set(plain["categories"])) == len(plain["categories"])
    assert set(plain["textures"]) <= set(plain["categories"])
    assert set(plain["counts"] or ()) <= set(plain["categories"])
    assert "image" in plain["defined"]
    assert set(plain["defined"]) <= {"image", "pixel"}
    assert all(isinstance(sentence, str) and sentence for sentence in plain["unverified"])
    assert all(isinstance(plain[key], str) and plain[key] for key in ("title", "annotation", "citation"))
    for archive in plain["archives"]:
        assert set(archive) <= {"file", "url", "sha256", "md5", "bytes", "into"}
        assert {"file", "url"} <= set(archive)
        assert archive["url"].startswith("https://") or "md5" in archive or "sha256" in archive


@every_dataset
def test_it_lists_the_categories_that_are_there(dataset: DataSet) -> None:
    there = dataset.available()
    assert len(there) >= min(2, len(dataset.categories)), "a tree holds two categories at least"
    folders = {path.name.lower() for path in dataset.root.rglob("*") if path.is_dir()}
    assert {category for category in dataset.categories if category.lower() in folders} <= set(there)
    assert there == [category for category in dataset.categories if category in there]  # in the YAML's order


@every_dataset
def test_samples_are_sound(dataset: DataSet) -> None:
    for category, samples in listed(dataset).items():
        names = [sample.name for sample in samples]
        assert len(set(names)) == len(names)
        assert [s.split for s in samples] == [split for split in SPLITS for _ in split_of(samples, split)]
        for split in SPLITS:
            part = [sample.name for sample in split_of(samples, split)]
            assert part == sorted(part)
        fitted = {s.image for s in samples if s.split != "test"}
        assert fitted.isdisjoint(s.image for s in split_of(samples, "test"))
        assert split_of(samples, "test")
        for sample in samples:
            assert sample.category == category
            assert sample.label in (NORMAL, ANOMALOUS)
            assert (sample.defect == "good") == (sample.label == NORMAL), sample.name
            assert sample.defect
            assert sample.name == sample.image.relative_to(dataset.root).as_posix()
            assert ".." not in Path(sample.name).parts
            assert all(path.is_file() for _, path in sample.extra)


@every_dataset
def test_images_open_and_masks_mark_pixels_of_them(dataset: DataSet) -> None:
    pixels_defined = "pixel" in dataset.facts["defined"]
    for category, samples in listed(dataset).items():
        marked = 0
        for sample in samples:
            size = decode(sample.image).shape[:2]
            mask = read_mask(sample.mask, size, sample.name)
            assert mask.shape == size
            assert mask.dtype == bool
            assert sample.label == ANOMALOUS or not mask.any(), f"{sample.name} is normal and marked"
            if isinstance(sample.mask, Boxes):
                assert sample.mask.filled == pixels_defined, sample.name
            elif not pixels_defined:
                assert sample.mask is None, f"{sample.name} has a mask, and `defined` no pixel"
            marked += bool(mask.any())
        anomalous = any(sample.label == ANOMALOUS for sample in samples)
        assert marked or not (pixels_defined and anomalous), f"no mask of {category} marks anything"


class Reversed:
    """os.scandir as another file system might answer: the last entry first."""

    def __init__(self, entries: Iterator[os.DirEntry[str]]) -> None:
        self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    def __enter__(self) -> Reversed:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def close(self) -> None:
        return


@every_dataset
def test_listing_again_gives_the_same_on_every_file_system(
    name: str, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listed(dataset)
    assert listed(DataSet.from_config(node(name, dataset.root))) == first
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda *path: Reversed(scandir(*path)))
    monkeypatch.setattr(os, "listdir", lambda *path: sorted(listdir(*path), reverse=True))
    assert listed(DataSet.from_config(node(name, dataset.root))) == first


@every_dataset
def test_another_split_seed_moves_images_and_changes_nothing_else(name: str, dataset: DataSet) -> None:
    def facts(samples: tuple[Sample, ...]) -> set[tuple[object, ...]]:
        return {(s.name, s.label, s.defect, s.mask, s.group, s.extra) for s in samples}

    before, moved = listed(dataset), False
    settings: Any = OmegaConf.to_container(node(name, dataset.root).samples, resolve=True)
    for seed in range(1, 5):
        after = listed(DataSet.from_config(node(name, dataset.root, split_seed=seed)))
        assert list(after) == list(before)
        for category, samples in after.items():
            assert facts(samples) == facts(before[category])
        moved |= after != before
    assert moved == ("split_seed" in settings), (
        "drawn and not by split_seed, or a split_seed that draws nothing"
    )


@every_dataset
def test_the_check_finds_nothing_but_the_counts(dataset: DataSet) -> None:
    for category in dataset.available():
        report = dataset.check(category, deep=True)
        assert [text for text in report.problems if "(published counts)" not in text] == []
        assert [twins for twins in report.twins if twins.leak or twins.contradiction] == []


@every_dataset
def test_the_globs_of_masks_find_the_masks(dataset: DataSet) -> None:
    if dataset.facts["mask_files"]:
        used = {path for samples in listed(dataset).values() for s in samples for path in mask_files(s.mask)}
        found = {
            path
            for pattern in dataset.facts["mask_files"]
            for category in dataset.categories
            for path in dataset.root.glob(pattern.replace("{category}", category))
        }
        assert {path for path in used if path.suffix != ".json"} <= found
        assert unused_masks(dataset, dataset.available()) == []


@pytest.fixture
def process() -> Iterator[None]:
    """What a run sets for its whole process is set back."""
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def run_cell(name: str, root: Path, category: str) -> Record:
    """The record of `adbench run` in the current folder."""
    code = cli.main(
        [
            *("run", "method=patchcore", f"dataset={name}", f"category={category}", f"dataset.root={root}"),
            *("backbone=bundled", "dataset.input={size: [64, 64]}"),
            *("store=false", "runtime.device=cpu", "runtime.threads=1", "runtime.workers=1"),
            *("runtime.latency_repeats=1", "metric.intervals.replicates=0", "variant=contract"),
        ]
    )
    found, problems = read_all(Path("results"))
    assert (code, problems, len(found)) == (0, [], 1)
    return found[0]


@every_dataset
def test_a_cell_of_patchcore_runs(
    name: str, dataset: DataSet, process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))
    category = dataset.available()[0]
    samples = dataset.samples(category)
    record = run_cell(name, dataset.root, category)
    if not any(sample.label == NORMAL for sample in split_of(samples, "train")):
        assert record["status"] == "skipped"
        assert category in record["reason"]
        counts = dataset.counts.get(category, {})
        trained = len(split_of(samples, "train"))
        assert trained or counts.get("train") == 0, "no normal image, and the counts do not say so"
        return
    assert record["status"] == "done", record.get("error")
    tests = split_of(samples, "test")
    assert record["counts"]["test_normal"] == sum(sample.label == NORMAL for sample in tests)
    assert record["counts"]["test_anomalous"] == sum(sample.label == ANOMALOUS for sample in tests)
    both = len({sample.label for sample in tests}) == 2
    assert both == math.isfinite(number(record, "image", "image_auroc"))
    marked = any(
        sample.mask is not None for sample in tests
    )  # defects among normal pixels: no image need be good
    pixels = marked and "pixel" in dataset.facts["defined"]
    assert pixels == math.isfinite(number(record, "full", "pixel_auroc"))
    for key, there in (("image_auroc", both), ("pixel_auroc", pixels)):
        assert there or any(key in name and reason for name, reason in record["undefined"].items())


def number(record: Record, geometry: str, metric: str) -> float:
    value = record["metrics"].get(geometry, {}).get(metric)
    return math.nan if value is None else float(value)

"""A data set as its YAML describes it: facts, and the samples that its adapter lists. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ad_bench.datasets.check import CheckReport, check_category
from ad_bench.datasets.files import described
from ad_bench.errors import AdbenchError, CategoryMissing, DataError, UsageError, closest
from ad_bench.samples import Sample


@dataclass
class DataSet:
    """One data set on this disk."""

    id: str
    root: Path
    categories: tuple[str, ...]
    lister: Callable[..., Iterable[Sample]]  # (root, category) -> samples, from the YAML's `samples`
    prepare: Callable[..., object] | None = None  # (root), called once before the first listing
    title: str = ""
    textures: tuple[str, ...] = ()  # the categories without an object, for the tables' averages
    input: Mapping[str, Any] | None = None  # replaces the shape of the method's geometry
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # source, licence, citation, download, annotation
    _listed: dict[str, tuple[Sample, ...]] = field(default_factory=dict, init=False, repr=False)
    _prepared: bool = field(default=False, init=False, repr=False)

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> DataSet:
        """The data set of a composed `dataset` node: a DictConfig, or a mapping with nothing to resolve."""
        from hydra.utils import instantiate  # not at the top: `adbench list` reads facts without it
        from omegaconf import DictConfig, OmegaConf

        config = node if isinstance(node, DictConfig) else OmegaConf.create(dict(node))
        plain: Any = OmegaConf.to_container(config, resolve=True)
        for key in ("id", "root", "categories", "samples"):
            if plain.get(key) is None:
                raise UsageError(
                    f"dataset.{key} is not set; every data set's YAML states it (see conf/dataset/)"
                )
        known = {"title", "categories", "textures", "input", "counts", "root", "id", "samples", "prepare"}
        return cls(
            id=str(plain["id"]),
            root=Path(str(plain["root"])).expanduser(),
            categories=tuple(str(name) for name in plain["categories"]),
            lister=instantiate(config.samples),
            prepare=instantiate(config.prepare) if plain.get("prepare") else None,
            title=str(plain.get("title") or plain["id"]),
            textures=tuple(plain.get("textures") or ()),
            input=plain.get("input"),
            counts={str(name): dict(counts) for name, counts in (plain.get("counts") or {}).items()},
            facts={key: value for key, value in plain.items() if key not in known},
        )

    def available(self) -> list[str]:
        """The categories that are on this disk, in the YAML's order.

        One that is there but cannot be used counts: its error shows when it is asked for, and hides nothing.
        """
        self._ready()
        there = []
        for category in self.categories:
            try:
                self._list(category)
            except CategoryMissing:
                continue
            except DataError:
                pass
            there.append(category)
        return there

    def samples(self, category: str) -> tuple[Sample, ...]:
        """All samples of a category, listed once; DataError if it has no training or no test images.

        A data set whose published counts say so may come without training images.
        """
        if category not in self.categories:
            hint = f"It has: {', '.join(self.categories)}."
            raise UsageError(
                f"{self.id} has no category '{category}'.{closest(category, self.categories, hint)}"
            )
        self._ready()
        try:
            listed = self._list(category)
        except CategoryMissing as error:
            raise CategoryMissing(f"{error}. {self._where()}") from error
        for split in ("train", "test"):
            if split == "train" and self.counts.get(category, {}).get("train") == 0:
                continue  # published without normal images: protocols say what cannot be done with it
            if not any(sample.split == split for sample in listed):
                home = self.root / category if (self.root / category).is_dir() else self.root
                raise DataError(
                    f"empty category: '{category}' of {self.id} has no {split} images below {home} "
                    f"({described(home)}). {self._where()}"
                )
        return listed

    def check(self, category: str, deep: bool = False) -> CheckReport:
        """Compare a category with the published counts; `deep` also decodes every image and mask."""
        return check_category(self, category, deep)

    def _ready(self) -> None:
        """Make or find the root."""
        if self._prepared:
            return
        if self.prepare is not None:
            try:
                self.prepare(self.root)
            except OSError as error:
                raise DataError(
                    f"cannot make {self.id} at {self.root}: {error}; set paths.data to a writable folder"
                ) from error
        try:
            there = self.root.is_dir()
        except OSError:  # below a folder that may not be read
            there = False
        if not there:
            raise DataError(f"no data set {self.id} at {self.root} ({described(self.root)}). {self._where()}")
        self._prepared = True

    def _list(self, category: str) -> tuple[Sample, ...]:
        if category not in self._listed:
            try:
                self._listed[category] = tuple(self.lister(self.root, category))
            except AdbenchError:
                raise
            except OSError as error:
                raise DataError(
                    f"cannot list '{category}' of {self.id}: {error.strerror} {error.filename}; check that "
                    f"you may read all below {self.root}"
                ) from error
        return self._listed[category]

    def _where(self) -> str:
        page = self.facts.get("download")
        source = f" It is at {page}." if page else ""
        return (
            "Set paths.data to the folder that holds the data sets, or dataset.root to this one (now "
            f"{self.root}).{source} `adbench data check dataset={self.id}` shows what is found."
        )

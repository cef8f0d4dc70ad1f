"""What a pretraining is asked for: its settings, its images, where its weights go. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ad_bench.config import options
from ad_bench.datasets.files import IMAGE_SUFFIXES
from ad_bench.errors import DataError, UsageError, closest

# Where things lie and how fast it goes: what changes no weight, or not by design.
NOT_THE_RECIPE = ("title", "images", "out", "device", "workers", "threads", "checkpoint_minutes")


@dataclass(frozen=True)
class Recipe:
    """The composed settings of one pretraining, checked as far as that needs no network."""

    config: DictConfig
    folder: Path
    out: Path

    @classmethod
    def from_words(cls, name: str, words: Sequence[str], config_dirs: Sequence[Path] = ()) -> Recipe:
        """conf/pretrain/<name>.yaml with `key=value` words. Raises UsageError."""
        known = options("pretrain", config_dirs)
        if name not in known:
            hint = closest(name, known, f"Known: {', '.join(known)}")
            raise UsageError(f"adbench pretrain {name}: no such recipe.{hint}")
        config = OmegaConf.load(known[name])
        OmegaConf.set_struct(config, True)
        for word in words:
            if "=" not in word:
                raise UsageError(f"'{word}' means nothing here; settings are key=value, --help shows them")
            try:
                config.merge_with_dotlist([word])
            except OmegaConfBaseException as error:
                keys = [str(key) for key in config]
                raise UsageError(
                    f"{word}: {known[name]} has no such key.{closest(word.partition('=')[0], keys)}"
                ) from error
        assert isinstance(config, DictConfig)
        if not config.images or not config.out:
            raise UsageError(
                "adbench pretrain wants images=FOLDER, to learn from, and out=FILE.safetensors, for what "
                "it learns"
            )
        out = Path(str(config.out)).expanduser()
        if out.suffix != ".safetensors":
            raise UsageError(f"out={out}: weights are written to a file that ends in .safetensors")
        if out.exists():
            raise UsageError(f"out={out} exists and stays as it is: choose another name, or remove it")
        if config.epochs < 1 or config.batch_size < 2:
            raise UsageError(
                f"epochs is at least 1 and batch_size at least 2; got {config.epochs}, {config.batch_size}"
            )
        return cls(config, Path(str(config.images)).expanduser(), out)

    @cached_property
    def files(self) -> list[Path]:
        """All images below the folder, in name order. Raises UsageError, DataError."""
        if not self.folder.is_dir():
            raise UsageError(f"images={self.folder}: no such folder")
        found = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if len(found) < 2:
            raise DataError(
                f"images={self.folder} holds {len(found)} images below it; a pretraining needs two at least, "
                f"files of {', '.join(IMAGE_SUFFIXES)}"
            )
        return found

    @property
    def training(self) -> Path:
        """The folder of a training that is under way: its recipe and its checkpoints."""
        return self.out.with_name(self.out.name + ".training")

    def facts(self, weights: str | None) -> dict[str, Any]:
        """All that the result depends on; `weights`: the checksum of those that the training starts from."""
        settings: Any = OmegaConf.to_container(self.config, resolve=True)
        listing = hashlib.sha256()
        for file in self.files:
            listing.update(f"{file.relative_to(self.folder).as_posix()}\t{file.stat().st_size}\n".encode())
        held = {key: value for key, value in settings.items() if key not in NOT_THE_RECIPE}
        held["model"]["backbone"]["weights"] = weights  # the file, wherever it lies
        return {**held, "pictures": len(self.files), "pictures_sha256": listing.hexdigest()}

    def claim(self, facts: dict[str, Any]) -> None:
        """Begin or go on; UsageError where another recipe has begun on the same file."""
        held = self.training / "recipe.json"
        if held.is_file():
            try:
                before = json.loads(held.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            if other := sorted(key for key in {*before, *facts} if before.get(key) != facts.get(key)):
                raise UsageError(
                    f"{self.training} holds the checkpoints of another recipe: {', '.join(other)} differ. "
                    "Give another out=FILE, the former settings, or remove that folder"
                )
        self.training.mkdir(parents=True, exist_ok=True)
        held.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

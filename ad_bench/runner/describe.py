"""The part of a record that says what ran, where, and what a reader must know of it."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

import ad_bench
from ad_bench import reference
from ad_bench.config import precision
from ad_bench.errors import UsageError
from ad_bench.records import SCHEMA
from ad_bench.runner.plan import Cell, Fit
from ad_bench.samples import NORMAL

workers_on_device = 1  # processes that share the device with this one: timings tell less then


def choose_device(wanted: str) -> torch.device:
    """`auto` is a GPU where there is one. Raises UsageError where the wanted one is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f"runtime.device={wanted}: expected auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"runtime.device={wanted}: torch sees {torch.cuda.device_count()} GPU(s); adbench doctor says why"
        )
    return device


def describe(fit: Fit, cell: Cell) -> dict[str, Any]:
    """The part of a record that is the same however the cell ends."""
    method, ident = fit.config.method, cell.id
    known = reference.methods().get(ident.method, {})
    labels = [s.label for s in cell.tests]
    as_paper = set(fit.config.backbone.paper)
    return {
        "schema": SCHEMA,
        "status": None,
        "reason": None,
        "error": None,
        "dataset": ident.dataset,
        "category": ident.category,
        "method": ident.method,
        "variant": ident.variant,
        "settings": list(fit.settings),
        "protocol": ident.protocol,
        "seed": ident.seed,
        "title": method.get("title") or known.get("display_name") or ident.method,
        "taxonomy": method.get("taxonomy") or known.get("taxonomy"),
        "source": method.get("source", "ours"),
        "fidelity": method.get("fidelity"),
        "paper": OmegaConf.to_container(method.paper) if method.get("paper") else None,
        "fingerprint": {"cell": cell.fingerprint, "fit": cell.fit_hash, "evaluation": cell.evaluation_hash},
        "counts": {
            "train": len(fit.group.train),
            "test_normal": labels.count(NORMAL),
            "test_anomalous": len(labels) - labels.count(NORMAL),
        },
        "geometry": dataclasses.asdict(fit.geometry),
        "paper_eval": fit.paper_eval,
        "weights": [
            {
                "name": w.name,
                "source": w.source,
                "tag": w.tag,
                "sha256": w.sha256,
                "as_paper": w.name in as_paper,
            }
            for w in fit.weights
        ],
        "marks": marks(fit),
        "texture": ident.category in fit.textures,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(fit.config.runtime.device),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def marks(fit: Fit) -> list[str]:
    """What a table must say of a cell: where it departs from the setting of the paper."""
    method, found = fit.config.method, []
    published = list(fit.config.backbone.paper)
    for weights in fit.weights:
        if weights.source == "random":
            found.append("random backbone weights")
        elif weights.name not in published:
            found.append(f"backbone {weights.name} (the method's own: {', '.join(published)})")
        elif weights.tag in (None, "unknown"):
            found.append("weights of unknown tag")
    if (computed := precision(fit.config)) != "float32":
        found.append(f"computed in {computed}")
    if fit.config.dataset.get("input"):
        found.append("geometry of the data set")
    if method.get("per_category"):
        found.append("tuned per category")
    if method.get("transductive"):
        found.append("transductive")
    if fit.config.runtime.max_train or fit.config.runtime.max_test:
        found.append("debug")
    return list(dict.fromkeys(found))


def versions() -> dict[str, str]:
    """Versions of Python, adbench and what computes."""
    return dict(_versions())


@functools.cache  # what a process has imported stays
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "adbench": ad_bench.__version__}
    for name in ("torch", "torchvision", "timm", "numpy", "scipy", "pillow", "hydra-core"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that runs, with '+' where files differ from it; None outside one.

    As it is when it is first asked for: a commit made later is not what this process has imported.
    """
    root = Path(ad_bench.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = [
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
            )
            for words in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--", "ad_bench", "conf"],
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[0].stdout.strip() + ("+" if answer[1].stdout.strip() else "")


def hardware(wanted: str) -> dict[str, Any]:
    """Names of processor and device, and the number of threads."""
    device = choose_device(wanted)
    return {
        "cpu": _cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "workers_on_device": workers_on_device,
    }


@functools.cache
def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

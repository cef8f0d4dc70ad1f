"""`adbench doctor`: versions, devices, weights, data and disk; what works here and what does not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from rich.console import Console

from ad_bench import config
from ad_bench.catalogue import _inherited

GOOD, NOTE, BAD = "ok  ", "note", "BAD "


def print_report(data: Path) -> bool:
    """Print one line for each finding; False where something needed does not work."""
    console = Console(highlight=False, soft_wrap=True)
    lines = [*_versions(), *_devices(), *_weights(), *_data(data), *_disk()]
    for mark, text in lines:
        console.print(f"{mark}  {text}", markup=False)
    return all(mark != BAD for mark, _ in lines)


def _versions() -> list[tuple[str, str]]:
    lines = [(GOOD, f"Python {platform.python_version()} on {platform.platform()}")]
    for name in ("adbench", "torch", "torchvision", "timm", "hydra-core", "numpy", "scipy", "pandas"):
        try:
            lines.append((GOOD, f"{name} {metadata.version(name)}"))
        except metadata.PackageNotFoundError:
            lines.append((BAD, f"{name} is not installed: pip install adbench"))
    faiss = [name for name in ("faiss-gpu", "faiss-cpu") if _installed(name)]
    if len(faiss) > 1:
        lines.append(
            (BAD, "faiss-gpu and faiss-cpu are both installed and overwrite each other: uninstall one")
        )
    else:
        lines.append(
            (GOOD, f"{faiss[0]}" if faiss else "no faiss: nearest neighbours run on torch (the default)")
        )
    return lines


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _devices() -> list[tuple[str, str]]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [(BAD, f"torch does not import: {error}")]
    lines = [(GOOD, f"CPU with {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")]
    driver = _driver()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            lines.append(
                (GOOD, f"GPU {index}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB, driver {driver}")
            )
        return lines
    built = torch.version.cuda
    if driver and built:
        why = (
            f"a driver ({driver}) is there, torch is built for CUDA {built}: most likely the driver is"
            " too old for it. Install torch for an older CUDA from PyTorch's own index, or update the driver"
        )
        lines.append((NOTE, f"no GPU for torch: {why}"))
    elif driver:
        lines.append(
            (NOTE, f"no GPU for torch: a driver ({driver}) is there, but this torch is built for CPU only")
        )
    else:
        lines.append((NOTE, f"no GPU: no NVIDIA driver found (torch built for CUDA {built}); runs on CPU"))
    return lines


def _driver() -> str | None:
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip().splitlines()[0] if answer.stdout.strip() else None


def _weights() -> list[tuple[str, str]]:
    from ad_bench.errors import WeightsError
    from ad_bench.parts.weights import find_weights

    folder = os.environ.get("ADBENCH_WEIGHTS")
    lines = [(GOOD if folder else NOTE, f"ADBENCH_WEIGHTS={folder or '(not set)'}")]
    for name, path in config.options("backbone").items():
        settings = _inherited("backbone", name, ())
        if not settings.get("name"):
            continue
        try:
            found = find_weights(settings["name"], settings.get("weights"), online=False)
            lines.append((GOOD, f"weights {settings['name']}: {found.source}"))
        except WeightsError:
            lines.append(
                (
                    NOTE,
                    f"weights {settings['name']}: not on this disk (backbone={path.stem} would fetch them)",
                )
            )
    return lines


def _data(data: Path) -> list[tuple[str, str]]:
    lines = []
    for name in config.options("dataset"):
        settings = _inherited("dataset", name, ())
        if "prepare" in settings:
            lines.append((GOOD, f"data {name}: made when needed"))
            continue
        if not settings.get("download"):
            continue  # a user's own images: nowhere in particular
        root = data / name
        lines.append(
            (GOOD, f"data {name}: {root}") if root.is_dir() else (NOTE, f"data {name}: not at {root}")
        )
    return lines


def _disk() -> list[tuple[str, str]]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    text = f"{free:.1f} GiB free below {Path.cwd()}"
    lines = [(GOOD if free > 5 else NOTE, text)]
    writable = os.access(Path.cwd(), os.W_OK)
    return (
        lines
        if writable
        else [*lines, (NOTE, f"{Path.cwd()} is not writable: set paths.results and paths.cache")]
    )

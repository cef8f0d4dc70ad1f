"""Where the pretrained weights of a backbone are. Imports neither torch nor timm, so that a plan can ask."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ad_bench.errors import WeightsError, WeightsMissing

FOLDER_VARIABLE = "ADBENCH_WEIGHTS"
BUNDLED = Path(__file__).resolve().parent.parent / "weights"
HUB_FILE = "model.safetensors"
HUB_SECONDS = 5.0  # one short look; the hub's own client would retry for 47 s without a network
PICKLES = (".pth", ".pt", ".bin")

Source = Literal["given", "bundled", "folder", "hub cache", "hub", "random"]


@dataclass(frozen=True)
class Weights:
    """One file of weights, or none at all where `source` is "random"."""

    name: str  # as asked for: <timm model>.<tag>
    source: Source
    path: Path | None = None
    tag: str = "unknown"  # of the file; "unknown" where neither its name nor its metadata says
    metadata: Mapping[str, str] = field(default_factory=dict)  # what a safetensors file says of itself

    @property
    def sha256(self) -> str | None:
        """The file's SHA-256 in hex, read once per process; None for random weights."""
        if self.path is None:
            return None
        stat = self.path.stat()
        return _sha256(self.path, stat.st_mtime_ns, stat.st_size)


def find_weights(name: str, weights: str | None = None, online: bool | None = None) -> Weights:
    """The weights of timm model `name`, spelt `<model>.<tag>`.

    `weights` is a file, a folder, "bundled" (shipped with the package) or "random". Without it the order is:
    the folder that ADBENCH_WEIGHTS names (`<model>.<tag>.safetensors`, then `<model>.safetensors`, whose tag
    is unknown), the hub's local cache, the hub. `online=False`, or HF_HUB_OFFLINE=1, leaves out the hub.
    Raises WeightsError, naming every way, if none leads to a file.
    """
    model, _, tag = name.partition(".")
    if weights == "random":
        return Weights(name, "random", tag="random")
    if weights == "bundled":
        shipped_file = BUNDLED / f"{name}.safetensors"
        if not shipped_file.is_file():
            shipped = ", ".join(sorted(p.stem for p in BUNDLED.glob("*.safetensors"))) or "none"
            raise WeightsError(f"adbench ships no weights for '{name}'. Shipped: {shipped}")
        return _described(name, "bundled", shipped_file)
    if weights is not None:
        return _given(name, Path(weights).expanduser())
    if not tag:
        raise WeightsError(
            f"backbone '{name}' has no tag. One network has several sets of weights; name one, such as "
            f"{model}.tv_in1k (`timm.list_pretrained('{model}.*')` prints them)"
        )
    folder = os.environ.get(FOLDER_VARIABLE)
    path: Path | None
    if folder and (path := _in_folder(name, Path(folder).expanduser())):
        return _described(name, "folder", path)
    if path := _in_hub_cache(name):
        return _described(name, "hub cache", path)
    reason = "not asked: HF_HUB_OFFLINE is set" if online is None else "not asked"
    if _online() if online is None else online:
        path, reason = _from_hub(name)
        if path:
            return _described(name, "hub", path)
    raise WeightsMissing(name, _where_sought(name, folder, reason))


def _given(name: str, path: Path) -> Weights:
    if path.is_dir():
        found = _in_folder(name, path)
        if found is None:
            raise WeightsError(f"backbone.weights={path}: the folder holds no {name}.safetensors")
        return _described(name, "given", found)
    if not path.is_file():
        raise WeightsError(
            f"backbone.weights={path}: no such file. Expected a file, a folder, 'bundled' or 'random'"
        )
    if path.suffix not in (".safetensors", *PICKLES):
        raise WeightsError(
            f"backbone.weights={path}: expected .safetensors, or a state_dict in {', '.join(PICKLES)}"
        )
    return _described(name, "given", path)


def _in_folder(name: str, folder: Path) -> Path | None:
    model = name.partition(".")[0]
    candidates = (folder / f"{name}.safetensors", folder / f"{model}.safetensors")
    return next((path for path in candidates if path.is_file()), None)


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(f"timm/{name}", HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def _from_hub(name: str) -> tuple[Path | None, str]:
    """The downloaded file, or None and the reason."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.utils import get_session

    repository = f"timm/{name}"
    try:
        status = get_session().head(hf_hub_url(repository, HUB_FILE), timeout=HUB_SECONDS).status_code
    except Exception as error:  # the client behind get_session, and so its errors, changes between releases
        return None, f"not reached ({type(error).__name__})"
    if status >= 400:
        return None, f"answered {status} for {repository}"
    try:
        return Path(hf_hub_download(repository, HUB_FILE, etag_timeout=HUB_SECONDS)), ""
    except Exception as error:  # as above; whatever it was, the user needs the list of other ways
        return None, f"failed to deliver {repository} ({type(error).__name__}: {str(error)[:200]})"


def _online() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() not in {"1", "ON", "YES", "TRUE"}


def _where_sought(name: str, folder: str | None, hub: str) -> str:
    from huggingface_hub import constants

    if folder is None:
        where = "not set"
    elif not Path(folder).expanduser().is_dir():
        where = f"{folder}, which is no folder"
    else:
        where = folder
    return (
        "Looked for, in this order:\n"
        f"  1. backbone.weights=FILE: not given ('random' runs without pretraining, marked in tables)\n"
        f"  2. {name}.safetensors in the folder that {FOLDER_VARIABLE} names: {where}\n"
        f"  3. timm/{name} in the hub's cache: {constants.HF_HUB_CACHE}\n"
        f"  4. https://huggingface.co/timm/{name}: {hub}\n"
        f"On a machine with network, `hf download timm/{name} {HUB_FILE} --local-dir .` fetches the file; "
        f"rename it to {name}.safetensors and put it into the folder of way 2"
    )


def _described(name: str, source: Source, path: Path) -> Weights:
    metadata = {} if path.suffix in PICKLES else safetensors_metadata(path)
    in_name = path.stem.partition(".")[2]
    if source in ("hub cache", "hub"):  # the repository is the tag; the file is always model.safetensors
        in_name = name.partition(".")[2]
    return Weights(name, source, path, metadata.get("tag") or in_name or "unknown", metadata)


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, without reading a tensor. Raises WeightsError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(100_000_000, path.stat().st_size - 8):
            raise WeightsError(
                f"{path} is no safetensors file ({path.stat().st_size} bytes): cut off while copying, "
                f"or a Git LFS pointer? Fetch it again"
            )
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise WeightsError(
                f"{path} is no safetensors file: its header is no JSON. Fetch it again"
            ) from error
    return dict(header.get("__metadata__") or {})


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

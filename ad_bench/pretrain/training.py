"""Run a pretraining: images in, a file of weights and its recipe out. A killed one goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import save_file
from torch import Tensor

from ad_bench import processes
from ad_bench.datasets.images import decode
from ad_bench.errors import ResultsError
from ad_bench.pretrain.recipe import Recipe
from ad_bench.pretrain.spd import SPD
from ad_bench.runner.describe import choose_device, versions
from ad_bench.runner.progress import Watch
from ad_bench.runner.training import Checkpoints, WatchedRun


class History:
    """The mean losses of every epoch so far; part of a checkpoint."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []

    def state_dict(self) -> dict[str, Any]:
        """What is to be kept."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it up again."""
        self.epochs = [list(one) for one in state_dict["epochs"]]


def pretrain(recipe: Recipe) -> Path:
    """Train as the recipe says; the file of weights, beside which lies a .json of the same name.

    Raises UsageError, DataError for an image that cannot be read, WeightsError, TrainingError.
    """
    config, files = recipe.config, recipe.files
    device = choose_device(str(config.device))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        model: SPD = instantiate(config.model).to(device)
    except InstantiationException as error:  # Hydra's wrapping hides which error it was
        raise error.__cause__ or error from None
    start = model.weights
    facts = recipe.facts(start.sha256 or start.source)
    recipe.claim(facts)
    steps = instantiate(config.optimizer)(list(model.parameters()))
    rate = instantiate(config.schedule)(steps)
    history, minutes = History(), config.checkpoint_minutes
    kept = None if minutes is None else Checkpoints(recipe.training / "checkpoints", 60.0 * minutes)
    with Watch(1) as watch:
        run = WatchedRun(config.seed, device, watch, kept, method=model)
        order, drawn = run.generator("order"), run.generator("views")
        state = {"optimizer": steps, "schedule": rate, "history": history}
        for epoch in run.epochs(config.epochs, state):
            model.train()
            total, count = torch.zeros(2), 0
            for images in batches(files, config.batch_size, order, config.workers):
                views = [view.to(device) for view in model.views(images, drawn)]
                steps.zero_grad(set_to_none=True)
                objective, term = model.losses(views)
                run.loss(objective + model.eta * term).backward()
                steps.step()
                total += torch.stack([objective, term]).detach().cpu()
                count += 1
            rate.step()
            history.epochs.append((total / count).tolist())
            one, other = history.epochs[-1]
            watch.line(f"epoch {epoch + 1}/{config.epochs}: objective {one:.4f}, SPD term {other:+.4f}")
        watch.cell_done(f"pretrained on {len(files)} images")
    return _write(recipe, model, facts, history)


def batches(files: list[Path], size: int, generator: torch.Generator, workers: int) -> Iterator[list[Tensor]]:
    """One shuffled pass: lists of images (3, H, W) in [0, 1]; what is left over is left out."""
    size = min(size, len(files))
    with ThreadPoolExecutor(workers) as pool:
        for index in torch.randperm(len(files), generator=generator).split(size):
            if len(index) == size:
                yield list(pool.map(_read, [files[number] for number in index.tolist()]))


def _read(file: Path) -> Tensor:
    return torch.from_numpy(decode(file).copy()).permute(2, 0, 1).float() / 255


def _write(recipe: Recipe, model: SPD, facts: dict[str, Any], history: History) -> Path:
    """The network's tensors with timm's names, and what they are; then the training's folder goes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    start = model.weights
    stated = {key: start.metadata[key] for key in ("batchnorm", "pad_type") if key in start.metadata}
    metadata = {
        **stated,
        "tag": "spd",
        "timm_name": start.name.partition(".")[0],
        "mean": ",".join(f"{value:.6g}" for value in model.mean.flatten().tolist()),
        "std": ",".join(f"{value:.6g}" for value in model.std.flatten().tolist()),
        "recipe": digest,
        "started_from": f"{start.name} ({start.source})",
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.network.state_dict().items()}
    out, temporary = recipe.out, processes.temporary(recipe.out.parent)
    try:
        save_file(tensors, temporary, metadata)
        checksum = hashlib.sha256(temporary.read_bytes()).hexdigest()
        told = {
            "weights": out.name,
            "sha256": checksum,
            "recipe": digest,
            "settings": facts,
            "losses": {"columns": ["objective", "spd_term"], "epochs": history.epochs},
            "versions": versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        out.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        temporary.replace(out)
    except OSError as error:
        raise ResultsError(
            f"cannot write {out}: {error}; make room, the same command goes on from the last checkpoint"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    shutil.rmtree(recipe.training, ignore_errors=True)
    return out

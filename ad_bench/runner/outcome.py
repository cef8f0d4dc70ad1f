"""What a cell leaves: a record, and beside it its scores, curves, pictures, and maps and model on request."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from ad_bench import records
from ad_bench.contract import Method
from ad_bench.errors import AdbenchError, TimeLimitError
from ad_bench.records import Record
from ad_bench.runner import stopping
from ad_bench.runner.describe import describe
from ad_bench.runner.evaluation import Scored
from ad_bench.runner.maps import MAPS, stored_as, write_maps
from ad_bench.runner.pictures import write_curves, write_pictures
from ad_bench.runner.plan import Cell, Fit
from ad_bench.runner.progress import Watch
from ad_bench.runner.scores import write_scores
from ad_bench.runner.scoring import out_of_memory

Facts = dict[str, Any]  # what a record says beyond what describe() says


@dataclass(frozen=True)
class Outcome:
    """What a finished cell keeps beside its record, as far as the settings want it."""

    scores: np.ndarray
    maps: list[np.ndarray] | None
    scored: Scored
    method: Method


def write(
    fit: Fit,
    cell: Cell,
    facts: Facts,
    watch: Watch,
    outcome: Outcome | None = None,
) -> Record:
    """The record, written whole with what the settings want beside it; ResultsError where it cannot be."""
    config = fit.config
    record = {**describe(fit, cell), **facts}
    if fit.group.stages:
        record["counts"]["train"] = sum(map(len, fit.group.stages))
    with stopping.whole():
        with records.writing(
            Path(config.paths.results), cell.id, cell.fingerprint, config.rerun != "never"
        ) as folder:
            (folder / "config.yaml").write_text(_portable_config(config), encoding="utf-8")
            if outcome is not None:
                _keep(folder, fit, cell, outcome, record)
            records.write_json(folder / "record.json", record)
        cell.done = record
        watch.cell_done(f"{cell.id}: {_summary(record)}")
    return record


def _keep(folder: Path, fit: Fit, cell: Cell, outcome: Outcome, record: Record) -> None:
    """Scores and curves always; maps, pictures and the model where the settings want them."""
    save, maps = fit.config.save, outcome.maps
    write_scores(folder, cell.tests, outcome.scores)
    write_curves(folder, outcome.scored.curves)
    if save.pictures:
        problem = write_pictures(folder, cell.tests, outcome.scores, maps, fit.geometry)
        if problem:  # hours of training are not lost for a picture
            record["warnings"] = [*record.get("warnings", ()), problem]
    kind = stored_as(save.maps)
    if kind and maps is not None:
        write_maps(folder / MAPS, [s.name for s in cell.tests], maps, kind)
    if save.model:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        state = outcome.method.state_dict()
        try:
            save_file(
                {k: v.detach().cpu().contiguous().clone() for k, v in state.items()},
                folder / "model.safetensors",
            )
        except SafetensorError as error:  # what a full disk is there
            raise OSError(f"model.safetensors: {error}") from error


_written: dict[str, str] = {}  # by content: to write YAML takes longer than a small cell, and seeds share it


def _portable_config(config: Any) -> str:
    """The composed config without the folders of this machine."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("paths", None)
    plain.pop("launch", None)
    for node in (plain["dataset"], plain["protocol"].get("source")):
        if isinstance(node, dict):
            node.pop("root", None)
    content = repr(plain)
    if content not in _written:
        if len(_written) >= 16:
            _written.clear()
        _written[content] = OmegaConf.to_yaml(OmegaConf.create(plain))
    return _written[content]


def failure(error: BaseException) -> Facts:
    """What the record of a failed cell says; it holds on to nothing of the error."""
    text = str(error).strip() or type(error).__name__
    if out_of_memory(error):
        text += " (try a smaller method.loader.batch_size or input)"
    trace = "" if isinstance(error, AdbenchError) else "".join(traceback.format_exception(error)[-8:])
    if isinstance(error, TimeLimitError) and error.__cause__ is not None:  # where it was
        trace = "".join(traceback.format_exception(error.__cause__, chain=False)[-8:])
    return {
        "status": "failed",
        "error": {"type": type(error).__name__, "message": text, "traceback": trace},
    }


def _summary(record: Record) -> str:
    if record["status"] == "failed":
        return f"FAILED: {record['error']['type']}: {record['error']['message'].splitlines()[0]}"
    if record["status"] == "skipped":
        return f"skipped: {record['reason']}"
    metrics = record["metrics"]
    shown = {"image AUROC": metrics["image"].get("image_auroc")}
    shown["pixel AUROC"] = metrics.get("paper", metrics.get("full", {})).get("pixel_auroc")
    values = ", ".join(f"{k} {v:.4f}" for k, v in shown.items() if v is not None and v == v)
    timing = record["timing"]
    return f"{values} (fit {timing['fit_seconds']:.1f} s, {timing['images_per_second']:.1f} images/s)"

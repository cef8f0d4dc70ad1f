"""What bench_cell.py runs in processes of their own: `python scripts/cell_child.py TASK FILE.json`.

The file holds the arguments of the task, and afterwards its answer. `words` are those of an `adbench run` of
one cell, whose data, geometry, method and backbone a task then works on.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What begins with the first of these texts belongs to the phase, until the next one begins (runner/cell.py).
PHASES = {
    "read ": "ready",
    "fit ": "fit",
    "predict ": "predict",
    "evaluate ": "paper",
    "pixel metrics, original": "full",
}
BORDER = 16  # pixels that a blur of sigma 4 reaches, cut off at 4 sigma


# ---- a run, watched --------------------------------------------------------------------------------------


def phases(marks: list[tuple[str, float]], end: float) -> dict[str, float]:
    """Seconds of each phase, from the stages that a run went through and when each began."""
    spent = dict.fromkeys(PHASES.values(), 0.0)
    phase = None
    for (text, begin), (_, stop) in zip(marks, [*marks[1:], ("", end)], strict=True):
        phase = next((name for word, name in PHASES.items() if text.startswith(word)), phase)
        if phase is not None:
            spent[phase] += stop - begin
    return spent


def runs(words: list[str], began: float, until_first_batch: bool = False) -> dict[str, Any]:
    """`adbench run` with a clock on its stages; `began`: when the process was asked for, time.monotonic().

    What the run would import on its way is imported first: the sum is the same.
    """
    from ad_bench import cli
    from ad_bench.runner import cell, scoring, trainset
    from ad_bench.runner.progress import Watch

    marks: list[tuple[str, float]] = []
    found: dict[str, Any] = {"opening": 0.0, "tensors": 0.0}
    begin, cell_done, batches = Watch.begin, Watch.cell_done, trainset.StoredTrainSet.batches

    def begins(self: Any, text: str, *rest: Any, **more: Any) -> None:
        marks.append((text, time.monotonic()))
        begin(self, text, *rest, **more)

    def done(self: Any, *rest: Any, **more: Any) -> None:
        found["done"] = time.monotonic()
        cell_done(self, *rest, **more)

    def watched(self: Any, *rest: Any, **more: Any) -> Iterator[Any]:
        for batch in batches(self, *rest, **more):
            found.setdefault("first_batch", time.monotonic() - began)
            found.setdefault("first_batch_cpu", time.process_time())
            if until_first_batch:
                raise KeyboardInterrupt
            yield batch

    def clocked(call: Callable[..., Any], into: str) -> Callable[..., Any]:
        def timed(*what: Any, **more: Any) -> Any:
            start = time.perf_counter()
            made = call(*what, **more)
            found[into] += time.perf_counter() - start
            return made

        return timed

    Watch.begin, Watch.cell_done = begins, done  # type: ignore[method-assign]
    trainset.StoredTrainSet.batches = watched  # type: ignore[method-assign]
    trainset.to_device = scoring.to_device = clocked(trainset.to_device, "tensors")
    cell.open_store = clocked(cell.open_store, "opening")  # type: ignore[attr-defined]
    try:
        code = cli.main(["run", *words])
    except SystemExit as stop:
        code = stop.code
    if until_first_batch:
        return found
    if code:
        raise SystemExit(f"adbench run ended with {code}; its words were {' '.join(words)}")
    return {**found, "startup": marks[0][1] - began, **phases(marks, found["done"])}


# ---- the cell's parts ------------------------------------------------------------------------------------


class Parts:
    """The one fit that the words of a run describe."""

    def __init__(self, words: list[str]) -> None:
        from ad_bench import config
        from ad_bench.datasets.store import open_store
        from ad_bench.runner.describe import choose_device
        from ad_bench.runner.plan import make_plan

        (self.fit,) = make_plan(config.choices(words)).fits
        self.config, self.geometry = self.fit.config, self.fit.geometry
        self.samples = {"train": list(self.fit.group.train), "test": list(self.fit.cells[0].tests)}
        cache = Path(self.config.paths.cache)
        self.stores = {
            name: open_store(samples, self.geometry, cache) for name, samples in self.samples.items()
        }
        self.device = choose_device(self.config.runtime.device)

    def batches(self) -> Iterator[Any]:
        """Train and test images as a method gets them, (B, 3, H, W) in [0, 1]."""
        from ad_bench.runner.scoring import batch_size
        from ad_bench.runner.trainset import to_device

        sizes = {
            "train": int(self.config.method.loader.batch_size),
            "test": batch_size(self.config.runtime, self.config.method),
        }
        for name, store in self.stores.items():
            for first in range(0, len(store.images), sizes[name]):
                yield to_device(store.images[first : first + sizes[name]], self.device)

    def backbone(self) -> Any:
        from ad_bench.config import backbones
        from ad_bench.runner.kept import backbone

        node = backbones(self.config.method.model)[0]
        return backbone(node.name, list(node.layers), node.weights).to(self.device)

    def masks(self) -> Any:
        """(N, H, W) bool of the test images, in the method's geometry, by the paper's rule."""
        import numpy as np

        from ad_bench.datasets.masks import read_mask

        rule = self.fit.paper_eval
        found = []
        for sample, (height, width) in zip(
            self.samples["test"], self.stores["test"].original_sizes, strict=True
        ):
            mask = read_mask(sample.mask, (int(height), int(width)), sample.name)
            found.append(
                self.geometry.forward_mask(
                    mask, rule["mask_rule"], rule["mask_interpolation"], rule.get("size")
                )
            )
        return np.stack(found)


def bare(words: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of forward passes over the cell's images: of timm's network as it builds it, and of ours.

    The two take turns batch by batch. timm's gets its input normalised beforehand, ours normalises itself.
    """
    import timm
    import torch

    from ad_bench.runner.timing import Stopwatch

    torch.set_grad_enabled(False)
    parts = Parts(words)
    ours = parts.backbone()
    plain = timm.create_model(ours.name.partition(".")[0], features_only=True, out_indices=ours.layers)
    plain.load_state_dict(ours.network.state_dict())
    plain = plain.to(parts.device, memory_format=torch.contiguous_format).eval()
    best = {"timm": float("inf"), "ours": float("inf")}
    images = 0
    for turn in range(repeats + 1):  # the first warms up
        spent, images = {"timm": 0.0, "ours": 0.0}, 0
        for batch in parts.batches():
            if turn == 0 and images:
                break
            images += len(batch)
            normalised = ((batch - ours.mean) / ours.std).contiguous()
            for name, network, given in (("timm", plain, normalised), ("ours", ours, batch)):
                watch = Stopwatch(parts.device)
                network(given)
                spent[name] += watch.seconds()
        if turn:
            best = {name: min(best[name], spent[name]) for name in best}
    return {**best, "images": images}


def steps(words: list[str], count: int) -> dict[str, Any]:
    """Seconds of one step of STFPM's training: loss, backward and optimiser on one batch that stays there."""
    import torch

    from ad_bench.runner.kept import build
    from ad_bench.runner.timing import Stopwatch

    parts = Parts(words)
    method: Any = build(parts.config.method.model).to(parts.device).train()
    batch = torch.cat(list(parts.batches()))[: method.batch_size]
    optimizer = method.optimizer(list(method.student.parameters()))
    for step in range(count + 3):
        if step == 3:  # warm
            watch = Stopwatch(parts.device)
        optimizer.zero_grad(set_to_none=True)
        method.loss(batch).backward()
        optimizer.step()
    return {"step": watch.seconds() / count, "batch": len(batch)}


# ---- for the peer ----------------------------------------------------------------------------------------


def images(words: list[str], folder: str) -> dict[str, Any]:
    """train.npy, test.npy (uint8), masks.npy (bool) and labels.npy, as our method gets them.

    And picked.npy where the method is one of PaDiM's kind: its channels.
    """
    import numpy as np

    from ad_bench.runner.kept import build

    parts, out = Parts(words), Path(folder)
    for name, store in parts.stores.items():
        np.save(out / f"{name}.npy", store.images)
    np.save(out / "masks.npy", parts.masks())
    np.save(out / "labels.npy", np.array([sample.label for sample in parts.samples["test"]]))
    method = build(parts.config.method.model)
    if hasattr(method, "picked"):
        np.save(out / "picked.npy", method.picked.numpy())
    weights = method.backbone.weights.path
    return {"weights": None if weights is None else str(weights)}


def picks(folder: str, count: int, start: int) -> dict[str, Any]:
    """bank.npy: `count` rows of embedding.npy, chosen greedily among projected.npy from `start`."""
    import numpy as np
    import torch

    from ad_bench.parts.coreset import greedy_coreset

    home = Path(folder)
    began = time.perf_counter()
    chosen = greedy_coreset(torch.from_numpy(np.load(home / "projected.npy")), count, start)
    seconds = time.perf_counter() - began
    np.save(home / "bank.npy", np.load(home / "embedding.npy", mmap_mode="r")[chosen.numpy()])
    return {"picks": chosen.tolist(), "seconds": seconds}


def raw_values(folder: str) -> dict[str, float]:
    """Exact image and pixel AUROC of scores.npy and maps.npy as the peer's network gave them."""
    import numpy as np

    home = Path(folder)
    return _aurocs(home, np.load(home / "maps.npy"), np.load(home / "scores.npy"))


def _aurocs(home: Path, maps: Any, scores: Any) -> dict[str, float]:
    """Exact image and pixel AUROC on the peer's masks and labels."""
    import numpy as np

    from ad_bench.metrics import evaluate_maps

    masks, labels = (np.load(home / f"{name}.npy") for name in ("masks", "labels"))
    names = ["image_auroc", "pixel_auroc"]
    return {name: float(evaluate_maps(maps, masks, scores, labels, names)[name]) for name in names}


def agree(words: list[str], folder: str, method: str) -> dict[str, float]:
    """Largest difference of our maps and scores from the peer's, by the peer's variant of the algorithm.

    Shares of the range of the peer's values; all pixels count. And the AUROC of our scores and maps.
    """
    import numpy as np
    import torch
    from torch.nn import functional

    from ad_bench.contract import Inputs, Run
    from ad_bench.parts.maps import gaussian_blur
    from ad_bench.parts.neighbors import nearest
    from ad_bench.runner.cell import _train_set
    from ad_bench.runner.kept import build
    from ad_bench.runner.progress import Watch

    torch.set_grad_enabled(False)
    parts, home = Parts(words), Path(folder)
    model = build(parts.config.method.model)
    size = tuple(parts.stores["test"].images.shape[1:3])
    scores, maps = [], []

    def blurred(found: Any) -> Any:  # the peer mirrors at the border pixel, ours behind it
        margin = (BORDER,) * 4
        padded = functional.pad(found[:, None], margin, mode="reflect")[:, 0]
        return gaussian_blur(padded, 4.0)[:, BORDER:-BORDER, BORDER:-BORDER]

    if method == "patchcore":
        # Levels averaged over 3x3, stacked as they are; distances, not squares; the paper's weighed score.
        bank = torch.from_numpy(np.load(home / "bank.npy"))
        model.bank.points, model.reweight = bank, 9
    else:
        model.sigma = 0.0
        with Watch(1) as watch:
            train = _train_set(parts.fit, parts.fit.group.train, parts.device, watch, "read")
        model.fit(train, Run())
    model.eval()
    tested = 0
    for batch in parts.batches():
        tested += len(batch)
        if tested <= len(parts.samples["train"]):
            continue
        if method == "patchcore":
            first, second = (functional.avg_pool2d(level, 3, 1, 1) for level in model.backbone(batch))
            second = functional.interpolate(second, size=first.shape[-2:], mode="bilinear")
            rows = torch.cat([first, second], 1).permute(0, 2, 3, 1)
            distance, index = nearest(rows.flatten(0, 2), bank, 1, "torch")
            distance = distance.sqrt().view(rows.shape[:3])
            worst = distance.flatten(1).argmax(1)
            row = worst + torch.arange(len(batch)) * distance[0].numel()
            scores.append(model._reweighted(rows.flatten(0, 2)[row], index[row, 0]))
            maps.append(blurred(functional.interpolate(distance[:, None], size=size)[:, 0]))
        else:
            found = blurred(model.predict(Inputs(batch, ("",) * len(batch))).maps)
            maps.append(found)
            scores.append(found.amax((1, 2)))
    answer, found = {}, {"scores": torch.cat(scores).numpy(), "maps": torch.cat(maps).numpy()}
    for name, ours in found.items():
        theirs = np.load(home / f"{name}.npy")
        answer[name] = float(np.abs(ours - theirs).max() / (theirs.max() - theirs.min()))
    return answer | _aurocs(home, **found)


# ---- images where there are none -------------------------------------------------------------------------


def made(folder: str, size: int, train: int, test: int) -> dict[str, Any]:
    """PNG files of coloured noise at several scales, in dataset=folder's layout; 3 in 4 tests are bad."""
    import numpy as np
    from PIL import Image

    rng, root = np.random.default_rng(0), Path(folder)
    for name in ("good", "test", "bad", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(train + test):
        pixels = np.zeros((size, size, 3))
        for cells in (4, 16, 64):
            coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            pixels += np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)) / 3
        kind = "good" if number < train else "test" if (number - train) % 4 == 0 else "bad"
        if kind == "bad":
            edge = max(2, size // 8)
            top, left = rng.integers(0, size - edge, 2)
            mask = np.zeros((size, size), np.uint8)
            mask[top : top + edge, left : left + edge] = 255
            pixels[mask > 0] = rng.integers(0, 256, 3)
            Image.fromarray(mask).save(root / "masks" / f"{number:04}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(root / kind / f"{number:04}.png")
    return {}


def main() -> None:
    task, file = sys.argv[1], Path(sys.argv[2])
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        one.__name__: one for one in (runs, bare, steps, images, picks, raw_values, agree, made)
    }
    answer = tasks[task](**json.loads(file.read_text()))
    file.write_text(json.dumps(answer))
    if task == "runs":  # as the program itself ends, see ad_bench/__main__.py
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(0)


if __name__ == "__main__":
    main()

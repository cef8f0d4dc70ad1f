"""A whole cell, from the shell to its record, beside bare forward passes and anomalib: results/bench/cell.md.

    python scripts/bench_cell.py --data DIR --train 60 209 16 --start-up --peer PEER/bin/python --out FILE.md

DIR holds `mtd`; PEER is an environment with anomalib 2.7.0; ADBENCH_WEIGHTS holds the weights of both. All
runs in processes of its own, one after the other, and what they leave goes to a temporary folder. With
`--synthetic-images` (coloured noise in place of a data set) and `--weights random` it needs nothing else:

    python scripts/bench_cell.py --synthetic-images --weights random --backbone wide_resnet50_2 --size 224
        --device cuda --train 209 --test 83

This file imports neither torch nor NumPy: a process starts with the peak memory of the one that started it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
METHODS = ("patchcore", "padim")
OVERHEAD = {"patchcore": 2.5, "padim": 1.3}  # wanted at most, times the bare passes
OVERHEAD_ON_GPU = 3.0
FASTER = {60: 10, 209: 30}  # wanted at least, times the peer's PatchCore, by training images
READING, MEMORY, START_UP = 0.02, 2.0, 1.5  # wanted at most: share of a second run; GB; s over timm's import
STORED = (
    "Stored figures of the peer, of whole runs when two such cores were quiet: 60 images embedded in 1.9 s,",
    "their coreset chosen in 252 s, 200 images predicted in 11.7 s; the coreset of 209 images about 36 min;",
    "four pixel metrics of 500 maps 27 s.",
)


# ---- processes -------------------------------------------------------------------------------------------


@dataclass
class Ended:
    """What a process took, and what it printed."""

    seconds: float
    peak: int  # resident bytes
    text: str


def run(command: Sequence[object], folder: Path) -> Ended:
    """Wait for a command; SystemExit with the end of what it printed where it fails."""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=printed, stderr=printed, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    said = " ".join(Path(str(word)).name if "/" in str(word) else str(word) for word in command[1:6])
    print(f"{seconds:7.1f} s  {said}", file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{text[-3000:]}")
    return Ended(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), text)


def ask(command: Sequence[object], folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The answer of a script that reads its arguments from a file; with its process' `seconds` and peak."""
    file = folder / "question.json"
    file.write_text(json.dumps(given))
    ended = run([*command, file], folder)
    return {"seconds": ended.seconds, "process_peak": ended.peak, **json.loads(file.read_text())}


@dataclass
class Bench:
    """The settings of all runs and the folder of what they leave."""

    options: argparse.Namespace
    scratch: Path

    def words(self, method: str, train: int, test: int | None = None) -> list[str]:
        """Of an `adbench run` of one cell, without intervals; every method and size has its own store."""
        options = self.options
        found = [f"method={method}", f"runtime.max_train={train}", f"runtime.max_test={test or options.test}"]
        found += [f"backbone={options.backbone}", f"runtime.device={options.device}", "rerun=always"]
        found += ["metric.intervals.replicates=0", f"paths.results={self.scratch / 'results'}"]
        found += [f"paths.cache={self.scratch / f'cache-{method}-{train}'}", *options.word]
        if options.weights:
            found.append(f"backbone.weights={options.weights}")
        if options.synthetic_images:
            found += ["dataset=folder", "dataset.id=made", f"dataset.root={self.scratch / 'made'}"]
            found += ["dataset.samples.normal_test_dir=test", "dataset.samples.mask_dir=masks"]
        else:
            found += ["dataset=mtd", f"paths.data={options.data}"]
        if options.size:
            found.append(f"dataset.input={{size: [{options.size}, {options.size}]}}")
        return found

    def child(self, task: str, **given: Any) -> dict[str, Any]:
        return ask([sys.executable, HERE / "cell_child.py", task], self.scratch, given)

    def peer(self, task: str, **given: Any) -> dict[str, Any]:
        return ask([self.options.peer, HERE / "peer_anomalib.py"], self.scratch, {"task": task, **given})

    def record(self) -> dict[str, Any]:
        """The record written last."""
        files = (self.scratch / "results" / "cells").glob("**/record.json")
        record: dict[str, Any] = json.loads(max(files, key=lambda file: file.stat().st_mtime_ns).read_text())
        if record["status"] != "done":
            raise SystemExit(f"a cell ended as {record['status']}: {record['error'] or record['reason']}")
        return record


# ---- ours ------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """One method at one size: a run that decodes the images, one that finds them decoded, the bare passes."""

    method: str
    train: int
    test: int
    first: Ended
    second: dict[str, Any]  # the quickest of its repeats
    record: dict[str, Any]  # of that run
    bare: dict[str, Any]

    @property
    def work(self) -> float:
        """Seconds of fit, predict and the metrics in the paper's geometry."""
        timing = self.record["timing"]
        return float(timing["fit_seconds"] + timing["predict_seconds"] + self.second["paper"])

    @property
    def rest(self) -> dict[str, float]:
        """The seconds of the second run that are none of those."""
        second, timing = self.second, self.record["timing"]
        parts = {
            "until the images are asked for": second["startup"],
            "store opened, network built": second["ready"] + second["fit"] - timing["fit_seconds"],
            "latency of one image": second["predict"] - timing["predict_seconds"],
            "`full` metrics, pictures, record": second["full"],
        }
        return parts | {"exit": second["seconds"] - self.work - sum(parts.values())}

    def reading(self, with_tensors: bool) -> float:
        """Share of the second run to open the store; also to make float tensors of what it holds."""
        seconds = self.second["opening"] + (self.second["tensors"] if with_tensors else 0.0)
        return float(seconds / self.second["seconds"])


def measure(bench: Bench, method: str, train: int) -> Cell:
    words = bench.words(method, train)
    first = run([sys.executable, "-m", "ad_bench", "run", *words], bench.scratch)
    watched = []
    for _ in range(bench.options.repeats):
        second = bench.child("runs", words=words, began=time.monotonic())
        watched.append((second["seconds"], second, bench.record()))
    _, second, record = min(watched, key=lambda one: one[0])
    bare = bench.child("bare", words=words, repeats=bench.options.repeats)
    tests = record["counts"]["test_normal"] + record["counts"]["test_anomalous"]
    return Cell(method, record["counts"]["train"], tests, first, second, record, bare)


def start_up(bench: Bench) -> list[str]:
    """timm's import beside `adbench run` until its method gets its first batch, in turns."""
    words = bench.words("patchcore", min(bench.options.train), 8)
    run([sys.executable, "-m", "ad_bench", "run", *words], bench.scratch)  # decodes
    code = "import timm, time; print(time.monotonic(), time.process_time())"
    timm, ours = [], []
    for _ in range(bench.options.repeats + 2):
        began = time.monotonic()
        printed = run([sys.executable, "-c", code], bench.scratch).text.split()
        timm.append((float(printed[-2]) - began, float(printed[-1])))
        found = bench.child("runs", words=words, began=time.monotonic(), until_first_batch=True)
        ours.append((found["first_batch"], found["first_batch_cpu"]))
    rows, over = [], []
    for index, kind in enumerate(("wall clock", "processor")):
        one, other = (statistics.median(pair[index] for pair in pairs) for pairs in (timm, ours))
        over.append(other - one)
        rows.append(f"| {kind} | {one:.2f} | {other:.2f} | {other - one:.2f} |")
    return [
        "## Start-up",
        "",
        "`import timm` alone, and `adbench run` until its method gets its first batch, in turns, the store",
        f"prepared; medians of {len(timm)}.",
        "",
        "| seconds | timm | adbench | difference |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Wanted: at most {START_UP} s over timm: {verdict(over[0] <= START_UP)}.",
        "",
    ]


def training(bench: Bench) -> list[str]:
    """Steps a second of STFPM in a run, by the difference of two schedules, beside its bare steps."""
    train, short = max(bench.options.train), bench.options.epochs
    words = [*bench.words("stfpm", train, 8), "method.model.validation=0", "runtime.checkpoint_minutes=null"]
    seconds = []
    for epochs in (short, 3 * short):
        given = [*words, f"method.model.epochs={epochs}"]
        bench.child("runs", words=given, began=time.monotonic())
        seconds.append(bench.record()["timing"]["fit_seconds"])
    train = bench.record()["counts"]["train"]
    bare = bench.child("steps", words=words, count=5 * short)
    per_epoch = -(-train // bare["batch"])
    pace = 2 * short * per_epoch / (seconds[1] - seconds[0])
    size = bare["batch"]
    row = [
        train,
        size,
        per_epoch,
        f"{pace:.2f}",
        f"{1 / bare['step']:.2f}",
        f"{1 / (pace * bare['step']):.2f}",
    ]
    head = ["images", "batch", "steps an epoch", "steps/s of a run", "bare steps/s", "ratio"]
    return [
        "## A trained method: STFPM",
        "",
        f"A run: {3 * short} epochs less {short}, all that a fit does. Bare: loss, backward, optimiser on",
        "one batch that stays on the device. The last batch of an epoch may be smaller.",
        "",
        *table(head, [row]),
    ]


# ---- the peer --------------------------------------------------------------------------------------------


def given_to_peer(bench: Bench, method: str, train: int) -> dict[str, Any]:
    """What each of the peer's tasks needs; its folder gets the images that ours saw."""
    folder = bench.scratch / f"peer-{method}-{train}"
    folder.mkdir(exist_ok=True)
    words = bench.words(method, train)
    weights = bench.child("images", words=words, folder=str(folder))["weights"]
    if weights is None:
        raise SystemExit("--peer compares the same weights: leave --weights away, and set ADBENCH_WEIGHTS")
    return {
        "folder": str(folder),
        "method": method,
        "backbone": bench.options.backbone,
        "weights": weights,
        "batch": 8 if method == "patchcore" else 32,
    }


@dataclass
class Peer:
    """The peer's phases at one size; `whole` where it chose its whole coreset itself."""

    train: int
    embed: dict[str, Any]
    score: dict[str, Any]
    whole: bool
    same_picks: int  # of its own, how many ours chose too, from its start among its features
    raw: dict[str, float]  # exact metrics of its raw scores and maps
    differs: dict[str, float]  # our maps and scores from its own, as shares of the range

    @property
    def coreset(self) -> float:
        """Seconds of its coreset; where it chose a part, as if every pick took as long."""
        if "coreset" not in self.embed:
            return 0.0
        made = len(self.embed["chosen"])
        picks = (self.embed["coreset"] - self.embed["projection"]) / max(1, made - 1)
        return float(self.embed["projection"] + picks * (self.embed["coreset_size"] - 1))

    @property
    def seconds(self) -> float:
        """Fit, predict and metrics, without the imports."""
        fit = self.embed["embed"] + self.embed.get("fit", 0.0) + self.coreset
        return float(fit + self.score["predict"] + self.score["metrics"])


def ask_peer(bench: Bench, method: str, train: int, whole: bool) -> Peer:
    given = given_to_peer(bench, method, train)
    folder = given["folder"]
    ratio = 0.1 if method == "patchcore" else None
    picks = None if whole else bench.options.peer_picks
    embed = bench.peer("embed", **given, ratio=ratio, picks=picks)
    same = 0
    if method == "patchcore":  # what the peer would keep, if it were given the time
        chosen = bench.child("picks", folder=folder, count=embed["coreset_size"], start=embed["chosen"][0])
        pairs = zip(embed["chosen"], chosen["picks"], strict=False)
        same = next((n for n, (one, other) in enumerate(pairs) if one != other), len(embed["chosen"]))
    score = bench.peer("score", **given)
    raw = bench.child("raw_values", folder=folder)
    differs = bench.child("agree", words=bench.words(method, train), folder=folder, method=method)
    return Peer(train, embed, score, whole or method == "padim", same, raw, differs)


def ask_engine(bench: Bench, method: str, train: int) -> dict[str, Any]:
    given = given_to_peer(bench, method, train)
    return bench.peer(
        "engine", **given, ratio=0.1 if method == "patchcore" else None, workers=os.cpu_count() or 1
    )


# ---- the page --------------------------------------------------------------------------------------------


def verdict(holds: bool) -> str:
    return "yes" if holds else "NO"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def gb(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f}"


def commands(cells: Sequence[Cell]) -> list[str]:
    rows = []
    for one in cells:
        timing, memory = one.record["timing"], one.record["memory"]
        second = one.second["seconds"]
        seconds = (one.first.seconds, second, timing["fit_seconds"], timing["predict_seconds"])
        rows.append(
            [
                one.method,
                f"{one.train} / {one.test}",
                *(f"{value:.1f}" for value in (*seconds, one.second["paper"], second - one.work)),
                f"{(one.train + one.test) / (timing['fit_seconds'] + timing['predict_seconds']):.1f}",
                gb(max(one.first.peak, one.second["process_peak"])),
                gb(memory["device_peak_bytes"]),
                f"{one.reading(False):.2%} ({one.reading(True):.1%})",
            ]
        )
    head = ["method", "train / test", "first run, s", "second, s", "of it fit", "predict", "`paper` metrics"]
    head += ["the rest", "images/s", "peak GB", "on the device", "opening (and making tensors)"]
    peak = max(max(one.first.peak, one.second["process_peak"]) for one in cells)
    share = max(one.reading(False) for one in cells)
    parts = [
        [one.method, f"{one.train} / {one.test}", *(f"{value:.2f}" for value in one.rest.values())]
        for one in cells
    ]
    return [
        "## The whole command, from the shell to its record",
        "",
        "`adbench run`; the first run decodes the images, the second finds them decoded. images/s: of fit",
        "and predict. Opening: the share of the second run that goes into opening the decoded images, and in",
        "brackets that with the copies of them into float tensors.",
        "",
        *table(head, rows),
        f"Wanted: peak below {MEMORY:g} GB: {verdict(peak < MEMORY * 1e9)}. Decoding below {READING:.0%} of"
        f" the second run: {verdict(share < READING)}.",
        "",
        "The rest in seconds:",
        "",
        *table(["method", "train / test", *cells[0].rest], parts),
    ]


def overheads(cells: Sequence[Cell], wanted: dict[str, float]) -> list[str]:
    rows = []
    for one in cells:
        plain, ours = one.bare["timm"], one.bare["ours"]
        per_image = [f"{1e3 * value / one.bare['images']:.1f}" for value in (plain, ours)]
        ratios = [f"{one.work / plain:.2f}", f"{one.work / ours:.2f}", f"{wanted[one.method]:g}"]
        whole = [f"{one.second['seconds'] / value:.2f}" for value in (plain, ours)]
        rows.append([one.method, f"{one.train} / {one.test}", *per_image, f"{one.work:.1f}", *ratios, *whole])
    head = ["method", "train / test", "timm, ms/image", "ours, ms/image", "work, s", "over timm's passes"]
    head += ["over ours", "wanted", "whole command over timm's", "over ours"]
    return [
        "## Over the bare backbone",
        "",
        "Bare: forward passes over the same train and test images in the same batches, up to the last layer",
        "that the method reads, of the network as timm builds it (its input normalised beforehand) and of",
        "our Backbone (which normalises, and keeps channels last), in turns batch by batch. Work: fit,",
        "predict and the metrics in the paper's geometry, without intervals.",
        "",
        *table(head, rows),
    ]


def against(cells: Sequence[Cell], peers: dict[str, list[Peer]]) -> list[str]:
    lines = [
        "## Against anomalib 2.7.0",
        "",
        "The same weights, decoded images, batches and sizes; its network classes and metrics (image AUROC",
        "and F1-max; pixel AUROC, AUPR, F1-max and AUPRO). Ours is the whole second command with all of its",
        "start-up; the peer's total leaves its imports out. ~: every pick is taken to last as long as those",
        "that were timed. The bank that it then predicts with is the one that its own choice would end with:",
        "our coreset made it, from the peer's start among the peer's projected features. How many of the",
        "peer's own picks are ours too, one after the other, stands under `the same picks`.",
        "",
    ]
    rows = []
    for method, asked in peers.items():
        for peer in asked:
            one = next(cell for cell in cells if (cell.method, cell.train) == (method, peer.train))
            about = "" if peer.whole else "~"
            own = one.second["seconds"]
            wanted = FASTER.get(peer.train, "") if method == "patchcore" else ""
            fit = peer.embed["embed"] + peer.embed.get("fit", 0.0)
            peak = max(peer.embed["peak"], peer.score["peak"])
            made = len(peer.embed.get("chosen", ()))
            rows.append(
                [
                    *(method, f"{peer.train} / {one.test}", f"{peer.embed['import']:.1f}", f"{fit:.1f}"),
                    f"{about}{peer.coreset:.1f}" if made else "-",
                    *(f"{peer.score[phase]:.1f}" for phase in ("predict", "metrics")),
                    f"{about}{peer.seconds:.1f}",
                    *(f"{own:.1f}", f"{about}{peer.seconds / own:.1f}", wanted),
                    *(gb(peak), gb(one.second["process_peak"])),
                    f"{peer.same_picks} of {made}" if made else "-",
                ]
            )
    head = ["method", "train / test", "its import, s", "embed (padim: fit)", "coreset", "predict", "metrics"]
    head += [
        "its total, s",
        "ours, whole command",
        "ratio",
        "wanted",
        "its peak GB",
        "ours",
        "the same picks",
    ]
    lines += [*table(head, rows), *STORED, "", "### The same maps", ""]
    lines += [
        "Our parts, set to the peer's variant (PatchCore: its bank, levels averaged over 3x3 and stacked,",
        "distances enlarged to nearest, weighed score of 9 neighbours; PaDiM: its channels; both: a blur",
        "mirrored at the border pixel): the largest difference, as a share of the range of its values. And",
        "the exact AUROC of its raw scores and maps, of ours by its variant, and of our run of the method as",
        "its authors released it.",
        "",
    ]
    rows = []
    for method, asked in peers.items():
        for peer in asked:
            one = next(cell for cell in cells if (cell.method, cell.train) == (method, peer.train))
            metrics = one.record["metrics"]
            own = {
                "image_auroc": metrics["image"]["image_auroc"],
                "pixel_auroc": metrics["paper"]["pixel_auroc"],
            }
            differs = [f"{peer.differs[name]:.1e}" for name in ("maps", "scores")]
            values = [f"{peer.raw[name]:.4f} / {peer.differs[name]:.4f} / {own[name]:.4f}" for name in own]
            rows.append([method, f"{peer.train} / {one.test}", *differs, *values])
    head = ["method", "train / test", "maps differ by", "scores"]
    head += [f"{kind} AUROC: its / ours, its variant / ours as released" for kind in ("image", "pixel")]
    return [*lines, *table(head, rows)]


def engines(found: Sequence[tuple[str, int, dict[str, Any]]]) -> list[str]:
    rows = [
        [method, train, *(f"{one[key]:.1f}" for key in ("import", "fit", "test", "seconds")), gb(one["peak"])]
        for method, train, one in found
    ]
    return [
        "### As people run it: Engine.fit and Engine.test on a folder of PNG files",
        "",
        "By its defaults: a half of the test images validates, the other is tested, and pictures are drawn.",
        "",
        *table(["method", "train", "import, s", "fit", "test", "whole process", "peak GB"], rows),
    ]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds mtd")
    parser.add_argument("--synthetic-images", action="store_true", help="coloured noise in place of mtd")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--train", type=int, nargs="+", default=[60, 209, 16], help="numbers of images")
    parser.add_argument("--test", type=int, default=200, help="number of images")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument(
        "--weights", help="backbone.weights, such as random; else found as adbench finds them"
    )
    parser.add_argument(
        "--size", type=int, help="of the square that images become; else as the data set says"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--repeats", type=int, default=2, help="of second runs and bare passes; the best counts"
    )
    parser.add_argument("--word", action="append", default=[], help="one more word for every adbench run")
    parser.add_argument("--epochs", type=int, default=0, help="train STFPM for so many, and thrice; 0: not")
    parser.add_argument("--start-up", action="store_true")
    parser.add_argument("--peer", help="the Python of an environment with anomalib 2.7.0")
    parser.add_argument(
        "--peer-train", type=int, nargs="*", default=[16], help="sizes of whole coresets of its"
    )
    parser.add_argument("--peer-picks", type=int, default=50, help="so many of its picks at the other sizes")
    parser.add_argument(
        "--peer-engine", type=int, nargs="*", default=[16], help="sizes of Engine.fit and test"
    )
    parser.add_argument("--scratch", type=Path, help="where the temporary folder is made")
    parser.add_argument("--out", type=Path, help="also write the page into this Markdown file")
    options = parser.parse_args(words)
    if options.synthetic_images == bool(options.data):
        parser.error("one of --data DIR and --synthetic-images says what is measured on")
    if options.data:
        options.data = options.data.resolve()
    if options.peer and (options.synthetic_images or options.device != "cpu"):
        parser.error("--peer compares real images on the CPU: it goes with --data and without --device")
    return options


def main() -> None:
    options = asked()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        bench = Bench(options, Path(scratch))
        if options.synthetic_images:
            made = {"folder": str(bench.scratch / "made"), "size": options.size or 256}
            bench.child("made", **made, train=max(options.train), test=options.test)
        cells = [measure(bench, method, train) for method in options.methods for train in options.train]
        wanted = OVERHEAD if options.device == "cpu" else dict.fromkeys(METHODS, OVERHEAD_ON_GPU)
        images = "coloured noise" if options.synthetic_images else "magnetic tiles (MTD)"
        hardware = cells[0].record["hardware"]
        lines = [
            "# Time of a whole cell",
            "",
            f"Written by `scripts/bench_cell.py {' '.join(shown(sys.argv[1:]))}` in one run.",
            f"{cpu_name()}, {os.cpu_count()} cores, {hardware['threads']} threads;",
            f"device {hardware['device']}; Python {platform.python_version()}, torch {version('torch')},"
            f" timm {version('timm')}, {datetime.date.today()}.",
            f"{images}; {options.backbone}, {options.weights or 'ImageNet'} weights. Seconds are wall clock,"
            f" the best of {options.repeats}.",
            "",
            *commands(cells),
            *overheads(cells, wanted),
        ]
        publish(lines, options.out)  # and again with every section: one that fails costs no other
        if options.peer:
            sizes = options.train
            peers = {
                method: [ask_peer(bench, method, train, train in options.peer_train) for train in sizes]
                for method in options.methods
            }
            lines += against(cells, peers)
            publish(lines, options.out)
            found = [(m, t, ask_engine(bench, m, t)) for m in options.methods for t in options.peer_engine]
            lines += engines(found) if found else []
            publish(lines, options.out)
        if options.epochs:
            lines += training(bench)
            publish(lines, options.out)
        if options.start_up:
            lines += start_up(bench)
            publish(lines, options.out)
    print("\n".join(lines))


def publish(lines: Sequence[str], out: Path | None) -> None:
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(lines))


def shown(words: Sequence[str]) -> list[str]:
    """The words of the command, paths of this machine left out."""
    named = {"--data": "DIR", "--peer": "PEER/bin/python", "--out": "FILE.md", "--scratch": "DIR"}
    return [named.get(before, word) for before, word in zip(["", *words], words, strict=False)]


if __name__ == "__main__":
    main()

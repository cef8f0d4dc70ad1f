"""New images through the model that a run kept: scores, heat maps on one scale, and a sheet to look at."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from ad_bench.datasets.files import folders_in, images_in
from ad_bench.datasets.images import decode
from ad_bench.datasets.sheet import Picture, drawn_sheet
from ad_bench.datasets.store import ahead, cores
from ad_bench.errors import DataError, PredictionError, ResultsError, UsageError
from ad_bench.geometry import Geometry
from ad_bench.heat import scale
from ad_bench.heatmaps import MARK, line_width, outline, overlay
from ad_bench.records import Record, path_name, replace_file, replace_text
from ad_bench.runner.describe import choose_device
from ad_bench.runner.progress import Watch
from ad_bench.runner.saved import SavedRun, begin, load_run
from ad_bench.runner.scoring import Scorer

T = TypeVar("T")
Floats = NDArray[np.float32]

SCORES, SHEET, ABOUT, HEAT, MAPS = "scores.csv", "sheet.png", "README.txt", "heatmaps", "maps"
COLUMNS = ("path", "score", "anomalous", "heatmap", "problem")
FIRST = 32  # images whose maps give the scale where the run kept no quantiles
SHOWN = 12  # highest scores on the sheet, and half as many of the lowest and of the unreadable
THUMBNAIL = 420  # pixels of the longer side


@dataclass(frozen=True)
class Wanted:
    """What a user asks for. Thresholds replace the record's; `category` that of the record."""

    threshold: float | None = None
    pixel_threshold: float | None = None
    category: str | None = None
    device: str = "auto"
    batch_size: int | None = None
    maps: bool = False

    @classmethod
    def from_words(cls, words: Mapping[str, str], maps: bool = False) -> Wanted:
        """From the command's key=value words, blank where not given; UsageError for what is no number."""

        def read(key: str, kind: Callable[[str], T]) -> T | None:
            try:
                return kind(words[key]) if words.get(key) else None
            except ValueError as error:
                raise UsageError(f"{key}={words[key]}: expected a number") from error

        size = read("runtime.batch_size", int)
        if size is not None and size < 1:
            raise UsageError(f"runtime.batch_size={size}: expected at least 1")
        return cls(
            read("threshold", _finite),
            read("pixel_threshold", _finite),
            words.get("category") or None,
            words.get("runtime.device") or "auto",
            size,
            maps,
        )


@dataclass(frozen=True)
class _Listed:
    path: Path
    shown: str  # as the user gave it
    name: PurePosixPath  # of its own files, below the output folder


@dataclass(frozen=True)
class _Image:
    listed: _Listed
    pixels: NDArray[np.uint8] | None  # as decoded; None where it cannot be read
    ready: NDArray[np.uint8] | None = None  # in the network's geometry
    problem: str = ""


@dataclass
class Predicted:
    """What was written."""

    out: Path
    images: int = 0
    anomalous: int = 0
    problems: list[str] = field(default_factory=list)


def predict_images(
    where: Path,
    images: Sequence[Path],
    out: Path | None = None,
    wanted: Wanted = Wanted(),
    config_dirs: Sequence[Path] = (),
    trust: bool = False,
) -> Predicted:
    """Score files, and all images below folders, with the model of a run; what is ready is written at once.

    An image that cannot be read stands in scores.csv with the reason. Raises UsageError for a run that cannot
    score or images that are not there, PredictionError where the method answers with NaN.
    """
    listed = list_images(images)
    saved = load_run(where, config_dirs, trust)
    out = out or Path("predictions", path_name("-".join(_words(saved.record))))
    device = choose_device(wanted.device)
    begin(saved, device)
    saved.method.to(device)
    try:
        with _Output(out, saved, wanted) as output, Watch(1) as watch:
            watch.begin(f"score images with {saved.record['method']}", len(listed))
            scorer = Scorer(saved.method, device, _batch_size(saved, wanted), watch.line)
            for done, batch in _batches(listed, saved.geometry, scorer.size):
                output.add(batch, *_predict(saved, batch, scorer, wanted))
                watch.advance(done)
    except OSError as error:
        raise ResultsError(
            f"cannot write {out}: {error.strerror or error}. What was written before is whole; --out names"
            " another folder"
        ) from error
    return output.done


def _words(record: Record) -> tuple[str, str, str]:
    row = f"{record['method']}@{record['variant']}" if record.get("variant") else str(record["method"])
    return row, str(record["dataset"]), str(record["category"])


def list_images(given: Sequence[Path]) -> list[_Listed]:
    """Files as they are given, folders with all images below them in name order. Raises UsageError."""
    found: list[tuple[Path, PurePosixPath]] = []
    for path in given:
        if path.is_dir():
            inside = list(_below(path, set()))
            if not inside:
                raise UsageError(f"no images in {path}; wanted .png, .jpg, .bmp, .tif, .webp, ...")
            within = PurePosixPath(path.resolve().name if len(given) > 1 else "")
            found += [(file, within / file.relative_to(path).as_posix()) for file in inside]
        elif path.exists():
            found.append((path, PurePosixPath(path.name)))
        else:
            raise UsageError(f"no such image or folder: {path}")
    names: set[PurePosixPath] = set()
    listed = []
    for file, whole in found:
        name, number = whole.with_suffix(""), 1
        while name in names:  # a.png and a.jpg, or the same name in two folders
            number += 1
            name = whole.with_name(f"{whole.stem}-{number}")
        names.add(name)
        shown, plain = (path.as_posix().encode("utf-8", "backslashreplace").decode() for path in (file, name))
        listed.append(_Listed(file, shown, PurePosixPath(plain)))
    return listed


def _below(folder: Path, above: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link to a folder that it lies in
        return
    yield from images_in(folder)
    for inner in folders_in(folder):
        yield from _below(inner, above | {real})


def _batch_size(saved: SavedRun, wanted: Wanted) -> int:
    """The run's own, so that the scores are its own to the last bit."""
    of_run = saved.config.runtime.get("batch_size") or OmegaConf.select(
        saved.config, "method.loader.batch_size"
    )
    return max(1, int(wanted.batch_size or of_run or 1))


def _batches(listed: Sequence[_Listed], geometry: Geometry, size: int) -> Iterator[tuple[int, list[_Image]]]:
    """How many are read, and images of one shape together in their order, unreadable ones among them."""

    def read(one: _Listed) -> _Image:
        try:
            pixels = decode(one.path)
            return _Image(one, pixels, geometry.forward(pixels))
        except (DataError, UsageError) as error:  # UsageError: smaller than the crop
            return _Image(one, None, problem=str(error))

    held: list[_Image] = []
    shape: tuple[int, ...] | None = None
    readable = 0
    for done, image in enumerate(ahead(read, listed, cores())):
        if image.ready is not None and (readable == size or shape not in (None, image.ready.shape)):
            yield done, held
            held, readable = [], 0
        if image.ready is not None:
            shape, readable = image.ready.shape, readable + 1
        held.append(image)
    if held:
        yield len(listed), held


def _predict(
    saved: SavedRun, batch: Sequence[_Image], scorer: Scorer, wanted: Wanted
) -> tuple[Floats, Floats | None]:
    """Scores (B,) and maps (B, h, w) or None of those images of a batch that could be read."""
    ready = [image.ready for image in batch if image.ready is not None]
    if not ready:
        return np.empty(0, np.float32), None
    named = "category" in (saved.config.method.get("needs") or ())
    category = (wanted.category or str(saved.record["category"])) if named else ""
    scores, maps = scorer(np.stack(ready), (category,) * len(ready))
    finite = np.isfinite(scores) if maps is None else np.isfinite(scores) & np.isfinite(maps).all((1, 2))
    if not finite.all():
        names = [image.listed.shown for image in batch if image.ready is not None]
        raise PredictionError(f"the score or the map of {names[int(np.argmin(finite))]} is NaN or infinite")
    return scores, maps


class _Output:
    """The output folder: a line and a picture an image as they come, the sheet at the end."""

    def __init__(self, out: Path, saved: SavedRun, wanted: Wanted) -> None:
        self.saved, self.wanted, self.done = saved, wanted, Predicted(out)
        stored = saved.record.get("thresholds") or {}
        self.threshold = _number(stored.get("image")) if wanted.threshold is None else wanted.threshold
        of_pixels = _number(stored.get("full"))
        self.pixel_threshold = of_pixels if wanted.pixel_threshold is None else wanted.pixel_threshold
        self.scale = _stored_scale(saved.folder)
        self.from_run = self.scale is not None
        self.waiting: list[tuple[_Image, float, Floats]] = []  # until there is a scale
        self.highest: list[tuple[float, int, Picture]] = []
        self.lowest: list[tuple[float, int, Picture]] = []
        self.shown = 0
        self.broken: list[Picture] = []
        self.lines: IO[str] | None = None

    def __enter__(self) -> _Output:
        self.done.out.mkdir(parents=True, exist_ok=True)
        self.lines = (self.done.out / SCORES).open("w", newline="", encoding="utf-8")
        csv.writer(self.lines).writerow(COLUMNS)
        return self

    def __exit__(self, *_: object) -> None:
        """Also after Ctrl-C: what was scored is drawn and told."""
        try:
            self._settle()
            self._sheet()
            replace_text(self.done.out / ABOUT, self._about())
        finally:
            assert self.lines is not None
            self.lines.close()

    def add(self, batch: Sequence[_Image], scores: Floats, maps: Floats | None) -> None:
        """Write the line of each image of a batch, and draw it as soon as there is a scale."""
        assert self.lines is not None
        rows, place = csv.writer(self.lines), 0
        for image in batch:
            if image.ready is None:
                self.done.problems.append(f"{image.listed.shown}: {image.problem}")
                self.broken.append(Picture(image.listed.name.as_posix(), None, wrong=image.problem))
                rows.writerow([image.listed.shown, "", "", "", image.problem])
                continue
            score = float(scores[place])
            own = None if maps is None else maps[place]
            place += 1
            self.done.images += 1
            anomalous = "" if self.threshold is None else str(int(score >= self.threshold))
            self.done.anomalous += anomalous == "1"
            heat = "" if own is None else self._file(HEAT, image.listed, ".png").as_posix()
            rows.writerow([image.listed.shown, repr(score), anomalous, heat, ""])
            if own is None:
                self._show(image, score, image.pixels)
            else:
                self.waiting.append((image, score, own))
        self.lines.flush()
        if self.scale is not None or len(self.waiting) >= FIRST:
            self._settle()

    def _settle(self) -> None:
        """Draw what waits, on the scale of its own maps where the run gave none."""
        if self.scale is None and self.waiting:
            values = np.concatenate([own.ravel() for _, _, own in self.waiting]).astype(np.float64)
            at = (0.0, 0.5, 0.999, 1.0)
            quantiles = [float(value) for value in np.quantile(values, at)]
            low, high = scale([{"at": at, "values": quantiles, "pixels": values.size}])
            if self.pixel_threshold is not None:  # in the middle at most: what is beyond it must stand out
                high = max(high, 2 * self.pixel_threshold - low)
            self.scale = low, high
        for image, score, own in self.waiting:
            self._draw(image, score, own)
        self.waiting = []

    def _draw(self, image: _Image, score: float, own: Floats) -> None:
        assert image.pixels is not None
        assert self.scale is not None
        values, _ = self.saved.geometry.backward(own, image.pixels.shape[:2])
        picture = overlay(image.pixels, values, *self.scale)
        if self.pixel_threshold is not None:
            size = (image.pixels.shape[0], image.pixels.shape[1])
            picture[outline(values >= self.pixel_threshold, line_width(size))] = MARK
        heat = Image.fromarray(picture)
        replace_file(
            self.done.out / self._file(HEAT, image.listed, ".png"), lambda path: heat.save(path, format="PNG")
        )
        if self.wanted.maps:
            import tifffile

            target = self.done.out / self._file(MAPS, image.listed, ".tiff")
            replace_file(target, lambda path: tifffile.imwrite(path, values))
        self._show(image, score, picture)

    @staticmethod
    def _file(folder: str, listed: _Listed, suffix: str) -> PurePosixPath:
        return PurePosixPath(folder) / listed.name.with_name(listed.name.name + suffix)

    def _show(self, image: _Image, score: float, pixels: NDArray[np.uint8] | None) -> None:
        """Keep a small copy as long as it is among those that the sheet shows."""
        assert pixels is not None
        self.shown += 1
        order = -self.shown  # of equal scores the first images are shown; and no two keys are equal

        def picture() -> Picture:
            small = Image.fromarray(pixels)
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            return Picture(image.listed.name.as_posix(), small, note=f"   {score:.4g}")

        for held, key, most in ((self.highest, score, SHOWN), (self.lowest, -score, SHOWN // 2)):
            if len(held) < most:
                heapq.heappush(held, (key, order, picture()))
            elif (key, order) > held[0][:2]:
                heapq.heapreplace(held, (key, order, picture()))

    def _sheet(self) -> None:
        if not self.done.images:
            return
        above = sorted(self.highest, key=lambda one: (-one[0], -one[1]))
        shown = {order for _, order, _ in above}
        below = sorted(
            (one for one in self.lowest if one[1] not in shown), key=lambda one: (-one[0], -one[1])
        )
        rows: list[tuple[str, int, list[Picture]]] = [
            ("highest scores", len(above), [picture for _, _, picture in above]),
            ("lowest scores", len(below), [picture for _, _, picture in below]),
        ]
        rows.append(("not scored", len(self.broken), self.broken[: SHOWN // 2]))
        record = self.saved.record
        title = f"{record.get('title') or record['method']} of {record['dataset']}/{record['category']}"
        counts = f"{self.done.images:,} images, {self.done.anomalous:,} anomalous" + (
            f" at {self.threshold:.4g}" if self.threshold is not None else ": no threshold"
        )
        if self.scale is not None:
            counts += f"; heat from {self.scale[0]:.4g} to {self.scale[1]:.4g}"
            counts += f", the line at {self.pixel_threshold:.4g}" if self.pixel_threshold is not None else ""
        sheet = drawn_sheet(title, counts, [row for row in rows if row[2]])
        replace_file(self.done.out / SHEET, lambda path: sheet.save(path, format="PNG"))

    def _about(self) -> str:
        """How the files are to be read."""
        record = self.saved.record
        name, dataset, category = _words(record)
        lines = [
            f"Model: {name}, {dataset}/{category}, {record['protocol']}, seed"
            f" {record['seed']}, fingerprint {(record.get('fingerprint') or {}).get('cell')}",
            f"{SCORES}: {_told('anomalous', self.threshold, self.wanted.threshold is not None)}",
        ]
        if self.scale is None:
            lines.append("The method gives no maps: there are no heat maps.")
        else:
            low, high = self.scale
            source = (
                "the median and the 0.999 quantile of the run's test maps"
                if self.from_run
                else f"the same of the first images here (at most {FIRST}), reaching so far that the pixel"
                " threshold lies in the middle at most"
            )
            line = _told("anomalous", self.pixel_threshold, self.wanted.pixel_threshold is not None)
            lines += [
                f"{HEAT}/: one scale for all, {low:.6g} (the image alone) to {high:.6g} (yellow): {source}.",
                f"The line runs around pixels that are {line}",
            ]
            if not self.saved.geometry.fixed or self.saved.geometry.crop:
                lines.append("Dark margins lie outside the crop that the method sees.")
        if self.wanted.maps:
            lines.append(f"{MAPS}/: float32 at the size of each image; -inf was not seen.")
        if self.done.problems:
            lines.append(f"Images that could not be scored: {len(self.done.problems)}; {SCORES} says why.")
        return "\n".join(lines) + "\n"


def _told(what: str, threshold: float | None, given: bool) -> str:
    if threshold is None:
        return f"{what} is not known: the record has no threshold"
    source = "as given" if given else "where F1 was highest on the run's test set: tuned on it, so optimistic"
    return f"{what} at {threshold:.6g} and above ({source})."


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def print_predicted(done: Predicted) -> None:
    """Say what was written, and what could not be scored."""
    print(f"{done.images} images scored, {done.anomalous} anomalous: {done.out}")
    for text in done.problems:
        print(f"not scored: {''.join(char if char.isprintable() else '?' for char in text)}")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _stored_scale(folder: Path) -> tuple[float, float] | None:
    """From the quantiles of the run's test maps; None where it kept none."""
    try:
        held = orjson.loads((folder / "pictures.json").read_bytes()).get("quantiles")
        return scale([held]) if held else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None

"""What another lab may send of a cell: every file is checked for what it must be before one is kept.

Texts may hold anything, as those who show them escape them; they are limited in length alone.
"""

from __future__ import annotations

import csv
import datetime
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from ad_bench.records import SCHEMA, CellId, Record

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NAME, TEXT, DEPTH, PARTS = 200, 20_000, 16, 200_000  # characters of a name and of a text, levels, values
STATES = ("done", "failed", "skipped")
FINGERPRINT = re.compile(r"[0-9A-Za-z]{6,64}(\+[0-9a-f]{8})?")
ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,39}")

# Fields by what stands there; those that no record must have may be null. The number: levels of names above
# the figures.
TEXTS = ("title", "taxonomy", "source", "fidelity", "commit", "reason")
LISTS = ("marks", "warnings", "averaged", "settings")
FACTS = ("paper", "counts", "versions", "hardware", "fingerprint", "undefined", "error", "rescored")
OBJECTS = ("geometry", "paper_eval", "notes", "bootstrap", "best_on_test")
FIGURES = {
    **dict.fromkeys(("thresholds", "timing", "memory", "model"), 1),
    **dict.fromkeys(("metrics", "bounds", "compat", "forgetting"), 2),
    **dict.fromkeys(("intervals", "operating_points", "by_defect"), 3),
}


def require(fine: bool, text: str) -> None:
    """Raise ValueError with `text` where something is not fine."""
    if not fine:
        raise ValueError(text)


def check_record(content: bytes) -> tuple[Record, CellId]:
    """The record and the cell that it is of. Raises ValueError where a report could not rely on it."""
    record = _json(content)
    require(isinstance(record, dict), "is no record: no JSON object")
    require(
        type(record.get("schema")) is int and record["schema"] == SCHEMA,
        f"has schema {_short(record.get('schema'))}, this version reads {SCHEMA}",
    )
    require(record.get("status") in STATES, f"has status {_short(record.get('status'))}")
    for key in ("dataset", "category", "method", "protocol", "variant"):
        _text(record, key, 500 if key == "variant" else NAME, empty=key == "variant")
    require(
        type(record.get("seed")) is int and abs(record["seed"]) < 1 << 63, "has no whole number as its seed"
    )
    require(isinstance(record.get("fingerprint"), dict), "has no fingerprint")
    cell = record["fingerprint"].get("cell")
    require(
        isinstance(cell, str) and bool(FINGERPRINT.fullmatch(cell)), f"has the fingerprint {_short(cell)}"
    )
    if record.get("origin") is not None:
        require(is_origin(record["origin"]), f"is from a lab called {_short(record['origin'])}")
    for key in TEXTS:
        if record.get(key) is not None:
            _text(record, key, NAME if key != "reason" else TEXT, empty=True)
    if record.get("date") is not None:
        _text(record, "date", 40)
        try:
            datetime.datetime.fromisoformat(record["date"])
        except ValueError:
            raise ValueError(f"has the date {_short(record['date'])}") from None
    _check_parts(record)
    dataset, category, method, variant, protocol = (
        str(record[key]) for key in ("dataset", "category", "method", "variant", "protocol")
    )
    return record, CellId(dataset, category, method, variant, protocol, record["seed"])


def is_origin(name: Any) -> bool:
    """Whether a lab may be called so: up to 40 letters, digits, blanks and . _ + -"""
    return isinstance(name, str) and bool(ORIGIN.fullmatch(name))


def _check_parts(record: Record) -> None:
    for key, levels in FIGURES.items():
        if record.get(key) is not None:
            for value in _leaves(record[key], key, levels):
                require(_is_figure(value), f"has {_short(value)} for a number in {key}")
    require(_is_figure(record.get("pixels_seen")), "has no number as its pixels_seen")
    require(record["status"] != "done" or isinstance(record.get("metrics"), dict), "is done without metrics")
    for key in LISTS:
        held = record.get(key)
        require(
            held is None or (isinstance(held, list) and all(isinstance(text, str) for text in held)),
            f"has no list of texts as its {key}",
        )
    for key in FACTS:
        if record.get(key) is not None:
            for value in _leaves(record[key], key, 1):
                require(not isinstance(value, dict | list), f"has more than texts and numbers in {key}")
    for key in OBJECTS:
        require(record.get(key) is None or isinstance(record[key], dict), f"has no object as its {key}")
    for key in ("weights", "history"):
        held = record.get(key)
        require(
            held is None or (isinstance(held, list) and all(isinstance(part, dict) for part in held)),
            f"has no list of objects as its {key}",
        )
    if record.get("best_on_test"):
        best = record["best_on_test"]
        require(type(best.get("tested")) is int, "has no number of tested epochs in best_on_test")
        for value in _leaves(best.get("metrics"), "best_on_test", 3):
            require(_is_figure(value) or value == "last", f"has {_short(value)} in best_on_test")


def _leaves(value: Any, key: str, levels: int) -> Iterator[Any]:
    require(isinstance(value, dict), f"has no object as its {key}")
    for inner in value.values():
        if levels > 1:
            yield from _leaves(inner, key, levels - 1)
        else:
            yield inner


def _is_figure(value: Any) -> bool:
    """None, or a number that a float can hold: JSON has no NaN."""
    if value is None:
        return True
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _text(record: Record, key: str, longest: int, empty: bool = False) -> None:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"has {_short(value)} as its {key}")
    require(len(value) <= longest, f"has a {key} of {len(value):,} characters, at most {longest} are taken")
    require(empty or bool(value.strip()), f"has no {key}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _json(content: bytes) -> Any:
    """What the bytes hold, in plain UTF-8 JSON of a bounded depth, size and length of its texts."""
    try:
        value = orjson.loads(content)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    waiting, count = [(value, 1)], 0
    while waiting:
        held, depth = waiting.pop()
        count += 1
        require(count <= PARTS, f"holds more than {PARTS:,} values")
        require(depth <= DEPTH, f"is nested deeper than {DEPTH} levels")
        if isinstance(held, str):
            require(
                len(held) <= TEXT, f"holds a text of {len(held):,} characters, at most {TEXT:,} are taken"
            )
        elif isinstance(held, list):
            waiting += [(inner, depth + 1) for inner in held]
        elif isinstance(held, dict):
            require(max(map(len, held), default=0) <= 500, "holds a name of more than 500 characters")
            waiting += [(inner, depth + 1) for inner in held.values()]
    return value


def check_samples(path: Path) -> None:
    """samples.csv: path, label, defect and score of each test image."""
    with path.open(encoding="utf-8", newline="") as file:
        try:
            rows = csv.reader(file, strict=True)
            head = next(rows, [])
            require(head == ["path", "label", "defect", "score"], f"begins with {_short(head)}")
            for row in rows:
                require(len(row) == 4, f"line {rows.line_num} has {len(row)} fields, wanted 4")
                name, label, defect, score = row
                require(
                    0 < len(name) <= 1000 and len(defect) <= NAME, f"line {rows.line_num}: names too long"
                )
                plain = not name.startswith("/") and ".." not in name.split("/")
                require(plain, f"line {rows.line_num}: {_short(name)} is no plain relative path")
                require(label in ("0", "1"), f"line {rows.line_num}: label {_short(label)}")
                require(_is_figure(float(score)), f"line {rows.line_num}: score {_short(score)}")
        except UnicodeDecodeError as error:
            raise ValueError(f"is not UTF-8: {error}") from None
        except (csv.Error, ValueError) as error:
            raise ValueError(f"is no table of scores: {error}") from None


def check_config(path: Path) -> None:
    """config.yaml: plain values, no tags, and no anchors, by which a few bytes can stand for gigabytes."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=loader):
            require(not isinstance(event, yaml.AliasEvent), "holds an alias")
            tag = getattr(event, "tag", None)
            require(tag in (None, "!"), f"has tag {_short(tag)}")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            require(depth <= 2 * DEPTH, f"is nested deeper than {2 * DEPTH} levels")
        held = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # a safe one
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is no YAML: {_short(str(error))}") from None
    require(isinstance(held, dict), "holds no settings")


def check_curves(path: Path) -> None:
    """curves.json: lists x and y of numbers, as many in one as in the other."""
    for curve in _leaves(_json(path.read_bytes()), "curves", 2):
        require(isinstance(curve, dict) and {"x", "y"} <= curve.keys(), "has a curve without x and y")
        for points in curve.values():
            require(isinstance(points, list) and all(map(_is_figure, points)), "has a curve of no numbers")
        require(len(curve["x"]) == len(curve["y"]) <= 10_000, "has a curve whose x and y differ in length")


def check_pictures(path: Path) -> None:
    """pictures.json: which images the strips show, and the scores of their grey levels."""
    facts = _json(path.read_bytes())
    require(isinstance(facts, dict), "holds no object")
    require(
        type(facts.get("tile")) is int and 8 <= facts["tile"] <= 1024, "has no tile from 8 to 1024 pixels"
    )
    images = facts.get("images")
    require(isinstance(images, list) and 0 < len(images) <= 64, "has not 1 to 64 images")
    for image in images:
        require(isinstance(image, dict), "has an image that is no object")
        _text(image, "name", 1000)
        _text(image, "defect", NAME, empty=True)
        require(image.get("label") in (0, 1) and _is_figure(image.get("score")), "has no label or no score")
        sides = [image.get("width"), image.get("height")]
        fits = all(type(side) is int and 1 <= side <= facts["tile"] for side in sides)
        require(fits, f"has an image of {_short(sides)} pixels")
        why = image.get("why")
        require(
            isinstance(why, list) and all(isinstance(text, str) for text in why), "has no list as its why"
        )
    if facts.get("levels") is not None:
        levels, quantiles = facts["levels"], facts.get("quantiles")
        require(
            _numbers(levels) and len(levels) == 256 and levels == sorted(levels), "has no 256 rising levels"
        )
        require(isinstance(quantiles, dict), "has levels without quantiles")
        at, values = quantiles.get("at"), quantiles.get("values")
        require(_numbers(at) and _numbers(values), "has quantiles that are no numbers")
        require(0 < len(at) == len(values) <= 1000, "has quantiles without places")
        require(at == sorted(at) and values == sorted(values), "has quantiles that do not rise")
        require(
            type(quantiles.get("pixels")) is int and quantiles["pixels"] > 0, "has quantiles of no pixels"
        )


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(number is not None and _is_figure(number) for number in value)


def check_strip(path: Path) -> None:
    """A strip of pictures: of the one kind and mode, and of the size that pictures.json says."""
    from PIL import Image

    kind, mode = {"inputs.jpg": ("JPEG", "RGB"), "truth.png": ("PNG", "1"), "maps.png": ("PNG", "P")}[
        path.name
    ]
    beside = path.with_name("pictures.json")
    require(beside.is_file(), "has no pictures.json beside it")
    check_pictures(beside)
    facts = orjson.loads(beside.read_bytes())
    wanted = (facts["tile"] * len(facts["images"]), facts["tile"])
    try:
        with Image.open(path, formats=[kind]) as image:  # reads the head alone
            require(image.size == wanted, f"is of {image.size} pixels, wanted {wanted}")
            require(image.mode == mode, f"is of mode {image.mode}, wanted {mode}")
            require(getattr(image, "n_frames", 1) == 1, "has several frames")
            if mode == "P":
                palette = image.getpalette() or []
                require(len(palette) == 3 * len(facts.get("levels") or ()), "has not a colour for each level")
            image.load()
    except ValueError:
        raise
    except Exception as error:  # on a damaged file Pillow raises nearly anything
        raise ValueError(f"is no whole {kind}: {type(error).__name__}: {_short(str(error))}") from None


def check_maps(path: Path) -> None:
    """maps.npz: plain arrays (h, w) of floating point, one for each image; nothing is unpickled."""
    import numpy as np

    total = 0
    try:
        with zipfile.ZipFile(path) as bundle:
            require(len(bundle.comment) <= 100, "has a long comment")
            for member in bundle.infolist():
                name = PurePosixPath(member.filename)
                plain = not name.is_absolute() and ".." not in name.parts and "\\" not in member.filename
                require(plain and name.suffix == ".npy", f"holds {_short(member.filename)}")
                with bundle.open(member) as array:
                    version = np.lib.format.read_magic(array)
                    require(version in ((1, 0), (2, 0)), "has an unknown kind of array")
                    first = version == (1, 0)
                    read = (
                        np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(array)
                    size = dtype.itemsize * int(np.prod([int(side) for side in shape], dtype=object))
                    require(len(shape) == 2 and dtype.kind == "f", f"holds an array {shape} of {dtype}")
                    require(
                        size == member.file_size - array.tell(), "has an array of another size than it says"
                    )
                    total += size
                    require(0 < size <= GIB and total <= LARGEST, "has too large arrays")
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, SyntaxError) as error:
        raise ValueError(f"is no archive of arrays: {_short(str(error))}") from None


def check_model(path: Path) -> None:
    """model.safetensors: a head that fits the file, tensors alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            require(len(list(tensors.keys())) <= 100_000, "holds more than 100,000 tensors")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"is no safetensors file: {_short(str(error))}") from None


LARGEST = 64 * GIB
# The files of a cell beside its record: how large each may be, and what it is checked by.
FILES: Mapping[str, tuple[int, Callable[[Path], None]]] = {
    "config.yaml": (MIB, check_config),
    "samples.csv": (256 * MIB, check_samples),
    "curves.json": (4 * MIB, check_curves),
    "pictures.json": (MIB, check_pictures),
    "inputs.jpg": (32 * MIB, check_strip),
    "truth.png": (32 * MIB, check_strip),
    "maps.png": (32 * MIB, check_strip),
    "maps.npz": (LARGEST, check_maps),
    "model.safetensors": (LARGEST, check_model),
}
RECORD_SIZE = 4 * MIB

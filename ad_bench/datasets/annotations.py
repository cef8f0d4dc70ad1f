"""Annotation files of the public data sets to plain values; DataError, with the place, for unusable ones.

They come from strangers: XML may not declare entities, and no path in a table may leave the data set.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from ad_bench.errors import DataError

Box = tuple[float, float, float, float]  # left, top, right, bottom; the last two outside


def csv_rows(path: Path, *headers: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where a row stands, for messages, and its cells by column; the columns hold one of `headers`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV table: {error}; fetch the file again") from error
    columns = rows[0] if rows else []
    if not any(set(header) <= set(columns) for header in headers):
        wanted = " or ".join(", ".join(header) for header in headers)
        raise DataError(f"{path} has the columns {', '.join(columns) or '(none)'}; wanted {wanted}")
    for number, row in enumerate(rows[1:], 2):
        if row and len(row) != len(columns):
            raise DataError(
                f"{path}, row {number} has {len(row)} cells; wanted {len(columns)}: fetch the file again"
            )
        if row:
            yield f"{path}, row {number}", dict(zip(columns, row, strict=True))


def json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; fetch the file again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {type(content).__name__}; wanted a JSON object")
    return content


def voc_objects(path: Path) -> list[tuple[str, Box]]:
    """Name and box of every object of a PASCAL VOC file, whose pixels count from 1, the last one inside."""
    content = read_text(path)
    # Entities can be declared nowhere else; they could grow a small file without bounds or read others. Zero
    # bytes are a wider encoding, which the parser would recognise and the search for DOCTYPE would not.
    if "\0" in content:
        raise DataError(f"{path} is not UTF-8 text: it has zero bytes; fetch the file again")
    if "<!DOCTYPE" in content:
        raise DataError(
            f"{path} has a DOCTYPE, which no VOC annotation needs; remove it or fetch the file again"
        )
    try:
        annotation = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML: {error}; fetch the file again") from error
    found = []
    for number, thing in enumerate(annotation.iter("object"), 1):
        name = (thing.findtext("name") or "").strip()
        corners = [thing.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(value) for value in corners)
        except ValueError:
            left = top = right = bottom = math.nan
        if not (name and left <= right and top <= bottom and math.isfinite(right - left + bottom - top)):
            raise DataError(
                f"{path}, object {number} is {name or 'without a name'} at {', '.join(corners)}; wanted a "
                "name and a bndbox with xmin <= xmax and ymin <= ymax: check the annotation"
            )
        found.append((name, (left - 1, top - 1, right, bottom)))
    return found


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; fetch the file again") from error


def inside(root: Path, name: str, where: str) -> Path:
    """The file that a table names relative to `root`; DataError where it would lie outside."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name:
        raise DataError(f"{where} names the file '{name}'; wanted a path below {root}: fetch the table again")
    return root.joinpath(*parts)


def missing_annotations(category: str, missing: list[tuple[Path, Path]]) -> DataError:
    """The error for images without an annotation file, given as (image, wanted file)."""
    image, wanted = missing[0]
    rest = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
    return DataError(
        f"'{category}': no annotation for {image}{rest}; looked for {wanted}. Unpack the annotations beside "
        "the images, or remove the image"
    )

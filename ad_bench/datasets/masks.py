"""What an adapter says of a mask -> pixels: the one place that does it.

Files are compared with a grey value; boxes, ellipses, outlines and runs are drawn at the image's size.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ad_bench.datasets.images import mask_values, shape_text
from ad_bench.errors import DataError
from ad_bench.samples import Boxes, Ellipses, MaskFiles, MaskSource, Polygons, RunLengths

LOCO_CONFIG = "defects_config.json"

Mask = NDArray[np.bool_]
Size = tuple[int, int]
Defects = list[tuple[Mask, int]]  # (H, W) and the saturation area in pixels, of each defect


def read_mask(mask: MaskSource | None, size: Size, sample_name: str) -> Mask:
    """(H, W) bool of the decoded image's size, True on the defect; all False without a mask.

    A mask without a defect pixel is no error: some data sets hold anomalous images with an empty mask.
    Raises DataError, naming the file or the image, for a mask of another size and for marks outside of it.
    """
    if mask is None:
        return np.zeros(size, bool)
    return _READERS[type(mask)](mask, (int(size[0]), int(size[1])), sample_name)


def read_defects(mask: MaskSource | None, size: Size, sample_name: str) -> Defects | None:
    """Each defect of an image with the area at which it saturates; None where the mask does not say.

    Raises DataError where a file's grey value is not in its defects_config.json, or its size differs.
    """
    if not isinstance(mask, MaskFiles) or mask.saturations is None:
        return None
    known = saturations(mask.saturations)
    found = [channel(path, known, mask.saturations) for path in mask.paths]
    for path, (pixels, _) in zip(mask.paths, found, strict=True):
        _check_size(path, pixels.shape, size, sample_name)
    return found


def _files(mask: MaskFiles, size: Size, sample_name: str) -> Mask:
    found = np.zeros(size, bool)
    for path in mask.paths:
        values = mask_values(path)
        _check_size(path, values.shape, size, sample_name)
        found |= values > mask.above
    return found


def _check_size(path: Path, shape: tuple[int, ...], size: Size, sample_name: str) -> None:
    if shape != tuple(size):
        turned = " (turned: does the image carry an EXIF orientation?)" * (shape == tuple(size)[::-1])
        raise DataError(
            f"the mask {path} is {shape_text(shape)} pixels, its image {sample_name} {shape_text(size)}"
            f"{turned}; masks must have the size of their image: make the mask again, it is not resized"
        )


def _boxes(mask: Boxes, size: Size, sample_name: str) -> Mask:
    found = np.zeros(size, bool)
    height, width = size
    for left, top, right, bottom in mask.boxes:
        if not (left < right and top < bottom and right > 0 and bottom > 0 and left < width and top < height):
            raise DataError(
                f"a box of {sample_name} runs from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), the image "
                f"is {shape_text(size)}; check the annotation"
            )
        rows = slice(max(int(np.floor(top)), 0), int(np.ceil(bottom)))
        found[rows, max(int(np.floor(left)), 0) : int(np.ceil(right))] = True
    return found


def _ellipses(mask: Ellipses, size: Size, sample_name: str) -> Mask:
    found = np.zeros(size, bool)
    y, x = np.ogrid[: size[0], : size[1]]
    for centre_x, centre_y, a, b, angle in mask.ellipses:
        if not (a > 0 and b > 0):
            raise DataError(
                f"an ellipse of {sample_name} has the half axes {a:g} and {b:g}; wanted both above 0: check "
                "the annotation"
            )
        along = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
        across = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
        found |= (along / a) ** 2 + (across / b) ** 2 <= 1
    return found


def _polygons(mask: Polygons, size: Size, sample_name: str) -> Mask:
    canvas = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    for outline in mask.polygons:
        if len(outline) < 6 or len(outline) % 2:
            raise DataError(
                f"an outline of {sample_name} has {len(outline)} numbers; wanted x and y of three points at "
                "least: check the annotation"
            )
        draw.polygon(list(outline), fill=1, outline=1)
    return np.array(canvas, bool)


def _runs(mask: RunLengths, size: Size, sample_name: str) -> Mask:
    flat = np.zeros(size[0] * size[1], bool)
    for start, length in mask.runs:
        if start < 1 or length < 1 or start - 1 + length > flat.size:
            raise DataError(
                f"a run of {sample_name} starts at pixel {start} and has {length}, the image is "
                f"{shape_text(size)}, {flat.size} pixels; check the annotation"
            )
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(size[::-1]).T.copy()


_READERS: Mapping[type, Callable[..., Mask]] = {
    MaskFiles: _files,
    Boxes: _boxes,
    Ellipses: _ellipses,
    Polygons: _polygons,
    RunLengths: _runs,
}


# --- MVTec LOCO: one file a defect, whose grey value says at what area it saturates


@dataclass(frozen=True)
class Saturation:
    """One entry of a defects_config.json."""

    threshold: float
    relative: bool

    def of(self, area: int) -> int:
        """The saturation area of a defect of so many pixels, 1 to `area`."""
        # [S] rounds a relative one down. That could be 0, where finding nothing would saturate: 1 is [ours].
        return max(1, int(self.threshold * area)) if self.relative else min(int(self.threshold), area)


def channel(path: Path, known: Mapping[int, Saturation], config: Path) -> tuple[Mask, int]:
    """The mask of one defect and its saturation area in pixels."""
    values = mask_values(path)
    value, mask = int(values.max()), values > 0
    if value == 0 or not (values[mask] == value).all():
        raise DataError(
            f"the mask {path} holds the grey values {grey_values(values)}; wanted one besides 0, the "
            f"pixel_value of its defect in {LOCO_CONFIG}: one PNG for each defect"
        )
    if value not in known:
        raise DataError(
            f"the mask {path} has the grey value {value}, which {config} does not list (it has "
            f"{', '.join(map(str, sorted(known)))}); is that the file of this category?"
        )
    return mask, known[value].of(int(mask.sum()))


def grey_values(values: NDArray[np.integer]) -> str:
    """The first grey values of a mask, for a message."""
    present = np.unique(values)
    return ", ".join(str(value) for value in present[:5]) + (", ..." if present.size > 5 else "")


def saturations(path: Path) -> dict[int, Saturation]:
    """Grey value -> saturation, of the list in defects_config.json; DataError for what is no such file."""
    try:
        return _saturations(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise DataError(
            f"no {path}: the masks lie as in MVTec LOCO, where this file says at what area a defect "
            "saturates; copy it from the data set"
        ) from error


@functools.lru_cache(maxsize=64)  # every image of a category asks; the time of change keeps it honest
def _saturations(path: Path, changed: int) -> dict[int, Saturation]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; copy it from the data set again") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} holds no list of defects; copy it from the data set again")
    found: dict[int, Saturation] = {}
    for number, entry in enumerate(entries, 1):
        value, saturation = _entry(entry, f"{path}, entry {number}")
        if value in found:
            raise DataError(f"{path}, entry {number}: pixel_value {value} is taken by an earlier entry")
        found[value] = saturation
    return found


def _entry(entry: Any, where: str) -> tuple[int, Saturation]:
    keys = ("pixel_value", "saturation_threshold", "relative_saturation")
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)}; wanted an object with {', '.join(keys)}")
    value, threshold, relative = (entry[key] for key in keys)
    if type(value) is not int or not 1 <= value <= 255:
        raise DataError(f"{where}: pixel_value is {value!r}; wanted a grey value from 1 to 255")
    if not isinstance(relative, bool):
        raise DataError(f"{where}: relative_saturation is {relative!r}; wanted true or false")
    if relative and (type(threshold) not in (int, float) or not 0 < threshold <= 1):
        raise DataError(
            f"{where}: saturation_threshold is {threshold!r}; wanted a share of the area in (0, 1]"
        )
    if not relative and (type(threshold) is not int or threshold < 1):
        raise DataError(f"{where}: saturation_threshold is {threshold!r}; wanted a whole number of pixels")
    return value, Saturation(threshold, relative)


def union(paths: Sequence[Path], channels: Defects) -> Mask:
    """The pixels of any defect of an image; DataError where the files differ in size."""
    shapes = {mask.shape for mask, _ in channels}
    if len(shapes) > 1:
        raise DataError(
            f"the masks in {paths[0].parent} have different sizes: {sorted(shapes)}; every defect of an "
            "image is drawn at the image's size"
        )
    return np.logical_or.reduce([mask for mask, _ in channels])

"""What a page shows of a cell: small pictures of some test images, their truth and maps, and the curves.

A strip of each kind lies beside the record, one tile an image: `inputs.jpg`, `truth.png` (black and white)
and `maps.png`, whose 256 grey levels stand for the scores that `pictures.json` lists. A page colours them on
one scale for all cells of a method: for that the file has the quantiles of all test maps. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import DataError
from ad_bench.geometry import Geometry
from ad_bench.samples import ANOMALOUS, Boxes, Sample

CURVES, PICTURES = "curves.json", "pictures.json"
INPUTS, TRUTH, MAPS = "inputs.jpg", "truth.png", "maps.png"
FILES = (CURVES, PICTURES, INPUTS, TRUTH, MAPS)
TILE = 128  # pixels of the longer side
DEFECTIVE, NORMAL = 6, 2  # pictures of the gallery: the survey's Fig. 7 shows one image a category
EXTREMES = 3  # the highest normal and the lowest defective scores; of the opposite ends one less
AT = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1)
MOST = 1 << 22  # pixels that the quantiles are taken from, evenly spread; the ends are exact


def write_curves(folder: Path, curves: Mapping[str, Any]) -> None:
    """`curves.json`, where there are any."""
    if curves:
        _write(folder / CURVES, dict(curves))


def write_pictures(
    folder: Path,
    samples: Sequence[Sample],
    scores: NDArray[np.floating[Any]],
    maps: Sequence[NDArray[np.floating[Any]]] | None,
    geometry: Geometry,
) -> str | None:
    """The strips and `pictures.json`; None, or why there are none: an image that cannot be read any more.

    scores (N,), maps N of (h, w) in the method's geometry, or None: then the images and their truth alone.
    """
    shown = choose(samples, scores)
    chosen = sorted(shown)
    try:
        images = {i: decode(samples[i].image) for i in chosen}
        masks = {i: _mask(samples[i], images[i].shape[:2]) for i in chosen}
    except DataError as error:
        return f"no pictures: {error}"
    sizes = {i: _fitted(images[i].shape[:2]) for i in chosen}
    strips: dict[str, Image.Image] = {INPUTS: _strip("RGB", [_shrunk(images[i], sizes[i]) for i in chosen])}
    if all(mask is not None for mask in masks.values()):
        strips[TRUTH] = _strip("1", [_truth(masks[i], sizes[i]) for i in chosen])
    facts: dict[str, Any] = {
        "tile": TILE,
        "images": [
            {
                "name": samples[i].name,
                "defect": samples[i].defect,
                "label": samples[i].label,
                "score": float(scores[i]),
                "width": sizes[i][1],
                "height": sizes[i][0],
                "why": shown[i],
            }
            for i in chosen
        ],
    }
    if maps is not None:
        tiles = [_map(maps[i], geometry, images[i].shape[:2], sizes[i]) for i in chosen]
        levels = _levels(tiles)
        between = (levels[1:] + levels[:-1]) / 2
        strips[MAPS] = _strip("P", [Image.fromarray(_level_of(tile, between)) for tile in tiles])
        strips[MAPS].putpalette([grey for grey in range(256) for _ in "rgb"])
        facts["levels"] = [_number(value) for value in levels]
        facts["quantiles"] = _quantiles(maps)
    for name, strip in strips.items():
        strip.save(folder / name, **({"quality": 85} if name == INPUTS else {"optimize": False}))
    _write(folder / PICTURES, facts)
    return None


def _write(path: Path, facts: dict[str, Any]) -> None:
    """On one line: hundreds of numbers, which a page reads and nobody else."""
    text = json.dumps(facts, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def choose(samples: Sequence[Sample], scores: NDArray[np.floating[Any]]) -> dict[int, list[str]]:
    """Which images, and why: `gallery` by the test set alone, so that methods share them; `worst`, `best`.

    The gallery has one image of each kind of defect, the middle one by name (of more than 6 kinds those
    evenly spread), and normal ones from inside the row. Worst are normal images with the highest scores and
    defective ones with the lowest.
    """
    kinds: dict[str, list[int]] = {}
    for index in sorted(range(len(samples)), key=lambda i: samples[i].name):
        kinds.setdefault(samples[index].defect if samples[index].label == ANOMALOUS else "", []).append(index)
    normal = kinds.pop("", [])
    names = sorted(kinds)
    names = [names[i] for i in _spread(len(names), DEFECTIVE)]
    gallery = [kinds[name][len(kinds[name]) // 2] for name in names]
    gallery += [normal[i] for i in _spread(len(normal), NORMAL)]
    rising = [int(i) for i in np.argsort(np.asarray(scores), kind="stable")]
    calm = [i for i in rising if samples[i].label != ANOMALOUS]
    ill = [i for i in rising if samples[i].label == ANOMALOUS]
    found: dict[int, list[str]] = {}
    for why, chosen in (
        ("gallery", gallery),
        ("worst", [*calm[::-1][:EXTREMES], *ill[:EXTREMES]]),
        ("best", [*calm[: EXTREMES - 1], *ill[::-1][: EXTREMES - 1]]),
    ):
        for index in dict.fromkeys(chosen):
            found.setdefault(index, []).append(why)
    return found


def _spread(count: int, wanted: int) -> list[int]:
    """Places of `wanted` of `count` things, in the middles of as many equal parts."""
    if count <= wanted:
        return list(range(count))
    return [int((part + 0.5) * count / wanted) for part in range(wanted)]


def _mask(sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The truth of an image; None where it is not known to the pixel."""
    if sample.mask is None:
        return None if sample.label == ANOMALOUS else np.zeros(size, bool)
    if isinstance(sample.mask, Boxes) and not sample.mask.filled:
        return None
    return read_mask(sample.mask, size, sample.name)


def _fitted(size: Sequence[int]) -> tuple[int, int]:
    """(h, w) whose longer side is TILE."""
    longest = max(size)
    return tuple(max(1, round(side * TILE / longest)) for side in size)  # type: ignore[return-value]


def _shrunk(image: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)


def _truth(mask: NDArray[np.bool_] | None, size: tuple[int, int]) -> Image.Image:
    """A defect stays to be seen, however small: a pixel is white if any of those it stands for is."""
    assert mask is not None
    rows, columns = ((np.arange(n) * m) // n for n, m in zip(size, mask.shape, strict=True))
    if mask.shape[0] > size[0]:
        mask = np.logical_or.reduceat(mask, rows, axis=0)
        rows = np.arange(size[0])
    if mask.shape[1] > size[1]:
        mask = np.logical_or.reduceat(mask, columns, axis=1)
        columns = np.arange(size[1])
    return Image.fromarray(mask[rows][:, columns])


def _map(
    values: NDArray[np.floating[Any]], geometry: Geometry, original: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """A map on the pixels of the original, shrunk; what was never seen has the lowest score that was."""
    whole = _seen(geometry.backward(_seen(values), original)[0])
    return np.asarray(Image.fromarray(whole).resize(size[::-1], Image.Resampling.BILINEAR))


def _seen(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The values with the lowest finite one for -inf: cut off by a crop, or so marked by another program."""
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0.0)
    return values.astype(np.float32)


def _levels(tiles: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """256 rising scores, half of them even from the lowest to the highest, half by how often scores occur.

    Even steps alone would show nothing of maps whose highest score is far above the rest.
    """
    every = np.concatenate([tile.ravel() for tile in tiles]).astype(np.float64)
    even = np.linspace(every.min(), every.max(), 128)
    return np.sort(np.concatenate([even, np.quantile(every, np.linspace(0, 1, 128))]))


def _level_of(tile: NDArray[np.float32], between: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.searchsorted(between, tile.astype(np.float64)).astype(np.uint8)


def _quantiles(maps: Sequence[NDArray[np.floating[Any]]]) -> dict[str, Any]:
    pixels = sum(m.size for m in maps)
    step = -(-pixels // MOST)
    some = np.concatenate([m.ravel()[::step] for m in maps]).astype(np.float64)
    seen = some[np.isfinite(some)]
    values = np.quantile(seen if len(seen) else np.zeros(1), AT)
    if len(seen) == len(some):
        values[0], values[-1] = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
    return {"at": list(AT), "values": [_number(value) for value in values], "pixels": pixels}


def _number(value: float) -> float:
    return float(f"{value:.7g}")


def _strip(mode: str, tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles side by side, each at the top left of its square."""
    strip = Image.new("L" if mode == "P" else mode, (TILE * len(tiles), TILE))
    for place, tile in enumerate(tiles):
        strip.paste(tile, (TILE * place, 0))
    if mode == "P":  # the levels are indices already: the same bytes under a palette
        strip = Image.frombytes("P", strip.size, strip.tobytes())
    return strip

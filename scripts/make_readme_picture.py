"""Draw the README's picture: images of the synthetic set, their defects, and anomaly maps side by side.

    python scripts/make_readme_picture.py --out results/synthetic_maps.png

Fits the methods on the embedded data (a minute or two on a CPU). Each method has one fixed colour scale over
all of its test maps, never one for each image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

METHODS = ("patchcore", "padim", "mean_image")
SIDE, GAP, HEAD = 128, 6, 18
# Dark to bright, so that it reads in grey as well (anchors chosen by eye, mixed linearly).
COLOURS = np.array([(4, 5, 20), (75, 20, 110), (185, 55, 85), (245, 140, 30), (250, 250, 180)], float)


def coloured(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (H, W) -> RGB uint8."""
    place = np.clip(values, 0, 1) * (len(COLOURS) - 1)
    low = np.minimum(place.astype(int), len(COLOURS) - 2)
    share = (place - low)[..., None]
    return (COLOURS[low] * (1 - share) + COLOURS[low + 1] * share).round().astype(np.uint8)


def tile(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def run(folder: Path, cache: Path) -> None:
    words = [f"method={','.join(METHODS)}", "backbone=bundled", "save.maps=true"]
    places = [f"paths.results={folder}", f"paths.cache={cache}"]
    subprocess.run([sys.executable, "-m", "ad_bench", "run", "-m", *words, *places], check=True)


def maps_of(folder: Path, category: str) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for method in METHODS:
        (path,) = (folder / "cells" / "synthetic" / category).glob(f"{method}*/*/*/maps.npz")
        with np.load(path, allow_pickle=False) as stored:
            found[method] = {name: stored[name].astype(np.float32) for name in stored.files}
    return found


def rows(folder: Path, root: Path) -> list[tuple[str, list[Image.Image]]]:
    drawn = []
    for turn, place in enumerate(sorted((folder / "cells" / "synthetic").iterdir())):
        maps = maps_of(folder, place.name)
        names = sorted(maps[METHODS[0]])
        defects = list(dict.fromkeys(Path(name).parent.name for name in names if "/good/" not in name))
        chosen = [next(n for n in names if "/good/" in n)]
        chosen.append(next(n for n in names if f"/{defects[turn % len(defects)]}/" in n))
        scale = {m: np.quantile(np.stack(list(v.values())), [0.5, 0.999]) for m, v in maps.items()}
        for name in chosen:
            mask = root / place.name / "ground_truth" / Path(name).parent.name / f"{Path(name).stem}_mask.png"
            truth = np.array(Image.open(mask)) if mask.is_file() else np.zeros((SIDE, SIDE), np.uint8)
            tiles = [tile(np.array(Image.open(root / name))), tile(truth)]
            for method in METHODS:
                low, high = scale[method]
                tiles.append(tile(coloured((maps[method][name] - low) / (high - low))))
            drawn.append((f"{place.name}, {Path(name).parent.name}", tiles))
    return drawn


def draw(table: list[tuple[str, list[Image.Image]]], out: Path) -> None:
    heads = ["image", "ground truth", *METHODS]
    left, step = 130, SIDE + GAP
    picture = Image.new("RGB", (left + step * len(heads), HEAD + step * len(table)), "white")
    pen = ImageDraw.Draw(picture)
    for column, head in enumerate(heads):
        pen.text((left + column * step + 4, 3), head, fill="black")
    for row, (name, tiles) in enumerate(table):
        pen.text((4, HEAD + row * step + SIDE // 2 - 6), name.replace(", ", "\n"), fill="black")
        for column, image in enumerate(tiles):
            picture.paste(image, (left + column * step, HEAD + row * step))
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out, optimize=True)
    print(f"{out}: {picture.width} x {picture.height}")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--out", type=Path, default=Path("results/synthetic_maps.png"))
    out = words.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        run(here / "results", here / "cache")
        (root,) = (here / "cache").glob("synthetic*")
        draw(rows(here / "results", root), out)


if __name__ == "__main__":
    main()

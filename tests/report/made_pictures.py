"""What a run leaves beside a record, for tests of the page: scores, settings, curves, strips of pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

TILE = 96
IMAGES = (("broken/000.png", "broken", 1), ("bent/003.png", "bent", 1), ("good/001.png", "good", 0))
AT = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1)


def left_by_a_run(
    record_json: Path,
    low: float = 0.0,
    high: float = 10.0,
    images: tuple[tuple[str, str, int], ...] = IMAGES,
    with_maps: bool = True,
    config: str = "method:\n  model:\n    _target_: ad_bench.methods.patchcore.PatchCore\nseed: 0\n",
) -> Path:
    """Fill the folder of a record; the scores of its maps are from `low` to `high`. Returns the folder."""
    folder = record_json.parent
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "defect", "score"])
    scores = {}
    for place, (name, defect, label) in enumerate(images):
        scores[name] = low + (high - low) * (0.5 * label + 0.1 * place)
        writer.writerow([name, label, defect, repr(scores[name])])
    (folder / "samples.csv").write_text(buffer.getvalue(), encoding="utf-8")
    curve = {"x": [0.0, 0.1, 1.0], "y": [0.0, 0.9, 1.0]}
    curves = {"full": {"roc": curve, "pr": {"x": [0.0, 1.0], "y": [1.0, 0.4]}, "pro": curve}}
    (folder / "curves.json").write_text(json.dumps(curves), encoding="utf-8")
    draw_strips(folder, len(images), with_maps)
    stored: dict[str, Any] = {
        "tile": TILE,
        "images": [
            {
                "name": name,
                "defect": defect,
                "label": label,
                "score": scores[name],
                "width": TILE,
                "height": TILE - 24,
                "why": ["gallery", "worst"] if place == 0 else ["gallery", "best"],
            }
            for place, (name, defect, label) in enumerate(images)
        ],
    }
    if with_maps:
        stored["levels"] = [low + (high - low) * level / 255 for level in range(256)]
        values = [low + (high - low) * share for share in AT]
        stored["quantiles"] = {"at": list(AT), "values": values, "pixels": 10_000}
    (folder / "pictures.json").write_text(json.dumps(stored), encoding="utf-8")
    return folder


def draw_strips(folder: Path, count: int, with_maps: bool = True) -> None:
    """inputs.jpg, truth.png and maps.png: a disc with a spot in each tile."""
    size = (TILE * count, TILE)
    inputs, truth = Image.new("RGB", size, (96, 88, 80)), Image.new("1", size)
    maps = Image.new("P", size)
    maps.putpalette([grey for grey in range(256) for _ in "rgb"])
    for place in range(count):
        left = place * TILE
        ImageDraw.Draw(inputs).ellipse((left + 10, 4, left + 80, 68), fill=(190, 186, 178))
        spot = (left + 20 + 8 * place, 20, left + 40 + 8 * place, 36)
        ImageDraw.Draw(inputs).rectangle(spot, fill=(70, 40, 30))
        ImageDraw.Draw(truth).rectangle(spot, fill=1)
        for ring in range(40, 0, -2):
            middle = (left + 30 + 8 * place, 28)
            box = (middle[0] - ring, middle[1] - ring, middle[0] + ring, middle[1] + ring)
            ImageDraw.Draw(maps).ellipse(box, fill=255 - 6 * ring)
    inputs.save(folder / "inputs.jpg", quality=85)
    truth.save(folder / "truth.png")
    if with_maps:
        maps.save(folder / "maps.png", optimize=False)

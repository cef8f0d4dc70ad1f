"""Pictures of the cells: which there are, on which scale, and their copies in the site. Decodes none."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ad_bench import heat
from ad_bench.report.leaderboard import Place
from ad_bench.report.rows import Record, number
from ad_bench.report.site.overview import key_of
from ad_bench.report.site.runs import Run, Runs, fingerprint, text_of

_WHY = frozenset(("gallery", "worst", "best"))
_SPRITES = ("inputs.jpg", "truth.png", "maps.png")


@dataclass
class Pictures:
    """`cells`: row -> (category, seed) -> what the page shows; `copies`: target -> how to make it."""

    cells: dict[str, dict[tuple[str, int], dict[str, Any]]] = field(default_factory=dict)
    copies: dict[str, Copy] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def drop(self, name: str, why: str) -> None:
        """Forget the copy `name`, which cannot be made."""
        home, _, sprite = name.rpartition("/")
        for cells in self.cells.values():
            for shown in cells.values():
                if shown["dir"] == home:
                    shown["files"].remove(sprite)
        self.remarks.append(f"{name} cannot be used: {why}")

    def galleries(self, place: Place) -> dict[str, dict[str, Any]]:
        """Category -> the pictures of its first seed that has images chosen for the gallery."""
        found: dict[str, dict[str, Any]] = {}
        for (category, seed), shown in sorted(self.cells.get(key_of(place.entry), {}).items()):
            if category not in found and any("gallery" in image["why"] for image in shown["images"]):
                images = [image for image in shown["images"] if "gallery" in image["why"]]
                found[category] = {**shown, "images": images, "seed": seed}
        return found


@dataclass(frozen=True)
class Copy:
    """A sprite to copy; of maps the palette is replaced. `state` differs where the copy would."""

    source: str
    state: str
    levels: Sequence[float] = ()
    scale: tuple[float, float] = (0.0, 1.0)

    def data(self) -> bytes:
        """The bytes of the copy. Raises OSError and ValueError."""
        content = Path(self.source).read_bytes()
        return heat.recoloured(content, self.levels, *self.scale) if self.levels else content


def collect(places: Sequence[Place], runs: Runs) -> Pictures:
    """What the runs of all rows left. A pictures.json that makes no sense is named in `remarks` instead."""
    found = Pictures()
    for place in places:
        key = key_of(place.entry)
        cells = []
        for record in place.entry.done():
            run = runs.of(record)
            if "pictures.json" not in run.files or "inputs.jpg" not in run.files:
                continue
            try:
                cells.append((record, run, _checked(json.loads(text_of(run, "pictures.json")))))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                name = f"{key}, {record['category']}, seed {record['seed']}"
                found.remarks.append(f"pictures.json of {name} cannot be used: {error}")
        scaled = [
            stored["quantiles"] for _, run, stored in cells if "maps.png" in run.files and stored["levels"]
        ]
        scale = heat.scale(scaled) if scaled else None
        for record, run, stored in cells:
            shown = _cell(record, run, stored, scale, found.copies)
            found.cells.setdefault(key, {})[record["category"], int(record["seed"])] = shown
    return found


def _checked(stored: Any) -> dict[str, Any]:
    """pictures.json with values of the right kinds alone. Raises ValueError, KeyError, TypeError."""
    tile = int(stored["tile"])
    if not 1 <= tile <= 1024:
        raise ValueError(f"tile {tile} is not within 1 to 1024 pixels")
    images = [
        {
            "name": str(image["name"]),
            "defect": str(image.get("defect") or ""),
            "label": int(image["label"]),
            "score": number(image.get("score")),
            "width": min(tile, max(1, int(image["width"]))),
            "height": min(tile, max(1, int(image["height"]))),
            "why": sorted(_WHY.intersection(map(str, image["why"]))),
            "at": place,
        }
        for place, image in enumerate(stored["images"])
    ]
    levels = [float(level) for level in stored.get("levels") or ()]
    quantiles = stored.get("quantiles") or {}
    if levels:
        numbers = [*levels, *quantiles["values"], *quantiles["at"], quantiles["pixels"]]
        if any(number(value) is None for value in numbers) or quantiles["pixels"] <= 0:
            raise ValueError("levels or quantiles are no numbers")
        if not quantiles["at"] or len(quantiles["at"]) != len(quantiles["values"]):
            raise ValueError("quantiles need as many values as places")
    return {"tile": tile, "images": images, "levels": levels, "quantiles": quantiles}


def _cell(
    record: Record,
    run: Run,
    stored: dict[str, Any],
    scale: tuple[float, float] | None,
    copies: dict[str, Copy],
) -> dict[str, Any]:
    """What the page shows of one cell; adds its files to `copies`."""
    home = "/".join(("pictures", *run.parts))
    shown: dict[str, Any] = {"tile": stored["tile"], "images": stored["images"], "dir": home, "files": []}
    for name in _SPRITES:
        coloured = name == "maps.png"
        if name not in run.files or (coloured and not (stored["levels"] and scale)):
            continue
        size = os.stat(f"{run.folder}/{name}").st_size  # noqa: PTH116
        state = f"{fingerprint(record)} {record.get('date')} {size}"
        if coloured and scale:
            state += f" {scale[0]!r} {scale[1]!r}"
            shown["scale"] = list(scale)
            copies[f"{home}/{name}"] = Copy(f"{run.folder}/{name}", state, stored["levels"], scale)
        else:
            copies[f"{home}/{name}"] = Copy(f"{run.folder}/{name}", state)
        shown["files"].append(name)
    return shown

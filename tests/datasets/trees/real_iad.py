"""Real-IAD: two categories, objects seen from five sides, of which one or two show the defect."""

from __future__ import annotations

import json
from pathlib import Path

from tests.datasets.trees import image, mask

CATEGORIES = ("audiojack", "bottle_cap")
DEFECTS = ("BX", "HS")
VIEWS = range(1, 6)
SIDE = (64, 64)  # all sizes but the raw one are square
Entry = dict[str, str | None]


def make(root: Path) -> None:
    for category in CATEGORIES:
        good = [_object(root, category, f"OK/S{index:04}", index) for index in range(3)]
        bad = [
            _object(root, category, f"NG/{defect}/S{index:04}", index, defect)
            for index, defect in enumerate(DEFECTS, 1)
        ]
        train, test = good[0] + good[1], good[2] + bad[0] + bad[1]
        _list(root, "realiad_jsons", category, train, test)
        _list(root, "realiad_jsons_sv", category, train[::5], test[::5])
        _list(root, "realiad_jsons_fuiad_0.4", category, train + bad[0], good[2] + bad[1])


def _object(root: Path, category: str, folder: str, index: int, defect: str | None = None) -> list[Entry]:
    """The five images of an object and their entries; its defect shows in C1 and C2."""
    entries = []
    kind = f"NG_{defect}" if defect else "OK"
    for view in VIEWS:
        name = f"{folder}/{category}_{index:04}_{kind}_C{view}_2023092110330{view}"
        shown = defect is not None and view < 3
        image(root / "realiad_1024" / category / f"{name}.jpg", defect=shown, size=SIDE)
        if shown:
            mask(root / "realiad_1024" / category / f"{name}.png", size=SIDE)
        entries.append(
            {
                "category": category,
                "anomaly_class": defect if shown else "OK",
                "image_path": f"{name}.jpg",
                "mask_path": f"{name}.png" if shown else None,
            }
        )
    return entries


def _list(root: Path, folder: str, category: str, train: list[Entry], test: list[Entry]) -> None:
    path = root / folder / f"{category}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"prefix": f"{category}/", "normal_class": "OK", "pre_transform": []}
    path.write_text(json.dumps({"meta": meta, "train": train, "test": test[::-1]}))

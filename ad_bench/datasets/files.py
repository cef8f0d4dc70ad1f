"""Listing of image folders for the adapters: in name order on every machine, hidden files left out.

pathlib's glob keeps quiet about a folder that may not be read; these raise.
"""

from __future__ import annotations

import os
from pathlib import Path

from ad_bench.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by suffix in any case; DataError if it cannot be read."""
    found = (folder / entry.name for entry in _entries(folder) if entry.is_file())
    return [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder; DataError if it cannot be read."""
    return [folder / entry.name for entry in _entries(folder) if entry.is_dir()]


def described(folder: Path) -> str:
    """What a folder holds, in a few words for an error message."""
    try:
        entries = _entries(folder) if folder.is_dir() else None
    except (DataError, OSError):
        return "a folder that may not be read"
    if not entries:
        return "no such folder" if entries is None else "an empty folder"
    names = ", ".join(entry.name + "/" * entry.is_dir() for entry in entries[:5])
    return f"{len(entries)} entries: {names}{', ...' if len(entries) > 5 else ''}"


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """Mask files of a folder by their image's stem: '000_mask.png' and '000.png' both answer to '000'."""
    files = images_in(folder) if folder.is_dir() else []
    plain = {path.stem: path for path in files}
    return plain | {
        stem.removesuffix("_mask"): path for stem, path in plain.items() if stem.endswith("_mask")
    }


def missing_masks(category: str, missing: list[tuple[str, str]]) -> DataError:
    """The error for defect images without a mask, given as (image, wanted mask)."""
    image, wanted = missing[0]
    rest = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
    return DataError(
        f"'{category}': no mask for the defect image {image}{rest}; looked for {wanted}. Put "
        "the mask there, or remove the image from the test folder"
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"cannot read the folder {folder}: {error.strerror}; check that you may read it"
        ) from error
    return sorted(found, key=lambda entry: entry.name)

"""Eyecandies (Bonfiglioli et al., ACCV 2022): rendered sweets under six lights, with depth and normals.

<Category>/{train,val,test_public}/data/ hold a dozen files for every image, <number>_image_0.png to
<number>_image_5.png among them. test_private has no published truth and is not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ad_bench.datasets.files import described, images_in, missing_masks
from ad_bench.errors import CategoryMissing, DataError, UsageError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

LIGHTS = range(6)
KINDS = ("bumps", "colors", "dents", "normals")
EXTRA = ("depth", "normals")
SPLITS: tuple[tuple[str, Literal["train", "validation", "test"]], ...] = (
    ("train", "train"),
    ("val", "validation"),
    ("test_public", "test"),
)


def samples(root: Path, category: str, light: int) -> Iterator[Sample]:
    """Every image of a category under one light: train, validation, test, each in name order.

    A test image's <number>_metadata.yaml says whether it is anomalous and of which kinds, several as `a+b`.
    """
    root = Path(root)
    if light not in LIGHTS:
        raise UsageError(f"dataset.samples.light is a light from 0 to {LIGHTS[-1]}; got {light}")
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home} ({root} is: {described(root)}); that folder should hold "
            "train, val and test_public"
        )
    for folder, split in SPLITS:
        if not (home / folder).is_dir():
            raise DataError(
                f"no folder {folder} in {home} ({described(home)}); the layout is "
                f"{category}/{folder}/data/000_image_{light}.png: unpack the archive of {category} again"
            )
        found = list(_split(root, category, home / folder / "data", split, light))
        missing = [
            (str(sample.image), str(mask))
            for sample in found
            if isinstance(sample.mask, MaskFiles)
            for mask in sample.mask.paths
            if not mask.is_file()
        ]
        if missing:
            raise missing_masks(category, missing)
        yield from found


def _split(
    root: Path, category: str, data: Path, split: Literal["train", "validation", "test"], light: int
) -> Iterator[Sample]:
    if not data.is_dir():
        raise DataError(
            f"no folder {data} ({data.parent} is: {described(data.parent)}); the layout is "
            f"{data.parent.name}/data/000_image_{light}.png: unpack the archive of {category} again"
        )
    ending = f"_image_{light}"
    for image in images_in(data):
        if not image.stem.endswith(ending):
            continue
        number = image.stem.removesuffix(ending)
        defect = _defect(data / f"{number}_metadata.yaml") if split == "test" else None
        yield Sample(
            image,
            image.relative_to(root).as_posix(),
            category,
            split,
            NORMAL if defect is None else ANOMALOUS,
            defect or "good",
            # of a normal image all masks are black
            None if defect is None else MaskFiles((data / f"{number}_mask.png",)),
            extra=tuple((role, data / f"{number}_{role}.png") for role in EXTRA),
        )


def _defect(path: Path) -> str | None:
    """The kinds of anomalies that a metadata file states, None for a normal image."""
    from omegaconf import OmegaConf

    try:
        said: Any = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataError(
            f"no {path}: it says whether the image is anomalous; unpack the archive again. The private test "
            "images come without it and belong in test_private"
        ) from error
    except Exception as error:  # whatever the parser raises on a damaged file
        raise DataError(f"cannot read {path}: {error}; unpack the archive again") from error
    anomalous = said.get("anomalous") if isinstance(said, dict) else None
    if anomalous not in (0, 1):  # and so False and True
        raise DataError(f"{path} has no entry 'anomalous' of 0 or 1, but {said!r}; unpack the archive again")
    kinds = "+".join(kind for kind in KINDS if said.get(kind) in (1, True))
    return (kinds or "anomalous") if anomalous else None

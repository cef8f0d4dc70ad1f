"""NEU-DET, the NEU surface defect database with boxes: IMAGES/<defect>_<n>.jpg, ANNOTATIONS/<defect>_<n>.xml.

Also the widespread copy with train/ and validation/, each images/<defect>/*.jpg and annotations/*.xml. No
image is normal, so there is nothing to train on and all of them test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.annotations import missing_annotations, voc_objects
from ad_bench.datasets.files import described, folders_in, images_in
from ad_bench.errors import CategoryMissing, DataError, closest
from ad_bench.samples import ANOMALOUS, Boxes, Sample

DEFECTS = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
OFFICIAL, COPY = ("IMAGES", "ANNOTATIONS"), ("images", "annotations")


def samples(root: Path, category: str, filled: bool) -> Iterator[Sample]:
    """Every image, as a test image, in name order. The name of the file says the defect, boxes say where.

    `filled` counts every pixel of a box as defective.
    """
    root = Path(root)
    places = _places(root)
    tests, missing = [], []
    for images, own in places:
        for image in (path for folder in (images, *folders_in(images)) for path in images_in(folder)):
            # The copy has the image crazing_240 in train, its annotation in validation: any folder will do.
            found = (annotations / f"{image.stem}.xml" for _, annotations in places)
            xml = next((path for path in found if path.is_file()), None)
            if xml is None:
                missing.append((image, own / f"{image.stem}.xml"))
                continue
            mask = Boxes(tuple(box for _, box in voc_objects(xml)), filled)
            name = image.relative_to(root).as_posix()
            tests.append(Sample(image, name, category, "test", ANOMALOUS, _defect(image), mask))
    if missing:
        raise missing_annotations(category, missing)
    yield from sorted(tests, key=lambda sample: sample.name)


def _places(root: Path) -> list[tuple[Path, Path]]:
    """The folders of images, each with that of its annotations."""
    for home in (root, root / "NEU-DET"):
        official = (home / OFFICIAL[0], home / OFFICIAL[1])
        copy = [(home / split / COPY[0], home / split / COPY[1]) for split in ("train", "validation")]
        for places in ([official], copy):
            if all(images.is_dir() for images, _ in places):
                for _, annotations in places:
                    if not annotations.is_dir():
                        raise DataError(
                            f"no folder {annotations} ({described(annotations.parent)}); unpack it there"
                        )
                return places
    raise CategoryMissing(
        f"no NEU-DET in {root} ({described(root)}); that folder should hold IMAGES and ANNOTATIONS, or train "
        "and validation with images and annotations each. NEU-CLS, which has no boxes, is another data set"
    )


def _defect(image: Path) -> str:
    defect = image.stem.rpartition("_")[0]
    if defect not in DEFECTS:
        hint = f"Names are <defect>_<number>, the defects {', '.join(DEFECTS)}."
        raise DataError(f"{image} has none of NEU-DET's names.{closest(defect, DEFECTS, hint)}")
    return defect

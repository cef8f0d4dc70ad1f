"""NEU-DET: images of 200x200 with VOC boxes, two of each of the six defects; none is normal."""

from pathlib import Path

from tests.datasets.trees import BOX, image

DEFECTS = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
ROWS, COLUMNS = BOX


def make(root: Path) -> None:
    for defect in DEFECTS:
        for number in (1, 2):
            image(root / "IMAGES" / f"{defect}_{number}.jpg", defect=True, size=(200, 200), mode="L")
            annotation(root / "ANNOTATIONS" / f"{defect}_{number}.xml", defect)


def make_copy(root: Path) -> None:
    """The Kaggle copy, with its two oddities: crazing_240 torn apart, and a file that a sync program left."""
    for split, number in (("train", 1), ("validation", 2)):
        for defect in DEFECTS:
            home = root / "NEU-DET" / split
            stem = f"{defect}_{number}"
            image(home / "images" / defect / f"{stem}.jpg", defect=True, size=(200, 200))
            annotation(home / "annotations" / f"{stem}.xml", defect)
    home = root / "NEU-DET"
    image(home / "train" / "images" / "crazing" / "crazing_240.jpg", defect=True, size=(200, 200))
    annotation(home / "validation" / "annotations" / "crazing_240.xml", "crazing")
    (home / "train" / "annotations" / ".crazing_21.xml.BXARk2LvYS").touch()


def annotation(path: Path, *names: str) -> None:
    """A VOC file whose boxes are `BOX`, counted from 1 with the last pixel inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    box = f"<xmin>{COLUMNS.start + 1}</xmin><ymin>{ROWS.start + 1}</ymin>"
    box += f"<xmax>{COLUMNS.stop}</xmax><ymax>{ROWS.stop}</ymax>"
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><bndbox>{box}</bndbox></object>"
        for name in names
    )
    head = f"<folder>cr</folder><filename>{path.stem}</filename>"  # some files lack the suffix here
    size = "<size><width>200</width><height>200</height><depth>1</depth></size>"
    path.write_text(f"<annotation>{head}{size}{objects}</annotation>\n")

"""Contact sheets: of a category a few normal images and a few of each defect, the mask's outline drawn."""

from __future__ import annotations

import posixpath
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import Mask, read_mask
from ad_bench.datasets.store import ahead, cores
from ad_bench.draws import shuffled
from ad_bench.errors import DataError
from ad_bench.heatmaps import outline
from ad_bench.samples import ANOMALOUS, NORMAL, Sample

WIDTH = 1280  # of the sheet, in pixels
AREA = 190 * 190  # of a cell, about, whatever its shape
NARROWEST, SHORTEST, TALLEST = 104, 40, 420  # a name needs room, a strip must be seen, a column not scrolled
PER_ROW = 6  # samples of each kind
MARGIN, GAP, CAPTION, HEADING = 24, 10, 16, 30
LINE = 2  # of the outline; it lies outside the mask, so that small defects stay visible

PAPER, BEHIND, FRAME = (255, 255, 255), (236, 237, 240), (205, 208, 214)
INK, FAINT = (28, 30, 36), (112, 116, 126)
OUTLINE, WRONG = (255, 32, 96), (190, 40, 40)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Picture:
    """One image, ready to be drawn in a cell."""

    name: str
    image: Image.Image | None  # None where it cannot be read
    mask: Mask | None = None  # at the image's size; None where there is none to draw
    wrong: str = ""  # why there is no image or no mask
    note: str = ""  # behind the name, never cut

    @property
    def aspect(self) -> float:
        """Width by height; 1 where there is no image."""
        return self.image.width / self.image.height if self.image else 1.0


def contact_sheet(title: str, listed: Sequence[Sample], seed: int = 0, per_row: int = PER_ROW) -> Image.Image:
    """RGB sheet of `per_row` samples of each kind; the seed draws which. Broken files are crossed boxes."""
    kinds = _kinds(listed, seed, per_row)
    shown = [sample for _, _, samples in kinds for sample in samples]
    pictures = iter(list(ahead(_read, shown, cores())))
    rows = [(kind, count, [next(pictures) for _ in samples]) for kind, count, samples in kinds]
    legend = (
        f"{len(listed):,} images; a few of each kind, seed {seed}; the line runs around the defect's mask"
    )
    return drawn_sheet(title, legend, rows, per_row)


def drawn_sheet(
    title: str, legend: str, rows: Sequence[tuple[str, int, Sequence[Picture]]], per_row: int = PER_ROW
) -> Image.Image:
    """RGB sheet of rows: a heading, how many images it stands for, and those to draw, all in cells alike."""
    shapes = [p.aspect for _, _, row in rows for p in row if p.image]
    cell, columns = _cell(median(shapes) if shapes else 1.0, per_row)
    height = MARGIN + HEADING + CAPTION
    for _, _, row in rows:
        height += HEADING + -(-len(row) // columns) * (cell[1] + CAPTION + GAP)
    width = max(MARGIN * 2 + columns * (cell[0] + GAP) - GAP, 420)
    sheet = Image.new("RGB", (width, height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 6), _fitting(title, width - 2 * MARGIN, _font(20)), INK, _font(20))
    draw.text((MARGIN, MARGIN + 20), _fitting(legend, width - 2 * MARGIN, _font(12)), FAINT, _font(12))
    top = MARGIN + HEADING + CAPTION
    for kind, count, row in rows:
        draw.text((MARGIN, top + 8), kind, INK, _font(15))
        after = MARGIN + draw.textlength(kind, _font(15)) + 8
        draw.text((after, top + 11), f"{count:,} image{'s' * (count != 1)}", FAINT, _font(12))
        top += HEADING
        names = _short_names([picture.name for picture in row])
        for index, (picture, name) in enumerate(zip(row, names, strict=True)):
            if index and index % columns == 0:
                top += cell[1] + CAPTION + GAP
            left = MARGIN + index % columns * (cell[0] + GAP)
            sheet.paste(_drawn(picture, cell), (left, top))
            text = _fitting(name, cell[0] - draw.textlength(picture.note, _font(11)), _font(11))
            draw.text((left, top + cell[1] + 2), text + picture.note, FAINT, _font(11))
        top += cell[1] + CAPTION + GAP
    return sheet


def _kinds(listed: Sequence[Sample], seed: int, per_row: int) -> list[tuple[str, int, list[Sample]]]:
    """Heading, number of images and those shown: normal ones by split, then each kind of defect."""
    groups: defaultdict[tuple[int, int, str], list[Sample]] = defaultdict(list)
    for sample in listed:
        if sample.label == NORMAL:
            groups[0, SPLITS.index(sample.split), f"{sample.defect}, {sample.split}"].append(sample)
        else:
            groups[1, 0, sample.defect].append(sample)
    found = []
    for (_, _, kind), samples in sorted(groups.items()):
        by_name = {sample.name: sample for sample in samples}
        drawn = shuffled(by_name, seed, "sheet")[:per_row]
        found.append((kind, len(samples), [by_name[name] for name in sorted(drawn)]))
    return found


def _read(sample: Sample) -> Picture:
    try:
        pixels = decode(sample.image)
    except DataError as error:
        return Picture(sample.name, None, wrong=str(error))
    image = Image.fromarray(pixels)
    if sample.mask is None:
        return Picture(sample.name, image, note=" (no mask)" if sample.label == ANOMALOUS else "")
    try:
        mask = read_mask(sample.mask, pixels.shape[:2], sample.name)
    except DataError as error:
        return Picture(sample.name, image, wrong=str(error))
    empty = sample.label == ANOMALOUS and not mask.any()
    return Picture(sample.name, image, mask, note=" (empty mask)" if empty else "")


def _cell(aspect: float, per_row: int) -> tuple[tuple[int, int], int]:
    """Width and height of a cell that suits images of this aspect, and how many stand side by side."""
    room = WIDTH - 2 * MARGIN
    widest = max((2 * AREA * aspect) ** 0.5, NARROWEST)
    for columns in (n for n in range(per_row, 0, -1) if per_row % n == 0):
        width = min((room + GAP) / columns - GAP, room if columns == 1 else widest)
        height = min(max(width / aspect, SHORTEST), TALLEST)
        if width * height >= AREA / 2 and width / aspect >= SHORTEST:
            break
    return (round(width), round(height)), columns


def _drawn(picture: Picture, cell: tuple[int, int]) -> Image.Image:
    """The sample in the middle of its cell, as large as fits."""
    canvas = Image.new("RGB", cell, BEHIND)
    if picture.image is not None:
        scale = min(cell[0] / picture.image.width, cell[1] / picture.image.height)
        size = (max(round(picture.image.width * scale), 1), max(round(picture.image.height * scale), 1))
        small = picture.image.resize(
            size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        )
        corner = ((cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2)
        canvas.paste(small, corner)
        frame = (*corner, corner[0] + size[0] - 1, corner[1] + size[1] - 1)
        ImageDraw.Draw(canvas).rectangle(frame, outline=FRAME)  # a white image ends somewhere too
        if picture.mask is not None and picture.mask.any():
            canvas.paste(OUTLINE, (0, 0), _outline(picture.mask, size, corner, cell))
    if picture.wrong:
        _cross_out(canvas, picture.wrong)
    return canvas


def _outline(
    mask: Mask, size: tuple[int, int], corner: tuple[int, int], cell: tuple[int, int]
) -> Image.Image:
    """White on the line around the mask; a defect smaller than a pixel of the sheet is still surrounded."""
    grey = Image.fromarray(mask.astype(np.float32))
    small = grey.resize(size, Image.Resampling.BOX if size[0] < mask.shape[1] else Image.Resampling.NEAREST)
    inside = np.zeros(cell[::-1], dtype=bool)
    inside[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = np.asarray(small) > 0
    return Image.fromarray(outline(inside, LINE).astype(np.uint8) * np.uint8(255))


def _cross_out(canvas: Image.Image, reason: str) -> None:
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    draw.rectangle((0, 0, width - 1, height - 1), outline=WRONG, width=2)
    draw.line((0, 0, width, height), WRONG, 1)
    draw.line((0, height, width, 0), WRONG, 1)
    font = _font(11)
    lines = textwrap.wrap(reason, max(int(width / 6.2), 8))[: max((height - 8) // 13, 1)]
    box = (4, (height - 13 * len(lines)) // 2 - 2, width - 5, (height + 13 * len(lines)) // 2 + 2)
    draw.rectangle(box, fill=PAPER)
    for number, line in enumerate(lines):
        draw.text((7, box[1] + 2 + 13 * number), _fitting(line, width - 12, font), WRONG, font)


def _short_names(names: Sequence[str]) -> list[str]:
    """The names without the folders that all of them share."""
    shared = posixpath.commonpath([posixpath.dirname(name) for name in names])
    return [name[len(shared) :].lstrip("/") for name in names]


def _fitting(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, or its end behind dots where it is too long: file names differ at their end."""
    cut = text
    while font.getlength(cut) > width and len(cut) > 2:
        cut = "…" + cut[2:]
    return cut


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

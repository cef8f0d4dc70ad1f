"""The embedded data set: two textures and two objects with five kinds of defects, made on first use.

Every file is the same, byte for byte, on every machine and with every numpy: random numbers come from a
counter and a hash written here, arithmetic is elementwise IEEE (+ - * / sqrt floor), and the PNG files hold
stored blocks, which no version of zlib changes. `DIGEST` is the hash of the whole set; `prepare` checks it.

A defect is what sets one image apart from the same image without it (`draw` gives both): light, place, noise
and the texture's own irregularities differ between images by more than most defects change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ad_bench.datasets import mvtec
from ad_bench.errors import AdbenchError, CategoryMissing, DataError, closest
from ad_bench.samples import Sample

Field = NDArray[np.float64]  # (H, W), or (3, H, W) for colours
Colour = tuple[float, float, float]  # red, green, blue; 1 is white

VERSION = 1
DIGEST = "bd877b6cdae4b1d96f891115c20bf4eec350bec060b56cebae15e6e37b85cbb9"
SIZE = 160
TEXTURES = ("weave", "mosaic")
CATEGORIES = (*TEXTURES, "gear", "chip")
DEFECTS = ("scratch", "stain", "missing", "disorder", "warp")
TRAIN, TEST_NORMAL, TEST_PER_DEFECT = 40, 20, 6

MARKER = "MADE_BY_ADBENCH.txt"
VISIBLE = 8  # grey levels (of 255) by which a defect must change a pixel to count


# ---------------------------------------------------------------- the folder


def samples(root: Path, category: str) -> Iterator[Sample]:
    """The samples of one category, in name order. Raises CategoryMissing where they have not been made."""
    root = Path(root)
    if category not in CATEGORIES:
        hint = f"It has {', '.join(CATEGORIES)}."
        raise CategoryMissing(f"synthetic has no category '{category}'.{closest(category, CATEGORIES, hint)}")
    if not (root / category).is_dir():
        raise CategoryMissing(
            f"no '{category}' at {root}: `adbench data prepare dataset=synthetic` makes the whole set, and "
            "so does the first run on it"
        )
    yield from mvtec.samples(root, category)


def prepare(root: Path) -> None:
    """Make the whole set at `root` unless it is there, whole and unaltered (32 MB, some seconds).

    It is written beside `root` and renamed, so `root` is never half a set, and several processes may prepare
    at once. A damaged set is made anew; a folder that adbench has not made is refused with DataError.
    """
    root = Path(root)
    if _is_whole(root):
        return
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file where the synthetic data set needs a folder: move the file away")
    if root.is_dir() and any(root.iterdir()) and not (root / MARKER).is_file():
        raise DataError(
            f"{root} holds files that adbench has not made, so the synthetic data set is not written over "
            "them: empty the folder, or choose another with dataset.root=FOLDER"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    for left in root.parent.glob(f".{root.name}-*"):  # of processes that were killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
    made = root.with_name(f".{root.name}-making-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _write_set(made)
        if (found := folder_digest(made)) != DIGEST:
            raise AdbenchError(
                f"the synthetic data set came out with digest {found}, not {DIGEST}: the generator was "
                "changed without a new VERSION and DIGEST, or this machine computes differently. Scores on "
                "it could be compared with no others; please report it with the output of `adbench doctor`"
            )
        _put_in_place(made, root)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put_in_place(made: Path, root: Path) -> None:
    """Rename `made` to `root`, whatever other processes do there meanwhile; what is damaged goes."""
    aside = made.with_name(made.name.replace("-making-", "-damaged-"))
    for _ in range(9):
        try:
            made.rename(root)
            return
        except OSError:
            if _is_whole(root):  # another process was faster
                return
            # Moved away at once: a reader never sees a set that mixes old and new files.
            with contextlib.suppress(FileNotFoundError):
                root.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    made.rename(root)


def folder_digest(root: Path) -> str:
    """SHA-256 over the relative paths and the bytes of all files under `root`, in name order."""
    digest = hashlib.sha256()
    for name, path in sorted((p.relative_to(root).as_posix(), p) for p in root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _is_whole(root: Path) -> bool:
    try:
        return (root / MARKER).is_file() and folder_digest(root) == DIGEST
    except FileNotFoundError:  # another process is replacing it
        return False


def _write_set(root: Path) -> None:
    for category in CATEGORIES:
        for split, defect, count in (("train", "good", TRAIN), ("test", "good", TEST_NORMAL)):
            for index in range(count):
                picture = draw(category, split, defect, index)
                _write_png(root / category / split / defect / f"{index:03d}.png", picture.image)
        for defect in DEFECTS:
            for index in range(TEST_PER_DEFECT):
                picture = draw(category, "test", defect, index)
                _write_png(root / category / "test" / defect / f"{index:03d}.png", picture.image)
                truth = root / category / "ground_truth" / defect / f"{index:03d}_mask.png"
                _write_png(truth, picture.mask.astype(np.uint8) * np.uint8(255))
    about = f"adbench's synthetic data set, version {VERSION}: generated, Apache-2.0. Safe to delete.\n"
    (root / MARKER).write_bytes(about.encode())


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W) grey or (H, W, 3) RGB without compression: the same bytes with any version of zlib."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    data = rows.tobytes()
    blocks = [data[i : i + 0xFFFF] for i in range(0, len(data), 0xFFFF)]
    stream = b"\x78\x01" + b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", stream + struct.pack(">I", zlib.adler32(data))), (b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )


# ------------------------------------------- numbers that are the same everywhere


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a hash of 64-bit integers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Draws:
    """A stream of random numbers of its own for each key."""

    def __init__(self, *key: int) -> None:
        self.state = np.zeros(1, np.uint64)
        for part in key:
            self.state = _mix(self.state + np.array([part + 1], np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        self.used = 0

    def raw(self, count: int) -> NDArray[np.uint64]:
        """`count` 64-bit integers."""
        index = np.arange(self.used + 1, self.used + count + 1, dtype=np.uint64)
        self.used += count
        return _mix(self.state + index * np.uint64(0x9E3779B97F4A7C15))

    def uniforms(self, count: int) -> Field:
        """`count` numbers in [0, 1)."""
        return (self.raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def integer(self, count: int) -> int:
        """One of 0 ... count - 1."""
        return int(self.uniform(0, count))

    def sign(self) -> int:
        """-1 or 1."""
        return 2 * self.integer(2) - 1

    def grain(self, *shape: int) -> Field:
        """Noise of mean 0 and deviation 1, nearly normal: each value is a sum of four 16-bit numbers."""
        raw = self.raw(int(np.prod(shape)))
        total = sum((raw >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(4))
        return (np.asarray(total).astype(np.float64) - 131070.0).reshape(shape) / 37837.0


def _sine(turns: Field) -> Field:
    """sin(2 pi turns) within 0.0011, from a parabola: libm's own differs from machine to machine."""
    t = 2.0 * (turns - np.floor(turns)) - 1.0
    p = 4.0 * t * (1.0 - np.abs(t))
    return -(0.225 * (p * np.abs(p) - p) + p)


def _direction(turns: float) -> tuple[float, float]:
    """(cos, sin) of an angle, of length 1."""
    c, s = _sine(np.array([turns + 0.25, turns]))
    length = np.sqrt(c * c + s * s)
    return float(c / length), float(s / length)


def _smooth(t: Field) -> Field:
    t = np.minimum(np.maximum(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


def _clouds(draws: Draws, x: Field, y: Field, cell: float) -> Field:
    """Smooth noise in [-1, 1] whose bumps are about `cell` pixels wide, for x and y from 0 to SIZE."""
    n = int(SIZE / cell) + 2
    grid = 2.0 * draws.uniforms(n * n).reshape(n, n) - 1.0
    u, v = np.clip(x / cell, 0, n - 1.001), np.clip(y / cell, 0, n - 1.001)
    i, j = np.floor(v).astype(np.intp), np.floor(u).astype(np.intp)
    a, b = _smooth(v - i), _smooth(u - j)
    top = grid[i, j] * (1.0 - b) + grid[i, j + 1] * b
    bottom = grid[i + 1, j] * (1.0 - b) + grid[i + 1, j + 1] * b
    return top * (1.0 - a) + bottom * a


def _cover(distance: Field) -> Field:
    """1 inside a shape, 0 outside, a ramp of 1.5 pixels between; `distance` is signed, negative inside."""
    return _smooth(0.5 - distance / 1.5)


def _paint(picture: Field, colour: Colour, cover: Field, shade: Field | float = 1.0) -> Field:
    """`picture` (3, H, W) with `colour` times `shade` laid over where `cover` is 1."""
    return picture * (1.0 - cover) + np.array(colour).reshape(3, 1, 1) * shade * cover


# ------------------------------------------------------------------ pictures


class Picture(NamedTuple):
    """One image, the same image without its defect, and where they differ."""

    image: NDArray[np.uint8]  # (H, W, 3)
    clean: NDArray[np.uint8]  # (H, W, 3); equals image outside mask
    mask: NDArray[np.bool_]  # (H, W)


class View(NamedTuple):
    """How the category lies in the image: image = centre + scale * rotation(own coordinates)."""

    cx: float
    cy: float
    cos: float
    sin: float
    scale: float

    def own(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Own coordinates of image positions."""
        dx, dy = (x - self.cx) / self.scale, (y - self.cy) / self.scale
        return self.cos * dx + self.sin * dy, self.cos * dy - self.sin * dx

    def image(self, u: float, v: float) -> tuple[float, float]:
        """Image position of own coordinates."""
        return (
            self.cx + self.scale * (self.cos * u - self.sin * v),
            self.cy + self.scale * (self.sin * u + self.cos * v),
        )


class Fault(NamedTuple):
    """A defect: its kind, where its middle lies in the image, and its own random numbers."""

    kind: str
    x: float
    y: float
    key: tuple[int, ...]


class Canvas(NamedTuple):
    """What a category draws on: where each pixel looks, for its shapes and for its surface."""

    u: Field  # own coordinates of shapes
    v: Field
    surface_u: Field  # own coordinates of the surface's texture
    surface_v: Field
    missing: Draws | None  # random numbers of the part to leave out, where one is
    site: tuple[float, float]  # own coordinates of the middle of the defect
    draws: Draws  # what differs from image to image


def draw(category: str, split: str, defect: str, index: int) -> Picture:
    """One image of the set, with and without its defect, made in memory."""
    kind = 0 if defect == "good" else 1 + DEFECTS.index(defect)
    key = (VERSION, CATEGORIES.index(category), ("train", "test").index(split), kind, index)
    view = _view(category, Draws(*key, 0))
    fault = None
    if defect != "good":
        where = Draws(*key, 1)
        fault = Fault(defect, *view.image(*_site(category, defect, where, view)), (*key, 2))
    clean = _develop(_scene(category, view, None, key), key)
    if fault is None:
        return Picture(clean, clean, np.zeros((SIZE, SIZE), np.bool_))
    changed = _develop(_scene(category, view, fault, key), key)
    difference = np.abs(changed.astype(np.int16) - clean.astype(np.int16)).max(axis=2)
    mask = _solid(difference >= VISIBLE)
    image = np.where(mask[:, :, None], changed, clean)  # what nobody could see is not there at all
    return Picture(image, clean, mask)


def _view(category: str, draws: Draws) -> View:
    if category in TEXTURES:
        cos, sin = _direction(draws.uniform(-0.015, 0.015))
        return View(draws.uniform(60, 100), draws.uniform(60, 100), cos, sin, draws.uniform(0.96, 1.04))
    turn = draws.uniform(0, 1) if category == "gear" else draws.uniform(-0.02, 0.02)
    middle = SIZE / 2
    return View(
        middle + draws.uniform(-6, 6),
        middle + draws.uniform(-6, 6),
        *_direction(turn),
        draws.uniform(0.96, 1.04),
    )


def _site(category: str, defect: str, draws: Draws, view: View) -> tuple[float, float]:
    """Own coordinates of the middle of a defect: anywhere on a texture, on the part of an object."""
    if category in TEXTURES:
        return _at(view, draws.uniform(32, 128), draws.uniform(32, 128))
    if category == "gear":
        cos, sin = _direction(draws.uniform(0, 1))
        radius = 57.0 if defect == "warp" else draws.uniform(30, 40)
        return radius * cos, radius * sin
    if defect == "warp":  # on the row of pins
        return draws.uniform(-30, 30), 38.0 * draws.sign()
    return draws.uniform(-26, 26), draws.uniform(-16, 16)


def _scene(category: str, view: View, fault: Fault | None, key: tuple[int, ...]) -> Field:
    """Colours (3, H, W) under even light, without noise."""
    x, y = _positions()
    shapes = surface = (x, y)
    missing, site = None, (0.0, 0.0)
    if fault is not None:
        draws = Draws(*fault.key)
        site = _at(view, fault.x, fault.y)
        if fault.kind == "warp":
            shapes = surface = _warped(draws, fault, x, y)
        elif fault.kind == "disorder":
            surface = _disordered(draws, fault, x, y)
            shapes = surface if category in TEXTURES else shapes
        elif fault.kind == "missing":
            missing = draws
    canvas = Canvas(*view.own(*shapes), *view.own(*surface), missing, site, Draws(*key, 3))
    picture = RENDER[category](canvas)
    if fault is not None and fault.kind == "scratch":
        return _scratched(Draws(*fault.key), fault, x, y, picture)
    if fault is not None and fault.kind == "stain":
        return _stained(Draws(*fault.key), fault, x, y, picture)
    return picture


def _positions() -> tuple[Field, Field]:
    """x and y of the middle of every pixel, each (H, W)."""
    y, x = (axis.astype(np.float64) + 0.5 for axis in np.mgrid[:SIZE, :SIZE])
    return x, y


def _at(view: View, x: float, y: float) -> tuple[float, float]:
    u, v = view.own(np.array([x]), np.array([y]))
    return float(u[0]), float(v[0])


def _develop(picture: Field, key: tuple[int, ...]) -> NDArray[np.uint8]:
    """Light, colour cast and noise of one exposure: (3, H, W) colours to (H, W, 3) bytes."""
    draws = Draws(*key, 4)
    x, y = _positions()
    half = SIZE / 2
    slope_x, slope_y = draws.uniform(-0.12, 0.12), draws.uniform(-0.12, 0.12)
    light = 1.0 + slope_x * (x - half) / half + slope_y * (y - half) / half
    light = draws.uniform(0.9, 1.1) * light * (1.0 + 0.05 * _clouds(draws, x, y, 64))
    cast = np.array([draws.uniform(0.97, 1.03) for _ in range(3)]).reshape(3, 1, 1)
    common, coloured = draws.uniform(0.008, 0.02), draws.uniform(0.004, 0.008)
    noise = common * draws.grain(1, SIZE, SIZE) + coloured * draws.grain(3, SIZE, SIZE)
    levels = np.floor(255.0 * (picture * light * cast + noise) + 0.5)
    return np.minimum(np.maximum(levels, 0.0), 255.0).astype(np.uint8).transpose(1, 2, 0).copy()


def _solid(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`changed` without lone pixels and with small holes closed, as a person would outline it."""
    neighbours = _count(changed, 1)
    kept = changed & (neighbours >= 3)
    grown = _count(kept, 2) > 0
    return ~(_count(~grown, 2) > 0) | kept


def _count(flags: NDArray[np.bool_], reach: int) -> NDArray[np.int64]:
    """How many of the (2 reach + 1) squared pixels around each pixel are set; outside counts as not set."""
    side = 2 * reach + 1
    padded = np.pad(flags.astype(np.int64), ((reach + 1, reach), (reach + 1, reach)))
    total = padded.cumsum(axis=0).cumsum(axis=1)
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


# ------------------------------------------------------------------- defects


def _scratched(draws: Draws, fault: Fault, x: Field, y: Field, picture: Field) -> Field:
    """A thin bent line, lighter or darker than what it crosses."""
    cos, sin = _direction(draws.uniform(0, 1))
    along, across = cos * (x - fault.x) + sin * (y - fault.y), cos * (y - fault.y) - sin * (x - fault.x)
    half = draws.uniform(16, 26)
    bend = draws.uniform(-5, 5)
    line = across - bend * (along / half) * (along / half) + 1.5 * _sine(along / draws.uniform(14, 22))
    width = draws.uniform(1.4, 2.0)
    inside = _cover(np.abs(line) - width) * _cover(np.abs(along) - half)
    return picture + draws.sign() * draws.uniform(0.2, 0.26) * inside


def _blob(draws: Draws, fault: Fault, x: Field, y: Field, low: float, high: float) -> Field:
    """Signed distance (about, pixels) to an irregular oval around the fault."""
    cos, sin = _direction(draws.uniform(0, 1))
    a, b = draws.uniform(low, high), draws.uniform(low, high)
    u, v = cos * (x - fault.x) + sin * (y - fault.y), cos * (y - fault.y) - sin * (x - fault.x)
    radius = np.sqrt(u * u / (a * a) + v * v / (b * b)) + 0.18 * _clouds(draws, x, y, 9)
    return (radius - 1.0) * np.sqrt(np.array(a * b))


def _stained(draws: Draws, fault: Fault, x: Field, y: Field, picture: Field) -> Field:
    """A film that tints and flattens what lies below it, with a slightly darker rim."""
    distance = _blob(draws, fault, x, y, 9, 15)
    cover = _cover(distance / 2.0)
    rim = _cover(np.abs(distance + 1.5) - 1.5)
    tint = np.array([draws.uniform(-0.05, 0.05) for _ in range(3)]).reshape(3, 1, 1)
    flat = draws.uniform(0.5, 0.7)
    stained = picture * (1.0 - flat) + 0.42 * flat + tint
    return picture * (1.0 - cover) + stained * cover - 0.1 * rim


def _disordered(draws: Draws, fault: Fault, x: Field, y: Field) -> tuple[Field, Field]:
    """Coordinates turned and scaled inside an oval: the surface runs another way there."""
    cover = _cover(_blob(draws, fault, x, y, 12, 19))
    cos, sin = _direction(draws.sign() * draws.uniform(0.09, 0.16))
    scale = draws.uniform(1.25, 1.6) if draws.integer(2) else draws.uniform(0.62, 0.8)
    dx, dy = x - fault.x, y - fault.y
    tx, ty = fault.x + scale * (cos * dx - sin * dy), fault.y + scale * (sin * dx + cos * dy)
    inside = cover > 0.5
    return np.where(inside, tx, x), np.where(inside, ty, y)


def _warped(draws: Draws, fault: Fault, x: Field, y: Field) -> tuple[Field, Field]:
    """Coordinates twisted and pushed around a point: nothing is added or lost, only bent."""
    reach = draws.uniform(15, 21)
    dx, dy = x - fault.x, y - fault.y
    near = _smooth(1.0 - np.sqrt(dx * dx + dy * dy) / reach)
    angle = draws.sign() * draws.uniform(0.16, 0.24) * near
    cos, sin = _sine(angle + 0.25), _sine(angle)
    a, b = _direction(draws.uniform(0, 1))
    push = draws.uniform(2, 4) * near
    return fault.x + cos * dx - sin * dy + a * push, fault.y + sin * dx + cos * dy + b * push


# ---------------------------------------------------------------- categories


def _weave(c: Canvas) -> Field:
    """Twill: threads of two colours, each over two and under two; `missing` is a pulled thread."""
    pitch = 13.0
    wobble = c.draws.uniform(0, 100)
    u = (c.u + 0.8 * _sine(c.v / 71.0 + wobble)) / pitch + c.draws.uniform(0, 8)
    v = (c.v + 0.8 * _sine(c.u / 83.0 - wobble)) / pitch + c.draws.uniform(0, 8)
    column, row = np.floor(u), np.floor(v)
    fu, fv = u - column - 0.5, v - row - 0.5
    step = column - row
    over = np.where(step - 4.0 * np.floor(step / 4.0) < 2.0, 1.0, 0.0)
    # Own differences from thread to thread, as in real yarn.
    shade_u = 1.0 + 0.03 * _hash_unit(column, np.zeros_like(column), c.draws.integer(1 << 30))
    shade_v = 1.0 + 0.03 * _hash_unit(np.zeros_like(row), row, c.draws.integer(1 << 30))
    fibre = 0.05 * _sine(3.0 * fu + 2.0 * v) + 0.05 * _sine(3.0 * fv + 2.0 * u)
    warp_shade = (1.0 - 2.2 * fu * fu) * (1.0 - 0.6 * fv * fv) * shade_u + fibre
    weft_shade = (1.0 - 2.2 * fv * fv) * (1.0 - 0.6 * fu * fu) * shade_v + fibre
    if c.missing is not None:
        half = c.missing.uniform(18, 28)
        gone = (column == column[_nearest(c)]) & (np.abs(c.v - c.site[1]) < half)
        warp_shade = np.where(gone, 0.36 + 0.1 * weft_shade, warp_shade)  # the ground shows
    weft = _paint(np.zeros((3, SIZE, SIZE)), (0.36, 0.42, 0.52), np.ones_like(over), weft_shade)
    return _paint(weft, (0.55, 0.47, 0.36), over, warp_shade)


def _nearest(c: Canvas) -> tuple[np.intp, ...]:
    """Index of the pixel at the middle of the defect."""
    du, dv = c.u - c.site[0], c.v - c.site[1]
    return np.unravel_index(int((du * du + dv * dv).argmin()), du.shape)


def _hash_unit(i: Field, j: Field, salt: int) -> Field:
    """A number in [-1, 1) for each pair of whole numbers."""
    a = _mix(i.astype(np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt))
    b = _mix(a + j.astype(np.int64).astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
    return (b >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def _mosaic(c: Canvas) -> Field:
    """Six-sided tiles of three colours in light mortar, none quite alike; `missing` is a lost tile."""
    cell = 14.0
    salt = c.draws.integer(1 << 30)
    u, v = c.u / cell, c.v / cell
    i0, j0 = np.floor(u), np.floor(v)
    best = np.full_like(u, 9.0)
    second = np.full_like(u, 9.0)
    tile_i, tile_j = np.zeros_like(u), np.zeros_like(u)
    for di in (-2.0, -1.0, 0.0, 1.0):
        for dj in (-1.0, 0.0, 1.0):
            i, j = i0 + di, j0 + dj
            shift = 0.5 * (j - 2.0 * np.floor(j / 2.0))  # every other row stands between its neighbours
            du = i + 0.5 + shift + 0.12 * _hash_unit(i, j, salt) - u
            dv = j + 0.5 + 0.12 * _hash_unit(i, j, salt + 1) - v
            d = np.sqrt(du * du + dv * dv)
            closer = d < best
            second = np.where(closer, best, np.minimum(second, d))
            tile_i, tile_j = np.where(closer, i, tile_i), np.where(closer, j, tile_j)
            best = np.where(closer, d, best)
    tile = _cover((0.14 - (second - best)) * cell * 0.6)
    if c.missing is not None:
        at = _nearest(c)
        tile = np.where((tile_i == tile_i[at]) & (tile_j == tile_j[at]), 0.0, tile)
    kind = _hash_unit(tile_i, tile_j, salt + 2)
    shade = 1.0 + 0.05 * _hash_unit(tile_i, tile_j, salt + 3) - 0.35 * best * best
    colours = (0.46, 0.38, 0.34), (0.40, 0.41, 0.40), (0.44, 0.42, 0.36)
    picture = np.zeros((3, SIZE, SIZE))
    picture = _paint(picture, (0.58, 0.56, 0.53), np.ones_like(u))
    for colour, low in zip(colours, (-1.0, -1.0 / 3.0, 1.0 / 3.0), strict=True):
        chosen = np.where((kind >= low) & (kind < low + 0.67), tile, 0.0)
        picture = _paint(picture, colour, chosen, shade)
    return picture


def _gear(c: Canvas) -> Field:
    """A turned steel disc with 14 teeth, 6 holes and a bore; `missing` is a tooth or a hole."""
    u, v = c.u, c.v
    radius = np.sqrt(u * u + v * v)
    lost_tooth = lost_hole = -1
    if c.missing is not None:
        if c.missing.integer(2):
            lost_tooth = c.missing.integer(14)
        else:
            lost_hole = c.missing.integer(6)
    body = radius - 54.0
    for k in range(14):
        if k != lost_tooth:
            cos, sin = _direction(k / 14.0)
            along, across = cos * u + sin * v, cos * v - sin * u
            tooth = np.maximum(np.abs(along - 55.0) - 8.0, np.abs(across) - 6.5 + 0.18 * (along - 55.0))
            body = np.minimum(body, tooth)
    body = np.maximum(body, 15.0 - radius)
    for k in range(6):
        if k != lost_hole:
            cos, sin = _direction(k / 6.0)
            du, dv = u - 35.0 * cos, v - 35.0 * sin
            body = np.maximum(body, 7.0 - np.sqrt(du * du + dv * dv))
    surface = np.sqrt(c.surface_u * c.surface_u + c.surface_v * c.surface_v)
    lines = _sine(surface / 4.5 + c.draws.uniform(0, 1))
    bevel = _smooth(1.0 + body / 4.0)
    metal = 0.52 + 0.06 * lines - 0.13 * bevel
    ring = _cover(np.abs(radius - 24.0) - 1.2)
    belt = 0.16 + 0.02 * _sine((u + v) / 9.0) * _sine((u - v) / 9.0)
    picture = _paint(np.zeros((3, SIZE, SIZE)), (1.0, 1.0, 1.05), np.ones_like(u), belt)
    return _paint(picture, (0.98, 1.0, 1.04), _cover(body), metal - 0.12 * ring)


def _chip(c: Canvas) -> Field:
    """A black package with 16 pins on a board with tracks; `missing` is a pin."""
    u, v = c.u, c.v
    lost = (c.missing.integer(8), c.missing.sign()) if c.missing is not None else (-1, 0)
    picture = _paint(np.zeros((3, SIZE, SIZE)), (0.45, 1.0, 0.62), np.ones_like(u), 0.3)
    track = u / 9.5 - np.floor(u / 9.5) - 0.5
    tracks = _cover((np.abs(track) - 0.2) * 9.5)
    picture = _paint(picture, (0.50, 1.0, 0.62), tracks * _cover(44.0 - np.abs(v)), 0.42)
    for k in range(8):
        for side in (-1, 1):
            if (k, side) != lost:
                pin = np.maximum(np.abs(u - 9.5 * (k - 3.5)) - 2.6, np.abs(side * v - 36.0) - 10.0)
                foot = _smooth((side * v - 36.0) / 10.0)
                picture = _paint(picture, (0.70, 0.70, 0.66), _cover(pin), 0.85 + 0.25 * foot)
    package = np.maximum(np.abs(u) - 42.0, np.abs(v) - 29.0)
    weave = _sine((c.surface_u + 0.5 * c.surface_v) / 5.0) * 0.045
    top = 0.21 + weave - 0.05 * _smooth(1.0 + package / 3.0)
    picture = _paint(picture, (1.0, 1.0, 1.04), _cover(package), top)
    dot = np.sqrt((u + 34.0) * (u + 34.0) + (v - 20.0) * (v - 20.0)) - 3.5
    picture = _paint(picture, (0.5, 0.5, 0.5), _cover(dot))
    for k, length in enumerate((22.0, 15.0)):
        bar = np.maximum(np.abs(u - 2.0) - length, np.abs(v + 4.0 - 10.0 * k) - 1.6)
        picture = _paint(picture, (0.55, 0.55, 0.52), _cover(bar))
    return picture


RENDER: dict[str, Callable[[Canvas], Field]] = {
    "weave": _weave,
    "mosaic": _mosaic,
    "gear": _gear,
    "chip": _chip,
}

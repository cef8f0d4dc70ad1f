"""Every kind of image file a user may have, and every kind of broken one."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import DataError
from ad_bench.samples import MaskFiles

ORIENTATION = 0x0112  # the EXIF tag


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 6, 3), dtype=np.uint8)


@pytest.fixture
def grey(colours) -> np.ndarray:
    return colours[..., 0]


def saved(folder: Path, pixels: np.ndarray | Image.Image, name: str = "image.png", **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(folder / name, **options)
    return folder / name


def repeated(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def test_rgb(tmp_path, colours):
    pixels = decode(saved(tmp_path, colours))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, colours)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_greyscale(tmp_path, grey):
    assert np.array_equal(decode(saved(tmp_path, grey)), repeated(grey))


def test_black_and_white(tmp_path, grey):
    path = saved(tmp_path, Image.fromarray(grey > 127))
    assert Image.open(path).mode == "1"
    assert np.array_equal(decode(path), repeated(np.where(grey > 127, 255, 0)))


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_alpha_is_dropped(tmp_path, colours, grey, alpha):
    below = np.full((9, 6, 1), alpha, np.uint8)
    assert np.array_equal(decode(saved(tmp_path, np.concatenate([colours, below], axis=2))), colours)
    path = saved(tmp_path, Image.fromarray(np.concatenate([grey[..., None], below], axis=2), mode=None))
    assert Image.open(path).mode == "LA"
    assert np.array_equal(decode(path), repeated(grey))


def test_palette_with_and_without_transparency(tmp_path, colours):
    palette = Image.fromarray(colours).quantize(54)  # as many colours as pixels: nothing is lost
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(saved(tmp_path, palette)), colours)
        assert np.array_equal(decode(saved(tmp_path, palette, transparency=3)), colours)
        assert np.array_equal(decode(saved(tmp_path, palette, transparency=bytes(range(54)))), colours)


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bit_greyscale_keeps_its_high_byte(tmp_path, name):
    values = np.array([[0, 255, 256, 4095], [32768, 65279, 65280, 65535]], np.uint16)
    path = saved(tmp_path, values, name)
    assert decode(path)[..., 0].tolist() == [[0, 0, 1, 15], [128, 254, 255, 255]]
    assert np.array_equal(decode(path), repeated(decode(path)[..., 0]))


def test_16_bit_does_not_depend_on_the_other_pixels(tmp_path):
    dark = saved(tmp_path, np.array([[0, 1000]], np.uint16), "dark.png")
    bright = saved(tmp_path, np.array([[65535, 1000]], np.uint16), "bright.png")
    assert np.array_equal(decode(dark)[0, 1], decode(bright)[0, 1])


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    values = np.array([[[0x1234, 0xABFF, 0x00FF]]], ">u2")
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + values.tobytes())), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "deep.png").write_bytes(data)
    assert decode(tmp_path / "deep.png").tolist() == [[[0x12, 0xAB, 0x00]]]


def test_32_bit_integers_within_16_bit_pass_and_others_are_refused(tmp_path):
    path = saved(tmp_path, np.array([[256, 65535]], np.int32), "a.tif")
    assert decode(path)[0, :, 0].tolist() == [1, 255]
    for values in ([[0, 65536]], [[-1, 5]]):
        with pytest.raises(DataError, match="32-bit values from"):
            decode(saved(tmp_path, np.array(values, np.int32), "b.tif"))


def test_floating_point_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"image.tif holds floating-point"):
        decode(saved(tmp_path, np.zeros((3, 3), np.float32), "image.tif"))


def test_cmyk_jpeg(tmp_path):
    blue = Image.new("RGB", (16, 16), (20, 60, 200))
    path = saved(tmp_path, blue.convert("CMYK"), "image.jpg", quality=95)
    assert Image.open(path).mode == "CMYK"
    assert b"Adobe" in path.read_bytes()  # the marker under which the inks are stored inverted
    assert np.abs(decode(path).astype(int) - (20, 60, 200)).max() <= 4


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif"])
def test_exif_orientation_is_applied(tmp_path, name):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored turned left: shown a quarter to the right
    path = saved(tmp_path, pixels, name, exif=exif)
    shown = decode(path)
    assert shown.shape == (16, 8, 3)
    assert (shown[:7] > 200).all()  # what was left is on top
    assert (shown[9:] < 50).all()


def test_several_frames_give_the_first(tmp_path, colours):
    frames = [Image.fromarray(colours), Image.fromarray(255 - colours)]
    path = saved(tmp_path, frames[0], "image.tif", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(path), colours)


def test_one_pixel(tmp_path):
    assert decode(saved(tmp_path, np.array([[[1, 2, 3]]], np.uint8))).tolist() == [[[1, 2, 3]]]


def test_line_scan_image_gives_no_warning(tmp_path):
    path = saved(tmp_path, Image.new("1", (16384, 5600)))  # 92 million pixels; Pillow alone warns from 89
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_mask(MaskFiles((path,)), (5600, 16384), "a").shape == (5600, 16384)


def test_truncated_png(tmp_path, colours):
    path = saved(tmp_path, colours)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"image\.png is damaged: .*; fetch the file again"):
        decode(path)


def test_truncated_jpeg(tmp_path, colours):
    path = saved(tmp_path, np.tile(colours, (20, 20, 1)), "image.jpg")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"image\.jpg is damaged: .*truncated"):
        decode(path)


def test_flipped_bytes_are_an_error_or_an_image_but_no_crash(tmp_path, colours):
    path = saved(tmp_path, colours)
    whole = path.read_bytes()
    broken = 0
    for position in range(8, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        try:
            decode(path)
        except DataError as error:  # anything else fails the test
            broken += "image.png" in str(error)
    assert broken > 20


def test_text_named_png(tmp_path):
    path = tmp_path / "image.png"
    path.write_text("this is not an image")
    with pytest.raises(DataError, match=r"image\.png is not an image: it begins with b'this is not an i'"):
        decode(path)


def test_empty_file(tmp_path):
    (tmp_path / "image.png").touch()
    with pytest.raises(DataError, match=r"image\.png is not an image: it is empty"):
        decode(tmp_path / "image.png")


def test_folder_named_png(tmp_path):
    (tmp_path / "image.png").mkdir()
    with pytest.raises(DataError, match=r"image\.png is a folder"):
        decode(tmp_path / "image.png")


def test_absent_file(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*image\.png"):
        decode(tmp_path / "image.png")


def test_unreadable_file(guarded, colours):
    path = saved(guarded, colours)
    path.chmod(0)
    with pytest.raises(DataError, match=r"may not read .*image\.png; change its permissions"):
        decode(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [17000, 60000])
def test_decompression_bomb(tmp_path, side):
    # a PNG header that promises a huge image, as a bomb does; nothing of it may be allocated
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = zlib.compress(bytes(100))
    idat = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body + idat)
    with pytest.raises(DataError, match=r"bomb\.png is too large: .*at most 268,435,456 pixels"):
        decode(tmp_path / "bomb.png")


# Masks


def test_no_mask_is_no_defect():
    mask = read_mask(None, (3, 5), "a.png")
    assert mask.shape == (3, 5)
    assert mask.dtype == bool
    assert not mask.any()


def test_threshold_is_exclusive(tmp_path):
    path = saved(tmp_path, np.array([[0, 1, 127, 128, 255]], np.uint8))
    assert read_mask(MaskFiles((path,)), (1, 5), "a").tolist() == [[False, True, True, True, True]]
    assert read_mask(MaskFiles((path,), 127), (1, 5), "a").tolist() == [[False, False, False, True, True]]


def test_several_files_are_joined(tmp_path):
    paths = tuple(saved(tmp_path, np.eye(3, dtype=np.uint8)[[row]] * 255, f"{row}.png") for row in range(2))
    assert read_mask(MaskFiles(paths), (1, 3), "a").tolist() == [[True, True, False]]


def test_colours_count_by_their_largest_channel(tmp_path):
    pixels = np.array([[[0, 0, 0], [0, 0, 200], [90, 0, 0]]], np.uint8)
    expected = [[False, True, False]]
    assert read_mask(MaskFiles((saved(tmp_path, pixels),), 100), (1, 3), "a").tolist() == expected
    palette = Image.fromarray(pixels).quantize(3)
    assert read_mask(MaskFiles((saved(tmp_path, palette),), 100), (1, 3), "a").tolist() == expected
    opaque = np.concatenate([pixels, np.full((1, 3, 1), 255, np.uint8)], axis=2)
    assert read_mask(MaskFiles((saved(tmp_path, opaque),), 100), (1, 3), "a").tolist() == expected


def test_1_bit_and_16_bit_masks(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[True, False]])))
    assert read_mask(MaskFiles((path,), 127), (1, 2), "a").tolist() == [[True, False]]
    path = saved(tmp_path, np.array([[0, 1]], np.uint16))  # labels, not shifted away
    assert read_mask(MaskFiles((path,)), (1, 2), "a").tolist() == [[False, True]]


def test_all_black_mask_is_allowed(tmp_path):
    assert not read_mask(MaskFiles((saved(tmp_path, np.zeros((4, 4), np.uint8)),)), (4, 4), "a").any()


def test_mask_of_another_size(tmp_path):
    path = saved(tmp_path, np.zeros((4, 6), np.uint8), "mask.png")
    with pytest.raises(DataError, match=r"mask\.png is 4x6 .*its image test/a\.png 5x6 "):
        read_mask(MaskFiles((path,)), (5, 6), "test/a.png")
    with pytest.raises(DataError, match="EXIF"):
        read_mask(MaskFiles((path,)), (6, 4), "test/a.png")


def test_absent_and_broken_masks(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*mask\.png"):
        read_mask(MaskFiles((tmp_path / "mask.png",)), (4, 4), "a")
    (tmp_path / "mask.png").write_text("no")
    with pytest.raises(DataError, match=r"mask\.png is not an image"):
        read_mask(MaskFiles((tmp_path / "mask.png",)), (4, 4), "a")


def test_mask_of_a_turned_image_is_turned_too(tmp_path):
    values = np.zeros((2, 4), np.uint8)
    values[0, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = saved(tmp_path, repeated(values), "image.png", exif=exif)
    mask = saved(tmp_path, values, "mask.png", exif=exif)
    shown = decode(image)
    assert np.array_equal(read_mask(MaskFiles((mask,)), shown.shape[:2], "a"), shown[..., 0] > 0)

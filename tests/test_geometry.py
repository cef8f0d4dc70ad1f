"""Geometry: forward equals torchvision, backward inverts it exactly, masks follow the papers' rules."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision import transforms

from ad_bench.datasets import mvtec
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import UsageError
from ad_bench.geometry import Geometry, resize_map

SHAPES = [(301, 201), (97, 333), (64, 64), (257, 256), (31, 45)]


def random_image(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def interpolated(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # in double: in float torch's own pixel coordinates are off by 1e-5, ours are exact
    tensor = torch.from_numpy(values.astype(np.float64))[None, None]
    return functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("short", "crop"), [(64, 57), (65, 64), (40, 40), (48, 33)])
def test_short_and_crop_equal_torchvision(shape, short, crop):
    image = random_image(shape)
    torchvision = transforms.Compose([transforms.Resize(short), transforms.CenterCrop(crop)])
    expected = np.asarray(torchvision(Image.fromarray(image)))
    geometry = Geometry(short=short, crop=crop)
    assert np.array_equal(geometry.forward(image), expected)
    assert geometry.output(shape) == expected.shape[:2]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_size_equals_torchvision(shape, interpolation):
    image = random_image(shape)
    mode = transforms.InterpolationMode(interpolation)
    expected = np.asarray(transforms.Resize((48, 72), mode)(Image.fromarray(image)))
    assert np.array_equal(Geometry(size=(48, 72), interpolation=interpolation).forward(image), expected)


def test_size_with_crop_equals_torchvision():
    image = random_image((70, 90))
    torchvision = transforms.Compose([transforms.Resize((64, 64)), transforms.CenterCrop(51)])
    assert np.array_equal(
        Geometry(size=(64, 64), crop=51).forward(image), np.asarray(torchvision(Image.fromarray(image)))
    )


def test_without_antialias_equals_interpolate():
    image = random_image((301, 201))
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = functional.interpolate(tensor, size=(64, 48), mode="bilinear", align_corners=False)
    expected = expected[0].permute(1, 2, 0).numpy()
    made = Geometry(size=(64, 48), antialias=False).forward(image)
    assert made.dtype == np.uint8
    assert np.abs(made - expected).max() < 0.501  # a rounding, up to the last bit of a half
    assert not np.array_equal(made, Geometry(size=(64, 48)).forward(image))


def test_original_size_is_untouched_and_bgr_turns_the_channels():
    image = random_image((13, 7))
    assert np.array_equal(Geometry().forward(image), image)
    turned = Geometry(channel_order="bgr").forward(image)
    assert np.array_equal(turned, image[..., ::-1])
    assert turned.flags.c_contiguous


def test_one_pixel_image():
    image = np.full((1, 1, 3), 77, np.uint8)
    geometry = Geometry(short=16, crop=12)
    assert np.array_equal(geometry.forward(image), np.full((12, 12, 3), 77))
    values, seen = geometry.backward(np.full((12, 12), 0.5), (1, 1))
    assert values.tolist() == [[0.5]]
    assert seen is None


@pytest.mark.parametrize("original", [(2, 1), (1, 2), (5, 1)])
def test_crop_inside_few_pixels_sees_them(original):
    # two pixels blown up to 512x256: the crop of 224 lies between their centres
    geometry = Geometry(short=256, crop=224)
    values, seen = geometry.backward(np.ones((224, 224)), original)
    assert (values == 1).any()
    assert seen is None or seen.any()


@pytest.mark.parametrize("target", [(64, 64), (301, 201), (13, 200), (1, 1), (7, 5)])
@pytest.mark.parametrize("shape", [(7, 5), (28, 28), (1, 1), (100, 3)])
def test_resize_map_equals_interpolate(shape, target):
    values = np.random.default_rng(1).standard_normal(shape)
    made = resize_map(values, target)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, interpolated(values, target), atol=1e-5)


def test_resize_map_keeps_ties():
    constant = resize_map(np.full((7, 7), 0.1, np.float32), (300, 211))
    assert len(np.unique(constant)) == 1
    values = np.random.default_rng(0).random((9, 9)).astype(np.float32)
    assert np.array_equal(resize_map(values, (9, 9)), values)


@pytest.mark.parametrize("bad", [np.zeros((2, 3, 4)), np.zeros((0, 3)), np.zeros(5)])
def test_resize_map_refuses_what_is_no_map(bad):
    with pytest.raises(ValueError, match="a map is"):
        resize_map(bad, (4, 4))


@pytest.mark.parametrize("original", SHAPES)
def test_backward_without_crop_equals_interpolate(original):
    values = np.random.default_rng(2).standard_normal((64, 48))
    made, seen = Geometry(size=(64, 48)).backward(values, original)
    assert seen is None
    np.testing.assert_allclose(made, interpolated(values, original), atol=1e-5)


def test_backward_of_a_small_map_goes_through_the_input_size():
    values = np.random.default_rng(3).standard_normal((7, 6))
    made, _ = Geometry(size=(56, 48)).backward(values, (100, 90))
    expected = interpolated(interpolated(values, (56, 48)), (100, 90))
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("original", [(300, 300), (201, 301), (333, 120), (64, 65)])
@pytest.mark.parametrize(("short", "crop"), [(256, 224), (65, 32), (100, 99)])
def test_backward_inverts_the_crop(original, short, crop):
    # A plane: bilinear resampling keeps it, so that every seen pixel must give back its own coordinate.
    geometry = Geometry(short=short, crop=crop)
    resized = transforms.Resize(short)(Image.new("L", original[::-1])).size[::-1]
    top, left = (round((length - crop) / 2.0) for length in resized)
    y = (np.arange(top, top + crop) + 0.5) * original[0] / resized[0] - 0.5
    x = (np.arange(left, left + crop) + 0.5) * original[1] / resized[1] - 0.5
    made, seen = geometry.backward(y[:, None] + 1000 * x[None, :], original)
    assert seen is not None
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert np.all(made[~seen] == -np.inf)
    assert np.isfinite(made[seen]).all()
    # the outermost seen pixels may lie up to half an input pixel beyond its last centre, and are clamped
    edge = math.ceil(max(original) / max(resized) / 2)
    inner_rows, inner_columns = rows[edge:-edge], columns[edge:-edge]
    expected = inner_rows[:, None] + 1000 * inner_columns[None, :]
    np.testing.assert_allclose(made[np.ix_(inner_rows, inner_columns)], expected, rtol=1e-6, atol=0.1)
    # seen: brute force, pixel by pixel
    inside = [
        [0 <= (i + 0.5) * after / before - start < crop for i in range(before)]
        for before, after, start in zip(original, resized, (top, left), strict=True)
    ]
    assert np.array_equal(seen, np.outer(*inside))


def test_mask_rules_by_hand():
    # Four pixels to two by Pillow's triangle filter: weights 3/7, 3/7, 1/7 at the edge.
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True
    grey = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((2, 2), Image.Resampling.BILINEAR))
    assert grey[0].tolist() == [219, 36]
    geometry = Geometry(size=(2, 2))
    assert geometry.forward_mask(mask, "int").tolist() == [[False, False]] * 2
    assert geometry.forward_mask(mask, ">0.5").tolist() == [[True, False]] * 2
    assert geometry.forward_mask(mask, ">0").tolist() == [[True, True]] * 2
    assert geometry.forward_mask(mask, "nearest").tolist() == [[True, False]] * 2


def test_a_half_covered_pixel_is_above_a_half():
    # 127.5 becomes 128 in eight bits, and 128 / 255 > 0.5
    half = np.array([[True, False]])
    assert np.asarray(Image.fromarray(half.astype(np.uint8) * 255).resize((1, 1), 2)).tolist() == [[128]]
    assert Geometry(size=(1, 1)).forward_mask(half, ">0.5").tolist() == [[True]]


def test_mask_follows_its_image():
    # A white rectangle on black: the mask's way and the image's way must agree pixel by pixel.
    mask = np.zeros((75, 120), bool)
    mask[20:50, 41:77] = True
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255)
    geometry = Geometry(short=64, crop=51)
    expected = geometry.forward(image)[..., 0]
    assert np.array_equal(geometry.forward_mask(mask, ">0.5"), expected > 127)
    assert np.array_equal(geometry.forward_mask(mask, "int"), expected == 255)


def test_paper_size_replaces_a_squeeze_and_must_equal_a_crop():
    mask = np.zeros((50, 40), bool)
    assert Geometry(size=(64, 64)).forward_mask(mask, ">0", size=32).shape == (32, 32)
    assert Geometry(size=(64, 64)).forward_mask(mask, ">0", size=[30, 20]).shape == (30, 20)
    assert Geometry(short=32, crop=24).forward_mask(mask, ">0", size=24).shape == (24, 24)
    for geometry in (
        Geometry(short=32, crop=24),
        Geometry(size=(32, 32), crop=24),
        Geometry(short=32),
        Geometry(),
    ):
        with pytest.raises(UsageError, match=r"paper_eval.size=\[32, 32\] does not fit"):
            geometry.forward_mask(mask, ">0", size=32)


def test_bottle_masks_shrink_and_grow_by_rule(unpacked):
    root = unpacked("mvtec_bottle/bottle_300.tar")
    masks = [read_mask(s.mask, (300, 300), s.name) for s in mvtec.samples(root, "bottle") if s.mask]
    assert len(masks) == 63
    area = sum(int(mask.sum()) for mask in masks)

    def change(geometry: Geometry, rule: str, scale: float) -> float:
        return (
            sum(int(geometry.forward_mask(m, rule, "bilinear", 224).sum()) for m in masks) / area / scale - 1
        )

    squeezed = Geometry(size=(224, 224))
    assert change(squeezed, "int", (224 / 300) ** 2) == pytest.approx(-0.063, abs=0.001)
    assert change(squeezed, ">0", (224 / 300) ** 2) == pytest.approx(0.066, abs=0.001)
    assert change(squeezed, ">0.5", (224 / 300) ** 2) == pytest.approx(0, abs=0.001)
    cropped = Geometry(short=256, crop=224)  # the crop itself takes 0.4 %
    assert change(cropped, "int", (256 / 300) ** 2) == pytest.approx(-0.055, abs=0.001)
    assert change(cropped, ">0", (256 / 300) ** 2) == pytest.approx(0.047, abs=0.001)


def test_from_config():
    assert Geometry.from_config(None) == Geometry()
    assert Geometry.from_config({"size": 8}) == Geometry(size=(8, 8))
    assert Geometry.from_config({"short": 256, "crop": 224, "channel_order": "bgr"}) == Geometry(
        short=256, crop=224, channel_order="bgr"
    )


def test_a_data_set_replaces_the_shape_alone():
    method = {"short": 256, "crop": 224, "channel_order": "bgr", "interpolation": "bicubic"}
    made = Geometry.from_config(method, replaced_by={"size": [256, 128]})
    assert made == Geometry(size=(256, 128), channel_order="bgr", interpolation="bicubic")
    assert Geometry.from_config(method, replaced_by=None) == Geometry.from_config(method)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"sice": 3}, "no key 'sice'. Did you mean size"),
        ({"size": 0}, "input.size is a whole number"),
        ({"size": [1, 2, 3]}, r"input.size is one number or \[height, width\]"),
        ({"size": "256"}, "input.size is one number"),
        ({"short": -1}, "input.short is a whole number"),
        ({"short": 2.5}, "input.short is a whole number"),
        ({"crop": True}, "input.crop is a whole number"),
        ({"size": 8, "short": 8}, "exclude each other"),
        ({"short": 224, "crop": 256}, "input.crop=256 is larger"),
        ({"size": [8, 300], "crop": 224}, "input.crop=224 is larger"),
        ({"interpolation": "linear"}, "input.interpolation='linear' is not known.*Did you mean bilinear"),
        ({"channel_order": "gbr"}, "input.channel_order='gbr'"),
        ({"antialias": "no"}, "input.antialias is true or false"),
        ({"antialias": False, "interpolation": "bicubic"}, "input.antialias=false is defined for bilinear"),
    ],
)
def test_wrong_values_are_named(config, text):
    with pytest.raises(UsageError, match=text):
        Geometry.from_config(config)


def test_crop_larger_than_the_original_is_refused():
    with pytest.raises(UsageError, match="larger than an image of 10x90 pixels"):
        Geometry(crop=20).forward(random_image((10, 90)))


@pytest.mark.parametrize(("rule", "interpolation"), [(">1", "bilinear"), ("int", "bicubic")])
def test_wrong_mask_rules_are_named(rule, interpolation):
    with pytest.raises(UsageError, match=r"paper_eval\.mask_"):
        Geometry(size=(4, 4)).forward_mask(np.zeros((4, 4), bool), rule, interpolation)

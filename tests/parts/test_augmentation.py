"""Changed copies of an image: closed forms, and torch's sampling as a second opinion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ad_bench.errors import UsageError
from ad_bench.parts import augmentation as aug


def noise(height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_four_quarter_turns_are_the_identity() -> None:
    image = noise()
    turned = image
    for _ in range(4):
        turned = aug.quarter_turns(turned, 1)
    np.testing.assert_array_equal(turned, image)
    np.testing.assert_array_equal(aug.quarter_turns(image, 2), aug.flip(image, True, True))
    assert aug.quarter_turns(image, 1)[0, 0].tolist() == image[0, -1].tolist()  # counter-clockwise


def test_a_rotation_by_right_angles_is_a_quarter_turn() -> None:
    image = noise()
    for count in (1, 2, 3):
        np.testing.assert_array_equal(aug.rotate(image, count * math.pi / 2), aug.quarter_turns(image, count))
    np.testing.assert_array_equal(aug.rotate(image, 0), image)
    np.testing.assert_array_equal(aug.rotate(noise(12, 20), math.pi), noise(12, 20)[::-1, ::-1])


def test_flipping_twice_is_the_identity() -> None:
    image = noise(12, 20)
    for across, down in ((True, False), (False, True), (True, True)):
        flipped = aug.flip(image, across, down)
        assert not np.array_equal(flipped, image)
        np.testing.assert_array_equal(aug.flip(flipped, across, down), image)
    assert aug.flip(image, True, False)[3, 0].tolist() == image[3, -1].tolist()
    assert aug.flip(image, False, True)[0, 3].tolist() == image[-1, 3].tolist()


def test_a_translation_moves_a_planted_pixel() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[5, 10] = (10, 200, 90)
    moved = aug.translate(image, right=0.1, down=-0.2)  # 4 columns to the right, 4 rows up
    assert moved[1, 14].tolist() == [10, 200, 90]
    assert moved.sum() == image.sum()
    half = aug.translate(image, right=0.0125, down=0)  # half a pixel: shared by two
    assert half[5, 10].tolist() == half[5, 11].tolist() == [5, 100, 45]


def test_the_border_is_mirrored_at_the_edge() -> None:
    image = noise(10, 10)
    np.testing.assert_array_equal(aug.translate(image, 0.3, 0)[:, :3], image[:, 2::-1])
    np.testing.assert_array_equal(aug.translate(image, 0, -0.2)[-2:], image[:-3:-1])
    flat = np.full((10, 10, 3), 77, np.uint8)
    np.testing.assert_array_equal(aug.rotate(flat, 0.7), flat)


def test_grey_is_the_luma() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [40, 40, 40]]], np.uint8)
    assert aug.grey(image)[0].tolist() == [[76] * 3, [150] * 3, [29] * 3, [40] * 3]


def reference(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    pixels = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    grid = F.affine_grid(torch.tensor([matrix], dtype=torch.float64), list(pixels.shape), align_corners=False)
    found = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    return found[0].permute(1, 2, 0).numpy()


def test_regad_is_what_torch_makes_of_its_matrices() -> None:
    image = noise(32, 32)
    copies = aug.augmented(image, ["regad"])
    assert len(copies) == 22
    np.testing.assert_array_equal(copies[0], image)
    for copy, step in zip(copies[1:9], (-4, -3, -2, -1, 1, 2, 3, 4), strict=True):
        c, s = math.cos(step * math.pi / 16), math.sin(step * math.pi / 16)
        assert np.abs(copy - reference(image, [[c, -s, 0], [s, c, 0]])).max() <= 0.5 + 1e-6
    shifts = [(0.2, 0.2), (-0.2, 0.2), (-0.2, -0.2), (0.2, -0.2)]
    shifts += [(a / 2, b / 2) for a, b in shifts]
    for copy, (a, b) in zip(copies[9:17], shifts, strict=True):
        assert np.abs(copy - reference(image, [[1, 0, a], [0, 1, b]])).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(copies[17], image[:, ::-1])
    np.testing.assert_array_equal(copies[18], aug.grey(image))
    for copy, count in zip(copies[19:], (1, 2, 3), strict=True):
        np.testing.assert_array_equal(copy, np.rot90(image, count))


@pytest.mark.parametrize(
    ("name", "count"), [("rotations", 5), ("flips", 4), ("turns", 4), ("grey", 2), ("regad", 22)]
)
def test_copies_are_images_of_the_same_kind(name: str, count: int) -> None:
    image = noise()
    before = image.copy()
    copies = aug.augmented(image, [name])
    assert len(copies) == count
    assert {(copy.shape, copy.dtype.name) for copy in copies} == {((24, 24, 3), "uint8")}
    assert len({copy.tobytes() for copy in copies}) == count
    np.testing.assert_array_equal(image, before)
    for one, two in zip(copies, aug.augmented(image, [name]), strict=True):
        np.testing.assert_array_equal(one, two)


def test_names_add_up_and_wrong_ones_are_said() -> None:
    assert len(aug.augmented(noise(), ["flips", "rotations"])) == 1 + 3 + 4
    assert len(aug.augmented(noise(), [])) == 1
    aug.check_augmentations(list(aug.AUGMENTATIONS))
    with pytest.raises(UsageError, match="Did you mean rotations"):
        aug.check_augmentations(["rotation"])
    with pytest.raises(UsageError, match="needs square images, these are 12x20"):
        aug.augmented(noise(12, 20), ["turns"])

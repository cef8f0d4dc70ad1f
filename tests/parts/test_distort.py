"""Distortions against Pillow and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ad_bench.errors import UsageError
from ad_bench.parts import distort
from ad_bench.parts.distort import DISTORTIONS, distorted


def picture(seed: int = 0) -> torch.Tensor:
    pixels = torch.randint(0, 256, (3, 20, 24), generator=torch.Generator().manual_seed(seed))
    return (pixels // 2 + 40).float() / 255


def pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("change", DISTORTIONS, ids=lambda change: change.__name__)
def test_each_follows_its_generator_and_keeps_the_image(change: distort.Distortion) -> None:
    image = picture()
    untouched = image.clone()
    draws = [change(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, *range(1, 8))]
    assert torch.equal(image, untouched)
    assert all(draw.shape == image.shape and draw.dtype == torch.float32 for draw in draws)
    assert torch.equal(draws[0], draws[1])
    assert any(not torch.allclose(draw, image) for draw in draws)


def test_tones_are_pillows() -> None:
    image, generator = picture(), torch.Generator()
    torch.testing.assert_close(distort.invert(image, generator), tensor(ImageOps.invert(pillow(image))))
    torch.testing.assert_close(distort.equalise(image, generator), tensor(ImageOps.equalize(pillow(image))))
    for seed in range(5):
        found = distort.posterise(image, generator.manual_seed(seed))
        choices = [tensor(ImageOps.posterize(pillow(image), bits)) for bits in range(1, 9)]
        assert any(torch.allclose(found, choice) for choice in choices)


def test_autocontrast_uses_the_full_range() -> None:
    for seed in range(5):
        found = distort.autocontrast(picture(), torch.Generator().manual_seed(seed))
        assert found.amin((1, 2)).max() <= 1e-6
        assert found.amax((1, 2)).min() >= 1 - 1e-6
    flat = torch.full((3, 4, 4), 0.3)
    assert torch.equal(distort.autocontrast(flat, torch.Generator()), flat)


def test_colour_keeps_grey_and_the_value() -> None:
    grey = torch.rand(1, 8, 8).expand(3, 8, 8)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        torch.testing.assert_close(distort.colour(grey, generator), grey)
        found = distort.colour(picture(), generator)
        torch.testing.assert_close(found.amax(0), picture().amax(0), atol=1e-5, rtol=0)


def test_brightness_changes_all_channels_alike() -> None:
    change = distort.brightness(picture(), torch.Generator().manual_seed(0)) - picture()
    torch.testing.assert_close(change[0], change[1])
    assert change.abs().max() <= 0.2 + 30 / 255


def test_rotation_by_a_right_angle() -> None:
    image = torch.rand(2, 9, 9)
    torch.testing.assert_close(distort.rotate(image, 90), image.rot90(1, (1, 2)), atol=1e-5, rtol=0)
    assert distort.rotate(torch.ones(1, 9, 9), 45)[0, 0, 0] == 0


def test_distorted_draws_different_ones_and_stays_in_range() -> None:
    image, generator = picture(), torch.Generator().manual_seed(0)
    found = [distorted(image, 3, generator) for _ in range(30)]
    assert all(one.min() >= 0 and one.max() <= 1 for one in found)
    assert len({one.sum().item() for one in found}) == 30
    assert torch.equal(distorted(image, 0, generator), image)
    with pytest.raises(UsageError, match="11"):
        distorted(image, 11, generator)

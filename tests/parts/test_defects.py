"""Where a texture is laid, on how many images, and that a seed decides it."""

from __future__ import annotations

import torch

from ad_bench.parts.defects import TextureDefects
from ad_bench.parts.perlin import PerlinMasks
from tests import tiny


def defects(anomalous: float = 0.5, opacity: tuple[float, float] = (0.2, 1.0)) -> TextureDefects:
    return TextureDefects(None, 3, anomalous, PerlinMasks((0, 3), 90, 0.5), opacity)


def test_half_of_the_images_stay_normal() -> None:
    image, generator = tiny.textures(1)[0], torch.Generator().manual_seed(0)
    made = [defects().spoil(image, generator) for _ in range(60)]
    whole = [spoilt for spoilt, mask in made if not mask.any()]
    assert 18 <= len(whole) <= 45
    assert all(torch.equal(one, image) for one in whole)
    for spoilt, mask in made:
        assert torch.equal(spoilt[:, ~mask], image[:, ~mask])
        assert not mask.any() or not torch.equal(spoilt[:, mask], image[:, mask])


def test_the_shares_at_their_ends() -> None:
    """None is spoilt at 0; at 1 all are, but for empty masks; a texture without opacity is not seen."""
    image = tiny.textures(1)[0]
    for share, opacity, fewest, most in ((0.0, (1.0, 1.0), 0, 0), (1.0, (1.0, 1.0), 15, 20)):
        generator = torch.Generator().manual_seed(2)
        masks = [defects(share, opacity).spoil(image, generator)[1] for _ in range(20)]
        assert fewest <= sum(bool(mask.any()) for mask in masks) <= most
    spoilt, mask = defects(1.0, (0.0, 0.0)).spoil(image, torch.Generator().manual_seed(2))
    assert mask.any()
    assert torch.equal(spoilt, image)


def test_the_generator_decides() -> None:
    image = tiny.textures(1)[0]
    first, again, other = (
        defects(1.0).spoil(image, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

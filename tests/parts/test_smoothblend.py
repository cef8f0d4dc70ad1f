"""SmoothBlend: what changes, how it fades, what it is made of."""

from __future__ import annotations

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.smoothblend import smooth_blend

SETTINGS = ((0.005, 0.02), 0.3, 0.1, 0.2)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_only_pixels_under_the_mask_change() -> None:
    generator, image = draws(), torch.rand(3, 96, 128, generator=draws(1))
    before = image.clone()
    for _ in range(30):
        blended, mask = smooth_blend(image, generator, *SETTINGS)
        assert torch.equal(blended[:, mask == 0], image[:, mask == 0])
        assert not torch.equal(blended[:, mask > 0.5], image[:, mask > 0.5])
        assert mask.min() == 0
        assert mask.max() <= 1
        assert blended.min() >= 0
        assert blended.max() <= 1
        share = float((mask > 0).float().mean())
        assert 0.003 < share < 0.025  # sides are rounded
    assert torch.equal(image, before)


def test_the_mask_fades_from_its_middle_to_almost_nothing_at_its_border() -> None:
    _, mask = smooth_blend(torch.zeros(3, 100, 100), draws(), (0.25, 0.25), 1.0, 0.1, 0.0)
    rows, columns = (mask > 0).any(1).nonzero()[:, 0], (mask > 0).any(0).nonzero()[:, 0]
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert box.shape == (50, 50)
    assert box[25, 25] > 0.98
    assert box[[0, -1]].max() < 0.05
    across = box[25]
    assert (across[1:26] >= across[:25]).all()
    torch.testing.assert_close(across, across.flip(0))
    # Half of it where the box ends that was blurred: two deviations, of 5 pixels, from the border.
    assert float(across[9:11].mean()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(box, box.T)


def test_a_piece_is_of_the_image_itself() -> None:
    image = torch.zeros(3, 64, 64)
    image[:, :, 32:] = 1.0
    found = set()
    for seed in range(40):
        blended, mask = smooth_blend(image, draws(seed), (0.01, 0.01), 1.0, 0.1, 0.0)
        change = (blended - image)[0]
        assert change.abs().max() <= mask.max() + 1e-6
        found.add(bool(change.abs().max() > 0.5))
    assert found == {True, False}  # from the other half, and from the same
    flat = torch.full((3, 64, 64), 0.3)
    torch.testing.assert_close(smooth_blend(flat, draws(), (0.01, 0.1), 0.3, 0.1, 0.0)[0], flat)
    assert not torch.allclose(smooth_blend(flat, draws(), (0.01, 0.1), 0.3, 0.1, 0.4)[0], flat)


@pytest.mark.parametrize(
    "wrong", [((0.0, 0.1), 0.3, 0.1), ((0.2, 0.1), 0.3, 0.1), ((0.1, 0.2), 2.0, 0.1), ((0.1, 0.2), 0.3, 0.3)]
)
def test_settings_that_cannot_be_are_refused(wrong: tuple) -> None:
    with pytest.raises(UsageError, match=r"rising shares|softness"):
        smooth_blend(torch.zeros(3, 32, 32), draws(), *wrong, 0.1)

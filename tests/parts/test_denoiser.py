"""The diffusion U-Net against the authors' of AnoDDPM; time, attention and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.denoiser import Attention, Denoiser, waves
from tests.written_down import fill, pixels

REFERENCE = np.load(Path(__file__).parents[1] / "methods" / "fixtures" / "anoddpm.npz")


def small(**changed: object) -> Denoiser:
    settings = {
        "base": 32,
        "multipliers": [1, 2, 2],
        "attention": [1, 2],
        "heads": 2,
        "blocks": 2,
        "groups": 32,
    }
    torch.manual_seed(0)
    return Denoiser(**{**settings, "groups": 32, "dropout": 0.0, "channels": 3, **changed})  # type: ignore[arg-type]


def test_agrees_with_the_authors_network() -> None:
    network = small().double()
    fill(network, 1000)
    with torch.no_grad():
        predicted = network(2 * pixels(2, 32, 1) - 1, torch.tensor([7, 31]))
    np.testing.assert_allclose(predicted[:, :, ::3, ::2], REFERENCE["predicted"], rtol=1e-9, atol=1e-11)


def test_the_published_network_has_as_many_parameters() -> None:
    with torch.device("meta"):
        network = small(base=128, multipliers=[1, 1, 2, 2, 4, 4], attention=[3, 4, 5])
    assert sum(one.numel() for one in network.parameters()) == int(REFERENCE["parameters"])
    assert network.stride == 32


def test_it_begins_with_no_noise_at_all() -> None:
    assert small()(torch.rand(2, 3, 16, 24), torch.tensor([0, 900])).abs().max() == 0


def test_it_hears_the_time() -> None:
    network, images = small(), torch.rand(1, 3, 16, 16)
    fill(network, 0)
    with torch.no_grad():
        early, late = network(images, torch.tensor([3])), network(images, torch.tensor([40]))
        both = network(images.repeat(2, 1, 1, 1), torch.tensor([3, 40]))
    assert (early - late).abs().mean() > 0.01
    torch.testing.assert_close(both, torch.cat([early, late]), rtol=1e-4, atol=1e-4)


def test_attention_sees_the_far_end() -> None:
    layer = Attention(8, 2, 4)
    fill(layer, 0)
    maps = torch.rand(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    changed = maps.clone()
    changed[0, :, 0, 0] += 1
    with torch.no_grad():
        apart = (layer(changed, maps) - layer(maps, maps))[0].abs().amax(0)
        turned = layer(maps.flip(2, 3), maps).flip(2, 3)
    assert apart[5, 5] > 1e-3
    torch.testing.assert_close(turned, layer(maps, maps).detach())  # no pixel has a place
    levels = [sum(isinstance(one, Attention) for one in small(attention=at).modules()) for at in ([], [1, 2])]
    assert levels == [1, 11]  # the middle; two on the way down and three up for each level


def test_times_are_told_apart_by_waves() -> None:
    told = waves(torch.tensor([0.0, 1.0, 2.0]), 8)
    torch.testing.assert_close(told[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(told[1, 0], torch.tensor(1.0).sin())
    torch.testing.assert_close(told[2, 7], torch.tensor(2 * 10000 ** (-3 / 4)).cos())


@pytest.mark.parametrize("changed", [{"groups": 12}, {"heads": 5}])
def test_channels_that_do_not_divide_are_refused(changed: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="multiple of"):
        small(**changed)

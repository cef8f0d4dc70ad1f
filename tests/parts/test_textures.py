"""Textures of a folder, and made ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ad_bench.errors import DataError, UsageError
from ad_bench.parts.textures import Textures, cloudy, patterned, procedural


def test_a_folder_is_read_with_all_below_it(tmp_path: Path) -> None:
    colours = {"banded/a.jpg": (200, 10, 10), "dotted/b.png": (10, 200, 10), "c.txt": None}
    for name, colour in colours.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if colour is None:
            path.write_text("no picture")
        else:
            Image.new("RGB", (30, 20), colour).save(path)
    textures = Textures(str(tmp_path))
    source = str(textures)
    assert source.startswith("2 pictures, ")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert str(Textures(str(moved))) == source, "wherever the folder is"
    (moved / "dotted/b.png").rename(moved / "dotted/d.png")
    assert str(Textures(str(moved))) != source
    textures = Textures(str(moved))
    generator = torch.Generator().manual_seed(0)
    seen = {tuple((textures.draw((8, 6), generator)[:, 4, 3] * 20).round().int().tolist()) for _ in range(20)}
    assert seen == {(16, 1, 1), (1, 16, 1)}


def test_a_picture_is_squeezed(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[:, 4:, 1] = (255, 0, 0), 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = Textures(str(tmp_path)).draw((4, 2), torch.Generator())
    assert found.shape == (3, 4, 2)
    assert found[:, 0, 0].tolist() == [1, 0, 0]
    assert found[:, 3, 1].tolist() == [0, 1, 0]


def test_made_ones_are_many_and_follow_the_generator() -> None:
    assert str(Textures(None)) == "procedural"
    draws = [
        [Textures(None).draw((40, 32), generator) for _ in range(40)]
        for generator in (torch.Generator().manual_seed(seed) for seed in (0, 0, 1))
    ]
    assert all(torch.equal(one, two) for one, two in zip(draws[0], draws[1], strict=True))
    assert not torch.equal(draws[0][0], draws[2][0])
    for one in draws[0]:
        assert one.shape == (3, 40, 32)
        assert one.min() >= 0
        assert one.max() <= 1
    flat = [one for one in draws[0] if one.std((1, 2)).max() < 1e-6]
    assert 2 <= len(flat) <= 16, "one in five is a plain colour"


def test_kinds_look_as_they_are_called() -> None:
    generator = torch.Generator().manual_seed(0)
    stripes, checkers, dots = (
        patterned((64, 64), generator, kind) for kind in ("stripes", "checkers", "dots")
    )
    for one in (stripes, checkers, dots):
        assert one.std((1, 2)).max() > 0.02
    clouds = cloudy((64, 64), generator)
    assert clouds.amin((1, 2)).tolist() == [0, 0, 0]
    assert clouds.amax((1, 2)).tolist() == [1, 1, 1]
    assert not torch.equal(clouds[0], clouds[1])
    assert procedural((10, 30), generator).shape == (3, 10, 30)


def test_an_empty_or_missing_folder_and_a_broken_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        Textures(str(tmp_path))
    with pytest.raises(UsageError, match="no such folder"):
        Textures(str(tmp_path / "dtd"))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        Textures(str(tmp_path)).draw((4, 4), torch.Generator())

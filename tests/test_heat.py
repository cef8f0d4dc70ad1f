from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ad_bench.heat import colour, recoloured, scale

AT = [0, 0.25, 0.5, 0.75, 0.999, 1]


def quantiles(values: list[float], pixels: int = 1000) -> dict[str, object]:
    return {"at": AT, "values": values, "pixels": pixels}


def lightness(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ [0.2126, 0.7152, 0.0722]


def test_colours_get_lighter_from_one_end_to_the_other() -> None:
    colours = colour(np.linspace(0, 1, 64))
    assert colours.shape == (64, 3)
    assert np.all(np.diff(lightness(colours)) > 0)
    assert colours[0].tolist() == [0, 0, 4]
    assert colours[-1].tolist() == [252, 255, 164]


def test_scores_outside_of_the_scale_get_the_colours_of_its_ends() -> None:
    assert colour([[-3.0, 7.0]]).tolist() == [colour([0.0, 1.0]).tolist()]


def test_one_cell_is_drawn_from_its_median_to_its_last_thousandth() -> None:
    assert scale([quantiles([0, 1, 2, 3, 10, 90])]) == (2.0, 10.0)


def test_a_scale_is_that_of_all_pixels_together() -> None:
    rng = np.random.default_rng(0)
    cells = [rng.normal(0, 1, 40_000), rng.normal(3, 2, 10_000) ** 2]
    at = np.linspace(0, 1, 2001)
    found = scale([{"at": at, "values": np.quantile(c, at), "pixels": len(c)} for c in cells])
    wanted = np.quantile(np.concatenate(cells), [0.5, 0.999])
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("values", [[5.0] * 6, [0.0, 0, 0, 0, 0, 4]])
def test_a_scale_has_two_ends_where_most_pixels_share_a_score(values: list[float]) -> None:
    low, high = scale([quantiles(values)])
    assert low == values[2]
    assert high > low
    if values[-1] > values[0]:
        assert high == values[-1]


def test_no_cells_have_no_scale() -> None:
    with pytest.raises(ValueError, match="quantiles of one cell"):
        scale([])


def indexed(colours: int = 256) -> bytes:
    image = Image.frombytes("P", (256, 2), bytes(range(256)) * 2)
    image.putpalette([grey for grey in range(colours) for _ in "rgb"])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_palette_is_exchanged_and_no_pixel_touched() -> None:
    levels = np.linspace(-10, 40, 256)
    changed = Image.open(io.BytesIO(recoloured(indexed(), levels.tolist(), 0.0, 20.0)))
    changed.load()
    assert changed.tobytes() == bytes(range(256)) * 2
    np.testing.assert_array_equal(np.asarray(changed.convert("RGB"))[0], colour(levels / 20.0))


def test_what_has_no_palette_is_refused() -> None:
    grey = io.BytesIO()
    Image.new("L", (4, 4)).save(grey, "PNG")
    for content, text in ((grey.getvalue(), "without palette"), (b"GIF89a", "no PNG"), (b"", "no PNG")):
        with pytest.raises(ValueError, match=text):
            recoloured(content, [0.0] * 256, 0.0, 1.0)
    with pytest.raises(ValueError, match="256 colours for 9 levels"):
        recoloured(indexed(), [0.0] * 9, 0.0, 1.0)

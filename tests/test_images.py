"""What is made of images that are not plain RGB: each kind is converted on purpose or refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from icre_jax.data.images import decode, find_defect

RAMP = np.linspace(0, 255, 200).round().astype(np.uint8).reshape(20, 10)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_grey_and_palette_keep_their_pixels(kind):
    for image in (Image.fromarray(RAMP), Image.fromarray(RAMP).convert("P")):
        data = encode(image, kind)
        assert find_defect(data) is None
        np.testing.assert_array_equal(decode(data, (20, 10)), np.repeat(RAMP[..., None], 3, axis=2))


def test_grey_is_resized_to_the_pixels_that_three_channels_would_give():
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 21), dtype=np.uint8))
    for size in ((64, 32), (16, 12), (37, 21)):
        assert np.array_equal(decode(encode(grey), size), decode(encode(grey.convert("RGB")), size))


def test_a_false_colour_palette_is_looked_up():
    image = Image.new("P", (10, 20), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert (decode(encode(image), (20, 10)) == (200, 100, 50)).all()


def test_16_bits_are_stretched_by_their_quantiles():
    counts = np.linspace(29_000, 31_000, 2000).round().astype(np.uint16).reshape(50, 40)
    data = encode(Image.fromarray(counts))
    assert find_defect(data) is None
    pixels = decode(data, (50, 40))
    # Linear between the quantiles at 0.5 % and 99.5 %, that is counts 29,010 and 30,990.
    expected = np.clip((counts.astype(float) - 29_010) * 255 / 1980, 0, 255)
    assert np.abs(pixels[..., 0] - expected).max() <= 1
    # One hot pixel and one dead one change nothing to speak of; a fixed scale would be black here.
    counts[3, 3], counts[4, 4] = 65_535, 0
    again = decode(encode(Image.fromarray(counts)), (50, 40)).astype(int)
    again[3, 3] = again[4, 4] = pixels[3, 3]
    assert np.median(np.abs(again - pixels)) <= 1
    assert (decode(encode(Image.fromarray(np.full((8, 4), 30_000, np.uint16))), (8, 4)) == 0).all()


def test_alpha_is_dropped_where_it_hides_nothing():
    rgba = np.full((20, 10, 4), 255, np.uint8)
    rgba[..., 0] = RAMP
    data = encode(Image.fromarray(rgba))
    assert find_defect(data) is None
    np.testing.assert_array_equal(decode(data, (20, 10)), rgba[..., :3])
    rgba[5, 5, 3] = 254
    for image in (Image.fromarray(rgba), Image.fromarray(rgba).convert("LA")):
        assert "transparent pixels" in str(find_defect(encode(image)))
    palette = Image.new("P", (10, 20), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert "transparent pixels" in str(find_defect(encode(palette, transparency=1)))


def test_other_kinds_are_refused_by_name():
    assert "colour mode 1;" in str(find_defect(encode(Image.new("1", (4, 8)))))
    assert "colour mode CMYK" in str(find_defect(encode(Image.new("CMYK", (4, 8)), "JPEG")))
    assert find_defect(encode(Image.new("RGB", (4, 8)), "GIF")) == "not readable (no JPEG, PNG, BMP file)"
    assert find_defect(b"words") == "not readable (no JPEG, PNG, BMP file)"
    assert find_defect(b"") == "empty file"

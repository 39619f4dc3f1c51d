"""`icre_jax.files.images`: pixels are counted before any is decoded, and damaged images are refused."""

import contextlib
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from configs import synthetic as synthetic_config
from icre_jax import embed as embed_command
from icre_jax.data.folders import write_manifest
from icre_jax.data.prepared import open_or_prepare
from icre_jax.data.reading import read_batches
from icre_jax.errors import InputError
from icre_jax.files.images import UnusableImageError, load_image
from icre_jax.settings import parse
from tests.attacks.test_images import chunk
from tests.test_images import encode


def test_pixels_are_counted_before_any_is_decoded():
    data = encode(Image.new("RGB", (50, 40)))
    assert load_image(data, max_pixels=2000).size == (50, 40)
    with pytest.raises(UnusableImageError, match="50 x 40 pixels; at most 1,999 in all are allowed"):
        load_image(data, max_pixels=1999)
    # A header alone: nothing that could be decoded follows.
    header = struct.pack(">II5B", 50_000, 40_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with pytest.raises(UnusableImageError, match="more than 89,000,000 pixels; at most 25,000,000"):
        load_image(bomb)


def test_the_limit_of_pixels_can_be_set(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (50, 40)).save(file)
    assert next(read_batches([file], (8, 4), 1, max_pixels=2000)).shape == (1, 8, 4, 3)
    with pytest.raises(InputError, match=r"a\.png: 50 x 40 pixels; at most 1,999 in all are allowed"):
        list(read_batches([file], (8, 4), 1, max_pixels=1999))
    embed = ["--network", "synthetic", "--images", str(file.parent), "--modality", "visible", "--out"]
    with pytest.raises(InputError, match="at most 1,999 in all are allowed"):
        embed_command.main([*embed, str(tmp_path / "o.npz"), "--max_pixels", "1999"])
    with pytest.raises(InputError, match="max_pixels is 0; a whole number from 1 to 89,000,000 is needed"):
        embed_command.main([*embed, str(tmp_path / "o.npz"), "--max_pixels", "0"])
    config = synthetic_config.get_config()
    for value, words in ((0, "greater than or equal to 1"), (89_000_001, "less than or equal to 89000000")):
        config.data.max_pixels = value
        with pytest.raises(InputError, match=rf"data\.max_pixels = {value}: .*{words}"):
            parse(config)


def test_an_image_past_the_limit_is_not_prepared(tmp_path):
    for split, person in (("train", "1"), ("query", "2"), ("gallery", "2")):
        for modality in ("visible", "infrared"):
            folder = tmp_path / "own" / split / modality / person
            folder.mkdir(parents=True)
            Image.new("RGB", (10, 20)).save(folder / f"{split}.png")
    write_manifest(tmp_path / "own")
    words = r"(?s)6 of 6 images .*: 10 x 20 pixels; at most 199 .*--config\.data\.max_pixels=N"
    with pytest.raises(InputError, match=words):
        open_or_prepare("manifest", tmp_path / "own", tmp_path / "records", max_pixels=199)


def test_several_images_in_a_file_are_refused():
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for kind in ("PNG", "MPO"):
        with pytest.raises(UnusableImageError, match="3 images in one file; store the one that is meant"):
            load_image(encode(pages[0], kind, save_all=True, append_images=pages[1:]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_truncated_images_are_refused(kind):
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8)), kind)
    for length in (0, 1, 20, len(data) // 2, len(data) - 30):
        with pytest.raises(UnusableImageError):
            load_image(data[:length])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_images_are_refused_or_give_pixels(data):
    kind, mode = data.draw(
        st.sampled_from([("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "RGB"), ("BMP", "P")])
    )
    content = bytearray(encode(Image.new(mode, (9, 7), 3), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(UnusableImageError):
            assert load_image(bytes(content), max_pixels=10_000).width

"""Images of anybody's: their format and their size in pixels are looked at before a pixel is decoded."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from icre_jax.errors import InputError
from icre_jax.files.regular import read_bytes

FORMATS = ("JPEG", "PNG", "BMP")
MOST_BYTES = 64 * 2**20  # a crop of one person has a few kilobytes
MAX_PIXELS = 25_000_000
# Of more than this, Pillow warns by itself, and of twice as many it refuses.
HIGHEST_MAX_PIXELS = 89_000_000


class UnusableImageError(InputError):
    """No image can be had of these bytes; the message says why, and knows of no file."""


def require_max_pixels(value: int, name: str) -> int:
    """The limit that a user gave under `name`.

    Raises:
      InputError: it is not from 1 to `HIGHEST_MAX_PIXELS`.
    """
    if type(value) is not int or not 1 <= value <= HIGHEST_MAX_PIXELS:
        raise InputError(f"{name} is {value!r}; a whole number from 1 to {HIGHEST_MAX_PIXELS:,} is needed.")
    return value


def read_image(path: Path) -> bytes:
    """The bytes of an image file, or of anything else: nothing is decoded.

    Raises:
      UnreadableError: it is no regular file, or larger than an image of a person.
    """
    return read_bytes(path, most_bytes=MOST_BYTES)


def load_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image that a file holds, decoded whole: a truncated one is found here.

    Args:
      data: the bytes of an image file, or of anything else.
      max_pixels: an image of more is refused by its header, before memory is taken for it.

    Raises:
      UnusableImageError: they are of another format, damaged, too large, or hold several images.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height <= max_pixels and (num_images := getattr(image, "n_frames", 1)) == 1:
            image.load()
            image.getexif()  # kept: it is parsed here, where whatever it raises is caught
            return image
    except Exception as error:  # hostile bytes: a decoder may raise anything
        raise UnusableImageError(_describe(data, error, max_pixels)) from error
    if image.width * image.height > max_pixels:
        raise UnusableImageError(f"{image.width} x {image.height} pixels; at most {max_pixels:,} in all are allowed")
    raise UnusableImageError(f"{num_images} images in one file; store the one that is meant")


def _describe(data: bytes, error: Exception, max_pixels: int) -> str:
    if not data:
        return "empty file"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {HIGHEST_MAX_PIXELS:,} pixels; at most {max_pixels:,} in all are allowed"
    # Pillow's message names the buffer's address, which differs from run to run.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = f"no {', '.join(FORMATS)} file" if unknown else str(error) or type(error).__name__
    return f"not readable ({reason})"

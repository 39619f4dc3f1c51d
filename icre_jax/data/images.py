"""From stored bytes to pixels, and what is wrong with a file that gives none.

Pillow decodes, always: with a second decoder the pixels would depend on what happens to be installed.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

_ORIENTATION_TAG = 0x0112


def decode(data: bytes, image_size: tuple[int, int]) -> np.ndarray:
    """Decode one picture and resize it (bilinear).

    Args:
      data: the bytes of an image file.
      image_size: (height, width) in pixels.

    Returns:
      [height, width, 3] uint8.
    """
    height, width = image_size
    with Image.open(io.BytesIO(data)) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def find_defect(data: bytes) -> str | None:
    """Why a file cannot be used as a picture of a person; None if it can.

    Every pixel is decoded, so a truncated file is found here and not in the middle of a training run.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode not in ("RGB", "L"):
                return f"colour mode {image.mode}; allowed are RGB and L (8-bit grey)"
            # Stored bytes are decoded as they are: a rotation tag would be ignored without a word.
            if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
                return "an EXIF rotation tag; store the picture upright, without the tag"
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        return f"not readable ({error})" if data else "empty file"
    return None

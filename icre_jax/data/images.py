"""From stored bytes to pixels, and what is wrong with a file that gives none.

Pillow decodes, always: with a second decoder the pixels would depend on what happens to be installed. What is taken:

    JPEG, PNG, BMP    any other format is refused
    RGB, 8-bit grey   as they are; grey fills all three channels
    palette           its colours are looked up
    16-bit grey       stretched to 8 bits, each image by itself: a thermal sensor's counts fill a small part of the 16
                      bits, and not the same one every day, so that a fixed scale would give a nearly black image
    alpha             dropped where the image is opaque; refused where it is not, as nobody knows what lies below
    EXIF rotation     refused: whether the pixels were turned already cannot be known, as tools that crop a person
                      out of a photograph often copy the tag with the upright crop
"""

import io

import numpy as np
from PIL import Image

from icre_jax.files.images import HIGHEST_MAX_PIXELS, MAX_PIXELS, UnusableImageError, load_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_ORIENTATION_TAG = 0x0112
# Pillow's names for 16-bit grey: of the file's byte order, and 32 bits wide as some of its versions read PNG.
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I")
_ALPHA_MODES = ("RGBA", "LA", "PA")
# Share of the pixels that 16-bit scaling lets fall at either end: dead and hot pixels must not set the scale.
_OUTLIERS = 0.005


def decode(data: bytes, image_size: tuple[int, int]) -> np.ndarray:
    """Decode one image and resize it (bilinear).

    Args:
      data: the bytes of an image file in which `find_defect` finds nothing.
      image_size: (height, width) in pixels.

    Returns:
      [height, width, 3] uint8.

    Raises:
      UnusableImageError: it is damaged.
    """
    return _to_pixels(load_image(data, max_pixels=HIGHEST_MAX_PIXELS), image_size)


def decode_checked(data: bytes, image_size: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> np.ndarray | str:
    """`decode` of bytes that nobody has looked at yet: the pixels, or why there are none, as `find_defect` says it.

    Args:
      data: the bytes of an image file, or of anything else.
      image_size: (height, width) in pixels.
      max_pixels: an image of more is refused by its header, before memory is taken for it.
    """
    try:
        image = load_image(data, max_pixels=max_pixels)
    except UnusableImageError as error:
        return str(error)
    return find_image_defect(image) or _to_pixels(image, image_size)


def resize(pixels: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels [h, w, 3] uint8 -> [height, width, 3] uint8, as `decode` gives them of a file that holds these pixels."""
    return _to_pixels(Image.fromarray(pixels), image_size)


def store_resized(data: bytes, image_size: tuple[int, int]) -> bytes:
    """The image as `decode` gives it, as the bytes of a file that gives the same again: nothing more is lost.

    BMP, not PNG: it is larger, but reading it is a copy.
    """
    file = io.BytesIO()
    Image.fromarray(decode(data, image_size)).save(file, format="BMP")
    return file.getvalue()


def find_defect(data: bytes, *, max_pixels: int = MAX_PIXELS) -> str | None:
    """Why a file cannot be used as an image of a person; None if it can; arguments as of `decode_checked`.

    Every pixel is decoded, so a truncated file is found here and not in the middle of a training run.
    """
    try:
        return find_image_defect(load_image(data, max_pixels=max_pixels))
    except UnusableImageError as error:
        return str(error)


def find_image_defect(image: Image.Image) -> str | None:
    """The part of `find_defect` that looks at an image whose pixels could be read."""
    if image.mode not in ("RGB", "L", "P", *_DEEP_MODES, *_ALPHA_MODES):
        return f"colour mode {image.mode}; allowed are RGB, 8-bit and 16-bit grey, palette, and opaque alpha"
    # The tag would be ignored without a word.
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        return "an EXIF rotation tag; store the image upright, without the tag"
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            return "transparent pixels; store the image on the background it shall have, without alpha"
    return None


def _to_pixels(image: Image.Image, image_size: tuple[int, int]) -> np.ndarray:
    height, width = image_size
    # Grey is resized as it is, before it fills three channels: the same pixels for a third of the work.
    pixels = image if image.mode == "L" else _to_rgb(image)
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(_to_rgb(pixels), dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode not in _DEEP_MODES:
        return image.convert("RGB")
    counts = np.asarray(image, dtype=np.float32)
    low, high = np.quantile(counts, (_OUTLIERS, 1 - _OUTLIERS))
    # A flat image has no contrast to stretch and becomes black.
    scaled = (counts - low) * (255 / max(high - low, 1))
    return Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8)).convert("RGB")

"""Images of anybody's, files or pixels, to batches; what cannot be used is named, all of it at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from icre_jax.data.images import decode_checked, resize
from icre_jax.errors import UnreadableError, UnusableImagesError
from icre_jax.files.images import HIGHEST_MAX_PIXELS, MAX_PIXELS, read_image

# What one item may be: a file, or pixels [H, W, 3] uint8.
ImageLike = str | Path | np.ndarray
ANY_SIZE = HIGHEST_MAX_PIXELS  # of images that a user has let in already


def read_batches(
    images: Sequence[ImageLike] | np.ndarray,
    image_size: tuple[int, int],
    batch_size: int,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[np.ndarray]:
    """Every image once and in order.

    Args:
      images: files, or pixels [h, w, 3] uint8 of any size.
      image_size: (height, width) that all are resized to.
      batch_size: of a batch; the last may be shorter.
      max_pixels: of a file; one of more cannot be used.

    Returns:
      An iterator over [B, height, width, 3] uint8. From the first image on that cannot be used it gives no more, but
      looks at all others before it raises.

    Raises:
      UnusableImagesError: naming every image that cannot be used.
    """
    findings: list[str] = []

    def read(number: int) -> np.ndarray | str:
        return _read(images[number], number, image_size, max_pixels)

    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter lock while it decodes
        for start in range(0, len(images), batch_size):
            found = list(pool.map(read, range(start, min(start + batch_size, len(images)))))
            findings += [words for words in found if isinstance(words, str)]
            if not findings:
                yield np.stack([pixels for pixels in found if isinstance(pixels, np.ndarray)])
    if findings:
        raise UnusableImagesError(findings, len(images))


def _read(image: ImageLike, number: int, image_size: tuple[int, int], max_pixels: int) -> np.ndarray | str:
    """The pixels, or what is wrong."""
    if isinstance(image, str | Path):
        pixels = decode_file(Path(image), image_size, max_pixels)
        return pixels if isinstance(pixels, np.ndarray) else f"{image}: {pixels}"
    if not isinstance(image, np.ndarray):
        return f"images[{number}]: a {type(image).__name__}; a path or a NumPy array is needed"
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        return f"images[{number}]: {image.dtype} {list(image.shape)}; uint8 [H, W, 3], RGB from 0 to 255, is needed"
    return resize(image, image_size)


def decode_file(path: Path, image_size: tuple[int, int], max_pixels: int) -> np.ndarray | str:
    """`decode_checked` of a file: the pixels, or why there are none."""
    try:
        return decode_checked(read_image(path), image_size, max_pixels=max_pixels)
    except UnreadableError as error:
        return error.reason

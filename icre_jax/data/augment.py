"""Training augmentation on uint8 images (docs/method.md, Training recipe; docs/protocols.md, section 4).

Every function takes its randomness as a NumPy generator and returns a new image; the pipeline seeds the generator
from the position in the plan.
"""

import math

import numpy as np

# ImageNet mean in 8-bit steps: what erased pixels become, so that they are 0 after normalisation.
ERASED = np.array([124, 116, 104], dtype=np.uint8)
_LUMINANCE = np.array([0.2989, 0.5870, 0.1140], dtype=np.float32)


def pad_and_crop(image: np.ndarray, rng: np.random.Generator, *, pad: int) -> np.ndarray:
    """Shift [H, W, 3] by up to `pad` pixels each way; black comes in at the edges."""
    down, right = (pad - rng.integers(0, 2 * pad + 1, size=2)).tolist()
    height, width, _ = image.shape
    shifted = np.zeros_like(image)
    # An image may be smaller than its padding.
    to = slice(max(down, 0), max(height + min(down, 0), 0)), slice(max(right, 0), max(width + min(right, 0), 0))
    source = slice(max(-down, 0), max(height - max(down, 0), 0)), slice(max(-right, 0), max(width - max(right, 0), 0))
    shifted[to] = image[source]
    return shifted


def flip(image: np.ndarray, rng: np.random.Generator, *, probability: float) -> np.ndarray:
    """Mirror left and right with the given probability."""
    return image[:, ::-1] if rng.random() < probability else image


def exchange_channels(image: np.ndarray, rng: np.random.Generator, *, probability: float) -> np.ndarray:
    """Channel augmentation of a visible image: with `probability`, R, G, B or gray (even odds) fills all channels."""
    if rng.random() >= probability:
        return image
    choice = int(rng.integers(4))
    channel = image[:, :, choice] if choice < 3 else np.rint(image @ _LUMINANCE).astype(np.uint8)
    return np.repeat(channel[:, :, None], 3, axis=2)


def erase(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> np.ndarray:
    """Random erasing: with `probability`, one rectangle becomes the ImageNet mean.

    Args:
      image: [H, W, 3] uint8.
      rng: source of randomness.
      probability: of erasing at all.
      area: smallest and largest share of the image.
      aspect: smallest and largest height / width; drawn evenly on a logarithmic scale.

    Returns:
      [H, W, 3] uint8; unchanged if ten drawn rectangles did not fit.
    """
    if rng.random() >= probability:
        return image
    height, width, _ = image.shape
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < h <= height and 0 < w <= width:
            top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            erased = image.copy()
            erased[top : top + h, left : left + w] = ERASED
            return erased
    return image

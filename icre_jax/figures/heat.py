"""A map of a network over the image it was made from, as pixels: for figures, notebooks and pages."""

import functools

import numpy as np
from PIL import Image

# Perceptually uniform, and the same order of brightness for every kind of colour vision.
HEAT_COLORS = "inferno"


def lay_over(
    image: np.ndarray,
    heat: np.ndarray,
    *,
    low: float = 0.0,
    high: float | None = None,
    strength: float = 0.6,
    smooth: bool = True,
) -> np.ndarray:
    """Colours over the grey image: dark where `heat` is low, bright yellow where it is high.

    Args:
      image: [H, W, 3] uint8.
      heat: [h, w], finite; enlarged to the image.
      low, high: the values of the darkest and the brightest colour; what lies beyond is cut off. None for the largest
        value of `heat`, so that heat of different images cannot be compared.
      strength: share of the colours, from 0, the grey image, to 1.
      smooth: between the places of `heat`; otherwise each is a tile.

    Returns:
      [H, W, 3] uint8.

    Example:
      >>> import numpy as np
      >>> from icre_jax.figures.heat import lay_over
      >>> lay_over(np.zeros((96, 48, 3), np.uint8), np.eye(6, 3)).shape
      (96, 48, 3)
    """
    top = float(np.max(heat)) if high is None else high
    scaled = (np.asarray(heat, np.float32) - low) / max(top - low, 1e-12)
    large = Image.fromarray(scaled).resize(
        image.shape[1::-1], Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    )
    colors = _colors()[np.clip(np.asarray(large) * 255, 0, 255).astype(np.uint8)]
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    return ((1 - strength) * grey + strength * colors).round().astype(np.uint8)


@functools.cache
def _colors() -> np.ndarray:
    """[256, 3] of 0 to 255."""
    import matplotlib  # here: it takes half a second

    return matplotlib.colormaps[HEAT_COLORS](np.arange(256))[:, :3] * 255

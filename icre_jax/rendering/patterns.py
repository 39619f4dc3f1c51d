"""Pattern geometry on a textile, in centimetres: which of a garment's three materials lies where.

All arrays are [128, 128] (`PAGE`): rows are centimetres from the top, columns the angle around, 64 at the front.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from icre_jax.rendering.draws import Draws, Stream
from icre_jax.rendering.person import Garment, Print
from icre_jax.rendering.raster import PAGE

ROW = np.arange(PAGE, dtype=np.float64)[:, None]
ANGLE = np.arange(PAGE, dtype=np.float64)[None, :] - PAGE // 2  # texels from the front, -64 to 63
SIDE = np.abs(ANGLE)  # 0 front, 32 side, 64 back
# 3 x 5 digits, five rows of three bits.
_DIGITS = (
    (7, 5, 5, 5, 7),
    (2, 6, 2, 2, 7),
    (7, 1, 7, 4, 7),
    (7, 1, 7, 1, 7),
    (5, 5, 7, 1, 1),
    (7, 4, 7, 1, 7),
    (7, 4, 7, 5, 7),
    (7, 1, 2, 2, 2),
    (7, 5, 7, 5, 7),
    (7, 5, 7, 1, 7),
)


def cover(garment: Garment, circumference: float, blot: int) -> np.ndarray:
    """The garment's pattern wrapped around a part of this circumference (cm): uint8 in {0, 1, 2}.

    blot: which of the blotched textures camouflage is cut from.
    """
    repeats = max(2.0, float(round(circumference / garment.pitch)))
    along = (ROW + garment.phase) / garment.pitch
    around = ANGLE * (repeats / PAGE) + 0 * ROW
    duty = garment.duty
    start = 14 + garment.phase * 0.6  # 14 to 38 cm below the collar
    rules: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: np.zeros((PAGE, PAGE), bool),
        "hoops": lambda: _repeat(along) < duty,
        "vertical": lambda: _repeat(around) < duty,
        "diagonal": lambda: _repeat(around + along) < duty,
        "checks": lambda: (_repeat(along) < duty) * 1 + (_repeat(around) < duty),
        "dots": lambda: _dots(around, along, duty),
        "block": lambda: start > ROW + 0 * ANGLE,
        "band": lambda: np.abs(ROW - start + 0 * ANGLE) < garment.pitch * 0.55,
        "sides": lambda: (np.abs(SIDE - PAGE / 4) < 12) & (ROW >= 0),
        "halves": lambda: (ANGLE < 0) & (ROW >= 0),
        "camouflage": lambda: (blots(blot) < 108) * 1 + (blots(blot) < 84),
        "zigzag": lambda: _repeat(along + np.abs(_repeat(around) - 0.5)) < duty,
        "diamonds": lambda: np.abs(_repeat(around) - 0.5) + np.abs(_repeat(along / 1.5) - 0.5) < 0.2 + 0.4 * duty,
        "dipped": lambda: 20 + garment.phase * 0.5 < ROW + 0 * ANGLE,
        "side stripe": lambda: (np.abs(SIDE - PAGE / 4) < 7) & (ROW >= 0),
        "knees": lambda: (np.abs(ROW - 48) < 8) & (SIDE < 26),
    }
    return rules[garment.pattern]().astype(np.uint8)


def motif(shape: Print, circumference: float, at_back: bool) -> np.ndarray:
    """Where a print covers the textile: bool."""
    x = ANGLE * (circumference / PAGE)
    if at_back:
        # Mirrored by walking around the body: the left side of the back is the right side of the image.
        x = np.where(x < 0, x + circumference / 2, x - circumference / 2)
    x = x / (shape.size / 2)
    y = (ROW - shape.down) / (shape.size / 2)
    radius = x * x + y * y
    box = np.maximum(np.abs(x), np.abs(y))
    rules: dict[str, Callable[[], np.ndarray]] = {
        "none": lambda: np.zeros((PAGE, PAGE), bool),
        "disc": lambda: radius < 0.8,
        "ring": lambda: (radius < 0.95) & (radius > 0.3),
        "square": lambda: box < 0.8,
        "cross": lambda: (box < 0.95) & (np.minimum(np.abs(x), np.abs(y)) < 0.28),
        "triangle": lambda: (np.abs(y) < 0.9) & (np.abs(x) < (y + 0.9) / 1.8),
        "bars": lambda: (box < 0.95) & (_repeat(y * 1.3 + 0.28) < 0.55),
        "chevron": lambda: (box < 1) & (np.abs(y + 0.4 - np.abs(x) * 0.8) < 0.3),
        "text": lambda: (np.abs(y) < 0.28) & (np.abs(x) < 1.15) & (_repeat(x * 2.4) < 0.72),
        "number": lambda: _number(x, y, shape.number),
    }
    return rules[shape.motif]()


@lru_cache(maxsize=64)
def blots(index: int) -> np.ndarray:
    """Smooth blotches that join up around the part, mean about 96 and range about 30-170: uint8 [128, 128], cached."""
    coarse = Draws(Stream.FOLDS, 0, index).rng.integers(0, 192, (12, 12), dtype=np.uint8)
    return _enlarge(coarse)


@lru_cache(maxsize=64)
def folds(index: int) -> np.ndarray:
    """Brightness of draped cloth, 128 is flat: uint8 [128, 128], cached."""
    rng = Draws(Stream.FOLDS, 1, index).rng
    wide = _enlarge(rng.integers(64, 192, (10, 8), dtype=np.uint8)).astype(np.int32)
    fine = _enlarge(rng.integers(64, 192, (26, 16), dtype=np.uint8)).astype(np.int32)
    both = (wide - 128) * 3 // 10 + (fine - 128) * 3 // 10
    # Creases run obliquely: every row is moved by half its number.
    rows = np.arange(PAGE)
    slanted = both[rows[:, None], (np.arange(PAGE)[None, :] + rows[:, None] // 2) % PAGE]
    return np.clip(slanted + 128, 96, 154).astype(np.uint8)


def _repeat(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _dots(around: np.ndarray, along: np.ndarray, duty: float) -> np.ndarray:
    odd = np.floor(along) % 2
    dx, dy = _repeat(around + odd / 2) - 0.5, _repeat(along) - 0.5
    return dx * dx + dy * dy < 0.05 + 0.13 * duty


def _number(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    mask = np.zeros((PAGE, PAGE), bool)
    for digit, left in ((number // 10, -1.0), (number % 10, 0.12)):
        column = np.floor((x - left) / 0.3)
        row = np.floor((y + 1) / 0.4)
        for i, bits in enumerate(_DIGITS[digit]):
            for j in range(3):
                if bits >> (2 - j) & 1:
                    mask |= (row == i) & (column == j)
    return mask


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    """Bicubic, periodic in the columns: the coarse grid is repeated before and cut after."""
    tiled = Image.fromarray(np.concatenate([coarse, coarse, coarse], axis=1))
    large = tiled.resize((3 * PAGE, PAGE), Image.Resampling.BICUBIC)
    return np.asarray(large)[:, PAGE : 2 * PAGE]

"""Stamps of tapered, shaded tubes into one buffer: which texel of the atlas each pixel sees, and how it is lit.

Only + - * / and sqrt on floats (exact under IEEE 754, hence the same on every machine), rounding and integer tables.
Angles are integers in 1/1024 of a turn.

A part covers some 1,000 pixels, so a call of NumPy costs as much as what it computes: texel and light share one
integer, which is looked up and written at once, and a stamp stays within the rows and columns that it can touch.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

TURN = 1024
PAGE = (
    128  # texels per side of one atlas page: u is the angle around the part (64 = front), v is centimetres from its top
)
LIGHT_ONE = 128  # the value of `light` that leaves a colour as it is
TEXEL_BITS = 18  # of a pixel of the canvas, enough for 16 pages; its light is in the bits above
_STEPS = 128  # resolution of the tables over s, the position across a part in [-1, 1]

# As scalars of their type, for which NumPy has the shortest way.
_ZERO, _ONE, _FREE_OF_THE_JOINT, _MIDDLE = (np.float32(value) for value in (0, 1, 0.3, _STEPS + 0.5))
_LIGHT, _QUARTER = np.int32(1 << TEXEL_BITS), np.int32(TEXEL_BITS + 2)

SINE = tuple(round(math.sin(2 * math.pi * i / TURN) * 65536) / 65536 for i in range(TURN))


def sin_turn(angle: int) -> float:
    """Sine of an angle in 1/1024 turns, from a table."""
    return SINE[angle % TURN]


def cos_turn(angle: int) -> float:
    """Cosine of an angle in 1/1024 turns, from a table."""
    return SINE[(angle + TURN // 4) % TURN]


@cache
def _around() -> np.ndarray:
    """Texels from the axis, for s in [-1, 1]: the surface turns away towards the outline. int32 [257]."""
    return np.array([round(math.asin(i / _STEPS) / (2 * math.pi) * PAGE) for i in range(-_STEPS, _STEPS + 1)], np.int32)


@cache
def _normals() -> tuple[np.ndarray, np.ndarray]:
    across = np.arange(-_STEPS, _STEPS + 1) / _STEPS
    return across, np.sqrt(1 - across * across)


def light_table(ambient: float, diffuse: float, sideways: float) -> np.ndarray:
    """Brightness over s in [-1, 1], as the upper bits of a pixel of the canvas. int32 [257].

    `ambient` is above 0, and `sideways` is where the light comes from, -1 left to 1 right.
    """
    across, towards = _normals()
    facing = across * sideways + towards * (1 - abs(sideways) / 2)
    light = np.rint(LIGHT_ONE * (ambient + diffuse * np.maximum(facing, 0)))
    return light.astype(np.int32) << TEXEL_BITS


@dataclass
class Canvas:
    """pixels: int32 [W, H], light << TEXEL_BITS | index into the flattened atlas, 0 where nothing is drawn.

    Columns lie one after the other, as people and their limbs are tall, and NumPy is fast along what is long.
    What is drawn is never 0: all has some light, and a shadow leaves three quarters of it, rounded up.
    """

    pixels: np.ndarray

    @classmethod
    def empty(cls, height: int, width: int) -> "Canvas":
        """A canvas with nothing on it, sizes in pixels."""
        return cls(np.zeros((width, height), np.int32))

    def box(self) -> tuple[slice, slice]:
        """The columns and the rows that hold all that is drawn, from an even number to an even one."""
        sides = []
        for axis in (1, 0):
            touched = np.flatnonzero(np.bitwise_or.reduce(self.pixels, axis=axis)) // 2
            sides.append(slice(2 * int(touched[0]), 2 * int(touched[-1]) + 2) if len(touched) else slice(0, 0))
        return sides[0], sides[1]


def cut_stencil(page: int, turn: int, table: np.ndarray) -> np.ndarray:
    """Pixels of row 0 over s in [-1, 1], for a part seen from this angle (1/1024 turns) in this light. int32 [257]."""
    return _columns(page, turn) + table


@lru_cache(maxsize=4096)
def _columns(page: int, turn: int) -> np.ndarray:
    """Texel of row 0 over s in [-1, 1], for a part seen from this angle. int32 [257]."""
    return ((_around() + (PAGE // 2 + turn * PAGE // TURN)) & (PAGE - 1)) + page * PAGE * PAGE


def stamp_limb(
    canvas: Canvas,
    start: tuple[float, float],
    end: tuple[float, float],
    radii: tuple[float, float],
    rows: tuple[float, float],
    stencil: np.ndarray,
    shadow: float = 0.0,
) -> None:
    """A round-ended tapered tube from start to end (x, y in pixels).

    rows: texture rows at start and end; stencil: `cut_stencil` of the part; shadow: width in pixels of the darkened
    rim that the tube throws on what is behind it.
    """
    width, height = canvas.pixels.shape
    dx, dy = end[0] - start[0], end[1] - start[1]
    # A tube seen end-on keeps a short axis, so that t is defined; it may fill its box, which has a margin.
    length = max(math.sqrt(dx * dx + dy * dy), 0.5)
    first, last = (radii[0] + shadow, radii[1] + shadow) if length > 0.5 else (max(radii) + shadow + 1,) * 2
    left = max(0, int(min(start[0] - first, end[0] - last)))
    right = min(width, int(max(start[0] + first, end[0] + last)) + 1)
    top = max(0, int(min(start[1] - first, end[1] - last)))
    bottom = min(height, int(max(start[1] + first, end[1] + last)) + 1)
    if left >= right or top >= bottom:
        return
    x = (np.arange(left, right, dtype=np.float32) + (0.5 - start[0]))[:, None]
    y = np.arange(top, bottom, dtype=np.float32) + (0.5 - start[1])
    ax, ay = dx / length, dy / length
    along = x * ax + y * ay
    across = y * ax - x * ay
    t = (along * (1 / length)).clip(_ZERO, _ONE)
    radius = t * (radii[1] - radii[0])
    radius += radii[0]
    along -= t * length  # beyond the ends
    distance = across * across
    distance += along * along
    pixels = canvas.pixels[left:right, top:bottom]
    if shadow:
        rim = radius + shadow
        rim *= rim
        # None around the joint, where sleeve and shoulder are one piece.
        _darken(pixels, (distance <= rim) & (t > _FREE_OF_THE_JOINT))
    # Downward parts have their right-hand side at negative `across`; s grows to the right of the screen.
    across /= radius
    across *= -_STEPS if dy >= 0 else _STEPS
    across += _MIDDLE
    t *= rows[1] - rows[0]
    t += rows[0] + 0.5
    texel = t.astype(np.int32)
    texel *= PAGE
    # Outside the tube the step may be out of range; "clip" is cheaper than a mask.
    texel += stencil.take(across.astype(np.intp), mode="clip")
    radius *= radius
    np.copyto(pixels, texel, where=distance <= radius)


def stamp_column(
    canvas: Canvas,
    nodes: list[tuple[float, float, float, float]],
    stencil: np.ndarray,
    shadow: float = 0.0,
) -> None:
    """An upright shape of changing width through nodes (y, centre x, half width, texture row), y ascending, pixels."""
    width, height = canvas.pixels.shape
    top, bottom = max(0, int(nodes[0][0])), min(height, int(nodes[-1][0]) + 1)
    if top >= bottom:
        return
    centre, half, row = _smooth_profile(np.arange(top, bottom) + 0.5, nodes)
    half = np.maximum(half, 0.01)
    left = max(0, int(np.minimum.reduce(centre - half) - shadow))
    right = min(width, int(np.maximum.reduce(centre + half) + shadow) + 1)
    if left >= right:
        return
    x = np.arange(left, right, dtype=np.float32) + 0.5
    offset = x[:, None] - centre.astype(np.float32)
    half32 = half.astype(np.float32)
    distance = np.abs(offset)
    pixels = canvas.pixels[left:right, top:bottom]
    if shadow:
        _darken(pixels, distance <= half32 + shadow)
    offset /= half32
    offset *= _STEPS
    offset += _MIDDLE
    texel = stencil.take(offset.astype(np.intp), mode="clip")
    texel += np.minimum(np.maximum(row + 0.5, 0), PAGE - 1).astype(np.int32) * PAGE
    np.copyto(pixels, texel, where=distance <= half32)


def _darken(pixels: np.ndarray, where: np.ndarray) -> None:
    """Takes a quarter of the light, rounded down, from what is drawn there."""
    quarter = pixels >> _QUARTER
    quarter *= where * _LIGHT
    pixels -= quarter


def _smooth_profile(
    y: np.ndarray, nodes: list[tuple[float, float, float, float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Catmull-Rom through the half widths, straight lines through centres and rows. Each float64 [len(y)]."""
    pieces = []
    for i in range(len(nodes) - 1):
        (low, centre, p0, row), (high, next_centre, p1, next_row) = nodes[i], nodes[i + 1]
        before, after = nodes[max(i - 1, 0)][2], nodes[min(i + 2, len(nodes) - 1)][2]
        bends = p1 - before, 2 * before - 5 * p0 + 4 * p1 - after, 3 * (p0 - p1) + after - before
        lines = centre, next_centre - centre, row, next_row - row
        pieces.append((low, max(high - low, 1e-6), *lines, p0, min(p0, p1) * 0.8, *bends))
    which = np.array([node[0] for node in nodes[1:-1]]).searchsorted(y)
    low, tall, centre, shift, row, rise, half, least, c1, c2, c3 = np.array(pieces).take(which, axis=0).T
    t = np.minimum(np.maximum((y - low) / tall, 0), 1)
    half = half + 0.5 * t * (c1 + t * (c2 + t * c3))
    return centre + shift * t, np.maximum(half, least), row + rise * t

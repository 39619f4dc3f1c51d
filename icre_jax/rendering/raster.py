"""Stamps of tapered, shaded tubes into one buffer: which texel of the atlas each pixel sees, and how it is lit.

Only + - * / and sqrt on floats (exact under IEEE 754, hence the same on every machine), rounding and integer tables.
Angles are integers in 1/1024 of a turn.
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
_STEPS = 128  # resolution of the tables over s, the position across a part in [-1, 1]

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
    """Brightness over s in [-1, 1]; `sideways` is where the light comes from, -1 left to 1 right. int16 [257]."""
    across, towards = _normals()
    facing = across * sideways + towards * (1 - abs(sideways) / 2)
    return np.rint(LIGHT_ONE * (ambient + diffuse * np.maximum(facing, 0))).astype(np.int16)


@dataclass
class Canvas:
    """texel: int32 [H, W], index into the flattened atlas, -1 where nothing is drawn; light: int16 [H, W]."""

    texel: np.ndarray
    light: np.ndarray

    @classmethod
    def empty(cls, height: int, width: int) -> "Canvas":
        """A canvas with nothing on it, sizes in pixels."""
        return cls(np.full((height, width), -1, np.int32), np.zeros((height, width), np.int16))


def stamp_limb(
    canvas: Canvas,
    start: tuple[float, float],
    end: tuple[float, float],
    radii: tuple[float, float],
    page: int,
    rows: tuple[float, float],
    turn: int,
    table: np.ndarray,
    shadow: float = 0.0,
) -> None:
    """A round-ended tapered tube from start to end (x, y in pixels).

    rows: texture rows at start and end; turn: viewing angle of the part, 1/1024 turns; table: `light_table`;
    shadow: width in pixels of the darkened rim that the tube throws on what is behind it.
    """
    height, width = canvas.texel.shape
    reach = max(radii) + shadow + 1
    left, right = max(0, int(min(start[0], end[0]) - reach)), min(width, int(max(start[0], end[0]) + reach) + 1)
    top, bottom = max(0, int(min(start[1], end[1]) - reach)), min(height, int(max(start[1], end[1]) + reach) + 1)
    if left >= right or top >= bottom:
        return
    dx, dy = end[0] - start[0], end[1] - start[1]
    # A tube seen end-on keeps a short axis, so that t is defined.
    length = max(math.sqrt(dx * dx + dy * dy), 0.5)
    x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - start[0]))[None, :]
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - start[1]))[:, None]
    ax, ay = np.float32(dx / length), np.float32(dy / length)
    along = x * ax + y * ay
    across = y * ax - x * ay
    t = (along * np.float32(1 / length)).clip(np.float32(0), np.float32(1))
    radius = np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    beyond = along - t * np.float32(length)
    distance = across * across + beyond * beyond
    inside = distance <= radius * radius
    texel, light = canvas.texel[top:bottom, left:right], canvas.light[top:bottom, left:right]
    if shadow:
        rim = radius + np.float32(shadow)
        # None around the joint, where sleeve and shoulder are one piece.
        _darken(light, (distance <= rim * rim) & (t > np.float32(0.3)))
    # Downward parts have their right-hand side at negative `across`; s grows to the right of the screen.
    sign = -1 if dy >= 0 else 1
    step = (across / radius * np.float32(sign * _STEPS) + np.float32(_STEPS + 0.5)).astype(np.intp)
    row = (np.float32(rows[0] + 0.5) + t * np.float32(rows[1] - rows[0])).astype(np.int32)
    # Outside the tube the step may be out of range; "clip" is cheaper than a mask.
    np.copyto(texel, row * PAGE + _columns(page, turn).take(step, mode="clip"), where=inside)
    np.copyto(light, table.take(step, mode="clip"), where=inside)


def stamp_column(
    canvas: Canvas,
    nodes: list[tuple[float, float, float, float]],
    page: int,
    turn: int,
    table: np.ndarray,
    shadow: float = 0.0,
) -> None:
    """An upright shape of changing width through nodes (y, centre x, half width, texture row), y ascending, pixels."""
    height, width = canvas.texel.shape
    top, bottom = max(0, int(nodes[0][0])), min(height, int(nodes[-1][0]) + 1)
    if top >= bottom:
        return
    y = np.arange(top, bottom) + 0.5
    centre, half, row = _smooth_profile(y, nodes)
    reach = float(half.max()) + shadow + 1
    left, right = max(0, int(centre.min() - reach)), min(width, int(centre.max() + reach) + 1)
    if left >= right:
        return
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5)
    offset = x[None, :] - centre.astype(np.float32)[:, None]
    half32 = np.maximum(half, 0.01).astype(np.float32)[:, None]
    distance = np.abs(offset)
    inside = distance <= half32
    texel, light = canvas.texel[top:bottom, left:right], canvas.light[top:bottom, left:right]
    if shadow:
        _darken(light, distance <= half32 + np.float32(shadow))
    step = (offset / half32 * np.float32(_STEPS) + np.float32(_STEPS + 0.5)).astype(np.intp)
    rows = np.minimum(np.maximum(row + 0.5, 0), PAGE - 1).astype(np.int32)[:, None]
    np.copyto(texel, rows * PAGE + _columns(page, turn).take(step, mode="clip"), where=inside)
    np.copyto(light, table.take(step, mode="clip"), where=inside)


def _darken(light: np.ndarray, where: np.ndarray) -> None:
    np.copyto(light, light - (light >> np.int16(2)), where=where)


@lru_cache(maxsize=4096)
def _columns(page: int, turn: int) -> np.ndarray:
    """Texel of row 0 over s in [-1, 1], for a part seen from this angle. int32 [257]."""
    return ((_around() + (PAGE // 2 + turn * PAGE // TURN)) & (PAGE - 1)) + page * PAGE * PAGE


def _smooth_profile(
    y: np.ndarray, nodes: list[tuple[float, float, float, float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Catmull-Rom through the half widths, straight lines through centres and rows. Each float64 [len(y)]."""
    table = np.array(nodes)
    i = np.clip(np.searchsorted(table[:, 0], y) - 1, 0, len(nodes) - 2)
    low, high = table[i], table[i + 1]
    t = np.clip((y - low[:, 0]) / np.maximum(high[:, 0] - low[:, 0], 1e-6), 0, 1)
    linear = low + (high - low) * t[:, None]
    before, after = table[np.maximum(i - 1, 0), 2], table[np.minimum(i + 2, len(nodes) - 1), 2]
    p0, p1 = low[:, 2], high[:, 2]
    half = p0 + 0.5 * t * (
        p1 - before + t * (2 * before - 5 * p0 + 4 * p1 - after + t * (3 * (p0 - p1) + after - before))
    )
    return linear[:, 1], np.maximum(half, np.minimum(p0, p1) * 0.8), linear[:, 3]

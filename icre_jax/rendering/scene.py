"""Places behind people, and things in front of them. Geometry is shared by both spectra, brightness is not."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from icre_jax.rendering.camera import Camera
from icre_jax.rendering.draws import Draws, Stream
from icre_jax.rendering.patterns import blots

_ROOM = 1.25  # a panorama is this much taller than a crop, so that crops differ in height as well


@dataclass(frozen=True)
class _Paint:
    """Collects materials, each with a colour and a reflectance; index 0 is the first."""

    colours: list[tuple[int, int, int]]
    reflectances: list[int]

    def mix(self, draws: Draws, colour: tuple[int, int, int], spread: int = 14) -> int:
        red, green, blue = (min(250, max(5, value + draws.integer(-spread, spread))) for value in colour)
        self.colours.append((red, green, blue))
        self.reflectances.append(draws.integer(60, 190))
        return len(self.colours) - 1


@lru_cache(maxsize=32)
def panorama(seed: int, camera: Camera, height: int, clutter: float) -> np.ndarray:
    """What lies behind people at a camera. uint8 [1.25 height, 5 height, 3] (visible) or [...] without 3 (infrared)."""
    visible, place = camera.modality == "visible", camera.place
    draws = Draws(seed, Stream.PLACE, place)
    tall, wide = round(height * _ROOM), 5 * height
    image = Image.new("L", (wide * 2, tall * 2))
    paint = _Paint([], [])
    (_draw_street if camera.outdoor else _draw_hall)(ImageDraw.Draw(image), paint, draws, wide * 2, tall * 2)
    index = np.asarray(image)
    if visible:
        plane = np.array(paint.colours, np.int32)[index]
    elif camera.thermal:
        # Nothing makes its own warmth: all is about as cold, and differs by what little of the day it has kept.
        plane = 30 + np.array(paint.reflectances, np.int32)[index][..., None] // 5
    else:
        plane = np.array(paint.reflectances, np.int32)[index][..., None]
        # Light from the lamp has further to go: everything behind is darker than the people.
        plane = plane * 3 // 4
    stains = np.tile(blots(place % 64).astype(np.int32), (tall * 2 // 128 + 1, wide * 2 // 128 + 1))[
        : tall * 2, : wide * 2
    ]
    middle = int(plane.mean(dtype=np.int64))
    strength = round(256 * clutter)
    plane = middle + (plane - middle) * strength // 256
    plane = plane * (256 + (stains[..., None] - 96) // 5) // 256
    pixels = np.clip(plane, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels if visible else pixels[..., 0]).reduce(2))


def crop_panorama(seed: int, camera: Camera, size: tuple[int, int], clutter: float, draws: Draws) -> np.ndarray:
    """A window of the place, as a person walks through it. uint8 [H, W, 3] or [H, W]; a copy."""
    height, width = size
    wide = panorama(seed, camera, height, clutter)
    top = draws.integer(0, wide.shape[0] - height)
    left = draws.integer(0, wide.shape[1] - width)
    return wide[top : top + height, left : left + width].copy()


def _draw_hall(draw: ImageDraw.ImageDraw, paint: _Paint, draws: Draws, wide: int, tall: int) -> None:
    tone = draws.integer(120, 200)
    wall = paint.mix(draws, (tone, tone, tone - 8))
    floor = paint.mix(draws, (tone - 40, tone - 46, tone - 56))
    line = paint.mix(draws, (tone - 66, tone - 70, tone - 76))
    skirting = paint.mix(draws, (90, 84, 80))
    ground = round(tall * draws.uniform(0.52, 0.62))
    draw.rectangle((0, 0, wide, ground), fill=wall)
    _draw_floor(draw, floor, line, draws, (wide, tall), ground)
    x = -draws.integer(0, tall // 3)
    while x < wide:
        kind = draws.pick({"door": 3, "pillar": 2, "window": 2, "poster": 3, "bare": 2, "cabinet": 2})
        width = round(tall * draws.uniform(0.14, 0.36))
        first = paint.mix(draws, (draws.integer(60, 190), draws.integer(60, 170), draws.integer(60, 170)), 6)
        second = paint.mix(draws, (draws.integer(30, 220),) * 3, 6)
        if kind == "door":
            draw.rectangle((x, ground - tall * 0.55, x + width, ground), fill=first, outline=line, width=3)
            draw.rectangle((x + width * 0.3, ground - tall * 0.46, x + width * 0.5, ground - tall * 0.2), fill=second)
        elif kind == "pillar":
            draw.rectangle((x, 0, x + width // 2, ground + tall // 40), fill=first)
            draw.rectangle((x + width // 3, 0, x + width // 2, ground + tall // 40), fill=second)
        elif kind == "window":
            draw.rectangle((x, 0, x + width, ground - tall * 0.22), fill=second, outline=line, width=4)
            draw.line((x + width // 2, 0, x + width // 2, ground - tall * 0.22), fill=line, width=4)
        elif kind == "poster":
            up = round(tall * draws.uniform(0.1, 0.25))
            draw.rectangle((x, up, x + width * 0.7, up + width), fill=first, outline=second, width=3)
            draw.rectangle((x + width * 0.15, up + width * 0.2, x + width * 0.5, up + width * 0.4), fill=second)
        elif kind == "cabinet":
            draw.rectangle((x, ground - tall * 0.3, x + width, ground + tall // 30), fill=first, outline=line, width=3)
            draw.line((x, ground - tall * 0.16, x + width, ground - tall * 0.16), fill=line, width=3)
        x += width + round(tall * draws.uniform(0.08, 0.35))
    draw.rectangle((0, ground - tall // 60, wide, ground), fill=skirting)


def _draw_street(draw: ImageDraw.ImageDraw, paint: _Paint, draws: Draws, wide: int, tall: int) -> None:
    tone = draws.integer(110, 170)
    wall = paint.mix(draws, (tone + 10, tone, tone - 14))
    floor = paint.mix(draws, (tone - 20, tone - 20, tone - 22))
    line = paint.mix(draws, (tone - 50, tone - 50, tone - 52))
    glass = paint.mix(draws, (70, 82, 96))
    leaves = [paint.mix(draws, (58, 86, 46), 18) for _ in range(3)]
    for leaf in leaves:  # foliage is bright at 850 nm
        paint.reflectances[leaf] = draws.integer(165, 235)
    ground = round(tall * draws.uniform(0.46, 0.58))
    draw.rectangle((0, 0, wide, ground), fill=wall)
    for x in range(0, wide, tall // 4):
        draw.rectangle((x + tall // 24, 0, x + tall // 6, ground - tall // 5), fill=glass)
    _draw_floor(draw, floor, line, draws, (wide, tall), ground)
    x = -draws.integer(0, tall // 3)
    while x < wide:
        kind = draws.pick({"bush": 3, "tree": 3, "car": 3, "post": 2, "bench": 1, "lawn": 2})
        width = round(tall * draws.uniform(0.2, 0.45))
        first = paint.mix(draws, (draws.integer(40, 210), draws.integer(40, 200), draws.integer(40, 200)), 6)
        if kind in ("bush", "tree"):
            base = ground if kind == "bush" else round(tall * 0.22)
            if kind == "tree":
                draw.rectangle((x + width * 0.45, 0, x + width * 0.55, ground), fill=line)
            for _ in range(16):
                across, cy = x + draws.integer(0, width), base - draws.integer(0, width // 2)
                radius = draws.integer(width // 12, width // 5)
                draw.ellipse(
                    (across - radius, cy - radius, across + radius, cy + radius), fill=leaves[draws.integer(0, 2)]
                )
        elif kind == "car":
            up = ground - tall // 9
            draw.rounded_rectangle((x, up, x + width * 1.5, ground + tall // 40), tall // 40, fill=first)
            draw.rounded_rectangle((x + width * 0.3, up - tall // 12, x + width * 1.1, up + 4), tall // 40, fill=glass)
            for share in (0.3, 1.2):
                cx = x + width * share
                draw.ellipse((cx - tall // 34, ground - tall // 60, cx + tall // 34, ground + tall // 24), fill=line)
            x += width // 2
        elif kind == "post":
            draw.rectangle((x, 0, x + tall // 40, ground + tall // 30), fill=first)
        elif kind == "bench":
            draw.rectangle((x, ground - tall // 16, x + width, ground - tall // 24), fill=first)
            draw.rectangle((x + 6, ground - tall // 24, x + 14, ground + tall // 40), fill=line)
        else:
            draw.rectangle((x, ground - 2, x + width, ground + tall // 20), fill=leaves[0])
        x += width + round(tall * draws.uniform(0.02, 0.25))


def _draw_floor(
    draw: ImageDraw.ImageDraw, floor: int, line: int, draws: Draws, size: tuple[int, int], ground: int
) -> None:
    wide, tall = size
    draw.rectangle((0, ground, wide, tall), fill=floor)
    step = draws.integer(tall // 8, tall // 4)
    for row in range(5):
        y = ground + (tall - ground) * (row + 1) * (row + 2) // 36
        draw.line((0, y, wide, y), fill=line, width=2)
    for x in range(-wide // 4, wide + wide // 4, step):
        draw.line((x, ground, x + (x - wide // 2) // 10, tall), fill=line, width=2)


def draw_obstacle(kind: str, size: tuple[int, int], draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """A post, or something low, before a person: coverage uint8 [H, W] in {0, 255} and shade uint8 [H, W]."""
    height, width = size
    cover, shade = Image.new("L", (width, height)), Image.new("L", (width, height), 128)
    mask, tone = ImageDraw.Draw(cover), ImageDraw.Draw(shade)
    if kind == "post":
        left = draws.integer(0, width * 7 // 8)
        across = draws.integer(max(2, width // 16), max(3, width // 6))
        mask.rectangle((left, 0, left + across, height), fill=255)
        tone.rectangle((left, 0, left + across // 3, height), fill=168)
        tone.rectangle((left + across * 3 // 4, 0, left + across, height), fill=88)
    else:
        top = height - round(height * draws.uniform(0.12, 0.3))
        left = draws.integer(-width // 2, width // 3)
        right = left + draws.integer(width * 2 // 3, width * 5 // 4)
        mask.rounded_rectangle((left, top, right, height + 20), height // 40, fill=255)
        tone.rectangle((left, top, right, top + height // 40), fill=190)
        tone.rectangle((left, top + height // 8, right, top + height // 7), fill=90)
    return np.asarray(cover), np.asarray(shade)

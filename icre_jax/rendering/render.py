"""One image of one person from one camera."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from icre_jax.rendering.body import draw_person
from icre_jax.rendering.camera import Camera, expose, image_draws, shine_lamp
from icre_jax.rendering.draws import Draws, Stream
from icre_jax.rendering.patterns import folds
from icre_jax.rendering.person import Person, sample_person
from icre_jax.rendering.pose import look, sample_pose
from icre_jax.rendering.raster import PAGE, TEXEL_BITS, Canvas, light_table
from icre_jax.rendering.scene import crop_panorama, draw_obstacle
from icre_jax.rendering.settings import Difficulty
from icre_jax.rendering.textiles import Page, make_atlas

_SUPERSAMPLE = 2
_NUM_FOLDS = 24
_LIGHTS = 512  # above any pixel's light: at most 140, times relief (below 2) and folds (at most 154/128)
_FIRST_STRANGER = 10_000  # above every pid a data set can hold
_NUM_STRANGERS = 24
_STIFF_PAGES = (Page.HEAD, Page.HAIR, Page.SKIN, Page.SHOE, Page.HAT, Page.BAG)


@dataclass(frozen=True)
class Rendered:
    """image: uint8 [H, W, 3] (infrared: three equal channels); mask: bool [H, W], the visible part of the person."""

    image: np.ndarray
    mask: np.ndarray


def render_image(
    person: Person, camera: Camera, number: int, *, seed: int, difficulty: Difficulty, image_size: tuple[int, int]
) -> np.ndarray:
    """Image `number` of a person from a camera, before JPEG: uint8 [H, W, 3], infrared with three equal channels.

    A pure function of its arguments, the same on every machine. image_size is (height, width) in pixels.
    """
    return render_with_mask(person, camera, number, seed=seed, difficulty=difficulty, image_size=image_size).image


def render_with_mask(
    person: Person, camera: Camera, number: int, *, seed: int, difficulty: Difficulty, image_size: tuple[int, int]
) -> Rendered:
    """The same image as `render_image`, with the exact mask of the person."""
    draws, noise = image_draws(seed, person.pid, camera.camid, number)
    visible = camera.modality == "visible"
    image = crop_panorama(seed, camera, image_size, difficulty.clutter, draws)
    coat, mask = _paint_figure(person, camera, draws, difficulty, image_size, (0.5, 1.0))
    image = _compose(image, coat, mask)
    hidden = np.zeros_like(mask)
    if draws.chance(difficulty.occlusion):
        image, hidden = _occlude(image, camera, draws, seed, difficulty)
    if not visible and not camera.thermal:
        image = shine_lamp(image, draws, difficulty)
    image = expose(image, camera, draws, noise, difficulty)
    if not visible:
        image = np.repeat(image[..., None], 3, axis=2)
    return Rendered(image, (mask >= 128) & (hidden < 128))


def jpeg_quality(person: Person, camera: Camera, number: int, *, seed: int, difficulty: Difficulty) -> int:
    """The quality to write this image with."""
    return Draws(seed, Stream.JPEG, person.pid, camera.camid, number).integer(*difficulty.jpeg_quality)


def _paint_figure(
    person: Person,
    camera: Camera,
    draws: Draws,
    difficulty: Difficulty,
    image_size: tuple[int, int],
    place: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """A person on black: uint8 [H, W, 3] or [H, W] (infrared), pre-multiplied by the mask, uint8 [H, W].

    place: where the person stands, as shares of width and height.
    """
    height, width = (side * _SUPERSAMPLE for side in image_size)
    pose = sample_pose(draws, difficulty)
    jitter = difficulty.crop_jitter
    fill = min(0.92, 1.9 * width / height) * (1 + draws.uniform(-jitter, jitter))
    foot = (
        width * place[0] + height * draws.uniform(-jitter, jitter) * 0.6,
        height * (place[1] - 0.05 + draws.uniform(-jitter, jitter)),
    )
    perspective = camera.perspective * draws.uniform(0.6, 1.4)
    view = look(pose, person.body, fill * height / person.body.height, foot, perspective)
    if camera.modality == "visible":
        strength = difficulty.lighting
        sideways = strength * draws.uniform(-0.9, 0.9)
        table = light_table(0.62 - 0.1 * strength, 0.44 + 0.1 * strength, sideways)
    elif camera.thermal:
        # A body shines by itself, a little less where it turns away.
        table = light_table(0.82, 0.18, 0.0)
    else:
        table = light_table(0.42, 0.62, 0.15 * draws.uniform(-1, 1))
    canvas = Canvas.empty(height, width)
    draw_person(canvas, person, pose, view, table)
    return _shade(canvas, person, _atlas(person), camera, draws.integer(0, _NUM_FOLDS - 1))


def _shade(
    canvas: Canvas, person: Person, atlas: np.ndarray, camera: Camera, fold: int
) -> tuple[np.ndarray, np.ndarray]:
    """Materials times light, in integers, averaged down to the image's size."""
    width, height = (side // _SUPERSAMPLE for side in canvas.pixels.shape)
    visible = camera.modality == "visible"
    coat = np.zeros((height, width, 3) if visible else (height, width), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    columns, rows = canvas.box()
    drawn = canvas.pixels[columns, rows]
    columns, rows = (slice(side.start // _SUPERSAMPLE, side.stop // _SUPERSAMPLE) for side in (columns, rows))
    mask[rows, columns] = _average((drawn > 0) * np.uint16(255))
    # Tables are looked up with indices of this type, others are converted at each look.
    texel = (drawn & ((1 << TEXEL_BITS) - 1)).astype(np.intp)
    light: np.ndarray = (drawn >> TEXEL_BITS).astype(np.uint16)
    textile = atlas.take(texel)
    relief: np.ndarray = textile & 255
    folded: np.ndarray = _fold_pages(fold).take(texel).astype(np.uint16)
    if camera.thermal:
        # Weave and folds change how light falls, hardly how warm the cloth is: an eighth is left.
        relief, folded = (112 + (part >> 3) for part in (relief, folded))
    light = (light * relief >> 7) * folded >> 7
    lit = ((textile >> 8) * _LIGHTS + light).astype(np.intp)
    if visible:
        for channel, palette in enumerate(zip(*person.colours, strict=True)):
            coat[rows, columns, channel] = _average(_tones(palette).take(lit))
    else:
        coat[rows, columns] = _average(_tones(person.warmths if camera.thermal else person.reflectances).take(lit))
    return coat, mask


@lru_cache(maxsize=64)
def _tones(palette: tuple[int, ...]) -> np.ndarray:
    """What every material of a palette looks like in every light: uint16 [materials * _LIGHTS], 0-255, cached."""
    tones = np.outer(palette, np.arange(_LIGHTS)) >> 7
    return np.minimum(tones, 255).astype(np.uint16).reshape(-1)


def _average(plane: np.ndarray) -> np.ndarray:
    """Rounded means of squares of `_SUPERSAMPLE` = 2 by 2: uint16 [2 W, 2 H], 0-255, to [H, W]."""
    lines = plane[::2] + plane[1::2]
    return ((lines[:, ::2] + lines[:, 1::2] + np.uint16(2)) >> np.uint16(2)).T


def _compose(below: np.ndarray, coat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    clear = 255 - mask.astype(np.uint16)
    if below.ndim == 3:
        clear = clear[..., None]
    return np.minimum(coat + below * clear // 255, 255).astype(np.uint8)


def _occlude(
    image: np.ndarray, camera: Camera, draws: Draws, seed: int, difficulty: Difficulty
) -> tuple[np.ndarray, np.ndarray]:
    """The image with something before the person, and where it is: uint8 [H, W]."""
    size = (image.shape[0], image.shape[1])
    kind = draws.pick({"post": 2, "low": 3, "stranger": 3})
    if kind == "stranger":
        stranger = _stranger(seed, draws.integer(0, _NUM_STRANGERS - 1))
        side = draws.uniform(-0.12, 0.1) if draws.chance(0.5) else draws.uniform(0.9, 1.12)
        coat, cover = _paint_figure(stranger, camera, draws, difficulty, size, (side, draws.uniform(1.02, 1.12)))
        return _compose(image, coat, cover), cover
    cover, shade = draw_obstacle(kind, size, draws)
    tone = draws.integer(60, 170)
    tint = np.array([tone + draws.integer(-24, 24) for _ in range(3)], np.int32)
    grey = draws.integer(50, 150)
    if camera.thermal:
        grey = 30 + grey // 5  # as cold as the place
    paint = shade[..., None] * tint // 128 if image.ndim == 3 else shade.astype(np.int32) * grey // 128
    where = (cover > 0)[..., None] if image.ndim == 3 else cover > 0
    return np.where(where, np.minimum(paint, 255), image).astype(np.uint8), cover


@lru_cache(maxsize=_NUM_STRANGERS)
def _stranger(seed: int, index: int) -> Person:
    return sample_person(seed, _FIRST_STRANGER + index)


# One person is rendered at a time, next to the strangers who walk past.
_atlas = lru_cache(maxsize=_NUM_STRANGERS + 4)(make_atlas)


@lru_cache(maxsize=_NUM_FOLDS)
def _fold_pages(index: int) -> np.ndarray:
    """Folds for every page of an atlas, flat where nothing drapes: uint8 [pages * 128 * 128]."""
    pages = np.full((len(Page), PAGE, PAGE), 128, np.uint8)
    for page in Page:
        if page not in _STIFF_PAGES:
            pages[page] = folds(index)
    return pages.reshape(-1)

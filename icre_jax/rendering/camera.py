"""The cameras of a site, and what optics, light and sensor do to an image."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from icre_jax.rendering.draws import Draws, Stream
from icre_jax.rendering.settings import Difficulty


@dataclass(frozen=True)
class Camera:
    """One camera: where it hangs and how it renders what it sees."""

    camid: int
    modality: str  # "visible" or "infrared"; an infrared camera is near-infrared unless it is thermal
    place: int
    outdoor: bool
    gains: tuple[float, float, float]  # white balance
    exposure: float
    contrast: float
    perspective: float  # how steeply it looks down
    sharpness: float  # resolution as a share of the output's
    grain: float  # sensor noise, grey levels
    thermal: bool = False  # sees the warmth of things instead of reflected light


# The six cameras of SYSU-MM01: 1, 2, 4, 5 visible, 3 and 6 infrared; 2 and 3 hang at the same place.
SYSU_MM01_CAMERAS = (
    Camera(1, "visible", 1, False, (1.06, 1.0, 0.9), 1.0, 1.0, 0.16, 1.0, 7.0),
    Camera(2, "visible", 2, False, (0.92, 1.0, 1.1), 1.12, 0.9, 0.24, 0.8, 9.0),
    Camera(3, "infrared", 2, False, (1.0, 1.0, 1.0), 1.0, 1.05, 0.22, 0.85, 13.0),
    Camera(4, "visible", 4, True, (1.0, 1.02, 1.0), 1.15, 1.15, 0.08, 0.95, 6.0),
    Camera(5, "visible", 5, True, (0.98, 1.0, 1.08), 0.84, 0.95, 0.12, 0.7, 10.0),
    Camera(6, "infrared", 6, True, (1.0, 1.0, 1.0), 0.9, 1.15, 0.12, 0.75, 16.0),
)

# Of LLCM: number, place outdoors or not, white balance, exposure, contrast, perspective, sharpness, grain.
_LLCM_SITES = (
    (1, False, (1.04, 1.0, 0.93), 0.95, 1.0, 0.2, 0.9, 9.0),
    (2, False, (0.94, 1.0, 1.08), 0.8, 0.95, 0.26, 0.8, 12.0),
    (3, True, (1.0, 1.02, 1.0), 1.1, 1.1, 0.1, 0.95, 7.0),
    (4, True, (0.98, 1.0, 1.06), 0.72, 0.9, 0.14, 0.7, 13.0),
    (5, False, (1.07, 1.0, 0.88), 0.88, 1.05, 0.22, 0.85, 10.0),
    (6, True, (1.0, 1.0, 1.03), 0.78, 1.1, 0.12, 0.75, 12.0),
    (7, False, (0.96, 1.0, 1.05), 1.0, 0.9, 0.18, 0.8, 9.0),
    (8, True, (1.02, 1.0, 0.97), 0.85, 1.15, 0.08, 0.9, 10.0),
    (9, False, (1.0, 1.0, 0.95), 0.75, 1.0, 0.24, 0.7, 14.0),
)
# Of HITSZ-VCM: three more.
_HITSZ_VCM_SITES = (
    *_LLCM_SITES,
    (10, True, (1.03, 1.0, 1.0), 1.05, 1.05, 0.1, 0.9, 8.0),
    (11, False, (0.95, 1.0, 1.04), 0.9, 0.95, 0.2, 0.85, 10.0),
    (12, True, (1.0, 1.01, 1.02), 0.8, 1.1, 0.14, 0.75, 11.0),
)


def _by_day_and_night(sites: tuple) -> tuple[Camera, ...]:
    """Every camera as it sees by light, then every camera as it sees in the dark, by near-infrared."""
    return tuple(
        Camera(camid, "visible", camid, outdoor, gains, exposure, contrast, perspective, sharpness, grain)
        for camid, outdoor, gains, exposure, contrast, perspective, sharpness, grain in sites
    ) + tuple(
        Camera(
            camid, "infrared", camid, outdoor, (1.0, 1.0, 1.0), exposure + 0.1, contrast, perspective, sharpness, grain
        )
        for camid, outdoor, _, exposure, contrast, perspective, sharpness, grain in sites
    )


LLCM_CAMERAS = _by_day_and_night(_LLCM_SITES)
HITSZ_VCM_CAMERAS = _by_day_and_night(_HITSZ_VCM_SITES)

# RegDB numbers no cameras: one that sees light and one that sees warmth, side by side.
REGDB_CAMERAS = (
    Camera(1, "visible", 1, True, (1.0, 1.0, 1.0), 1.0, 1.0, 0.1, 0.7, 9.0),
    Camera(2, "infrared", 1, True, (1.0, 1.0, 1.0), 1.0, 1.0, 0.1, 0.55, 5.0, thermal=True),
)


def shine_lamp(image: np.ndarray, draws: Draws, difficulty: Difficulty) -> np.ndarray:
    """The infrared lamp beside the lens: bright where it points, less around it. uint8 [H, W] to the same."""
    height, width = image.shape
    y = (np.arange(height) + 0.5) / height - draws.uniform(0.25, 0.55)
    x = (np.arange(width) + 0.5) / height - width / height * draws.uniform(0.3, 0.7)
    fall = difficulty.lighting * draws.uniform(0.6, 3.2)
    power = draws.uniform(1.05, 1.4)
    lit = image * (power / (1 + fall * (y * y)[:, None] + fall * (x * x)[None, :]))
    return np.minimum(np.rint(lit), 255).astype(np.uint8)


def expose(image: np.ndarray, camera: Camera, draws: Draws, noise: Draws, difficulty: Difficulty) -> np.ndarray:
    """Optics, white balance, exposure and sensor noise. uint8 [H, W] or [H, W, 3] to the same shape."""
    height, width = image.shape[:2]
    exposed = Image.fromarray(image)
    share = 1 - difficulty.blur * (1 - camera.sharpness * draws.uniform(0.55, 1.0))
    if share < 0.9:
        small = (max(8, round(width * share)), max(16, round(height * share)))
        exposed = exposed.resize(small, Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)
    if draws.chance(0.5 * difficulty.blur):  # out of focus, or moving
        exposed = exposed.filter(ImageFilter.BoxBlur(height / 128 * difficulty.blur * draws.uniform(0.3, 1.0)))
    shift = difficulty.camera_shift
    exposure = (1 + shift * (camera.exposure - 1)) * (1 + shift * draws.uniform(-0.22, 0.22))
    contrast = (1 + shift * (camera.contrast - 1)) * (1 + shift * draws.uniform(-0.15, 0.15))
    gains = [1 + shift * (gain - 1 + draws.uniform(-0.08, 0.08)) for gain in camera.gains]
    # One multiplication and one addition per value, in 1/4096: the contrast turns about a dark grey.
    slopes = [round(4096 * contrast * exposure * gain) for gain in (gains if image.ndim == 3 else [1.0])]
    offsets = [round(4096 * 110 * (1 - contrast) * exposure * gain) + 2048 for gain in gains[: len(slopes)]]
    flat = np.asarray(exposed).reshape(height, -1)
    developed = (flat * np.tile(np.array(slopes, np.int32), width) + np.tile(np.array(offsets, np.int32), width)) >> 12
    grain = round(camera.grain * difficulty.noise * draws.uniform(0.5, 1.5))
    if grain:
        dice = noise.rng.integers(0, 256, flat.shape, dtype=np.uint8)
        developed += (dice * np.int32(2 * grain) >> 8) - grain
    return developed.clip(0, 255).astype(np.uint8).reshape(image.shape)


def image_draws(seed: int, pid: int, camid: int, number: int) -> tuple[Draws, Draws]:
    """The draws of one image, and those of its noise: independent of every other image's."""
    return Draws(seed, Stream.IMAGE, pid, camid, number), Draws(seed, Stream.NOISE, pid, camid, number)

"""A page of sample images, to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from icre_jax.rendering.camera import SYSU_MM01_CAMERAS, Camera
from icre_jax.rendering.person import sample_person
from icre_jax.rendering.render import render_image
from icre_jax.rendering.settings import DIFFICULTIES, SyntheticSettings

_GAP = 2
_PAPER = 255


def contact_sheet(
    settings: SyntheticSettings,
    pids: Sequence[int],
    *,
    site: Sequence[Camera] = SYSU_MM01_CAMERAS,
    num_images: int = 4,
) -> Image.Image:
    """Rows are identities; columns are `num_images` visible, then `num_images` infrared images.

    The cameras of `site` take turns. The page is RGB, of len(pids) * (H + 2) by 2 * num_images * (W + 2) pixels, plus a
    margin.
    """
    height, width = settings.image_size
    columns = []
    for modality in ("visible", "infrared"):
        cameras = [camera for camera in site if camera.modality == modality]
        columns += [(cameras[i % len(cameras)], 1 + i // len(cameras)) for i in range(num_images)]
    middle = 3 * _GAP  # between the two kinds
    sheet = np.full(
        (len(pids) * (height + _GAP) + _GAP, len(columns) * (width + _GAP) + _GAP + middle, 3), _PAPER, np.uint8
    )
    for i, pid in enumerate(pids):
        person = sample_person(settings.seed, pid)
        for j, (camera, number) in enumerate(columns):
            top, left = _GAP + i * (height + _GAP), _GAP + j * (width + _GAP) + (middle if j >= num_images else 0)
            sheet[top : top + height, left : left + width] = render_image(
                person,
                camera,
                number,
                seed=settings.seed,
                difficulty=DIFFICULTIES[settings.difficulty],
                image_size=settings.image_size,
            )
    return Image.fromarray(sheet)

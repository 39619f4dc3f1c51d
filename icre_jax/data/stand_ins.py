"""A few rendered people, where images are needed and the data is not at hand."""

from typing import Any

import numpy as np

from icre_jax import rendering
from icre_jax.data.images import resize
from icre_jax.datasets import MODALITIES, Modality

_RENDERED_AT = (128, 64)  # height, width


def render_few(number: int, image_size: tuple[int, int]) -> dict[Modality, np.ndarray]:
    """`number` people by each kind of camera, [number, height, width, 3] uint8; always the same."""
    people = [rendering.sample_person(0, pid) for pid in range(1, number + 1)]
    how: dict[str, Any] = {"seed": 0, "difficulty": rendering.DIFFICULTIES["default"], "image_size": _RENDERED_AT}
    found: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        camera = next(camera for camera in rendering.SYSU_MM01_CAMERAS if camera.modality == modality)
        rendered = (rendering.render_image(person, camera, 1, **how) for person in people)
        found[modality] = np.stack([resize(image, image_size) for image in rendered])
    return found

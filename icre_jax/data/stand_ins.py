"""A few rendered people, where images are needed and the data is not at hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax import rendering
from icre_jax.data.images import resize
from icre_jax.datasets import MODALITIES, SYSU_MM01, Modality

_RENDERED_AT = (128, 64)  # height, width
# Strangers to the network in the box, and to whoever does not train on this very seed.
_STRANGERS = rendering.SyntheticSettings(
    seed=20_512_522,
    difficulty="default",
    num_train_ids=1,  # a tree of that layout has to have one
    num_val_ids=1,
    num_test_ids=40,
    num_images_per_camera=2,
    image_size=_RENDERED_AT,
)


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


def write_strangers(folder: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """A small data set of rendered people to test on, always the same; the name of its layout."""
    rendering.write_tree(SYSU_MM01.name, folder, _STRANGERS, progress=progress)
    return SYSU_MM01.name

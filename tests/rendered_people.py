"""The few people whom the tests of the renderer and of its trees draw."""

import numpy as np

from icre_jax.rendering import DIFFICULTIES, SYSU_MM01_CAMERAS, Camera, Person, SyntheticSettings, render_image

SETTINGS = SyntheticSettings(
    seed=7,
    difficulty="default",
    num_train_ids=4,
    num_val_ids=2,
    num_test_ids=3,
    num_images_per_camera=2,
    image_size=(96, 48),
)
CAMERAS = {camera.camid: camera for camera in SYSU_MM01_CAMERAS}


def draw(person: Person, camera: Camera, number: int = 1, difficulty: str = "default") -> np.ndarray:
    return render_image(
        person, camera, number, seed=7, difficulty=DIFFICULTIES[difficulty], image_size=SETTINGS.image_size
    )

"""What a synthetic data set is made of: the user's settings, and the strengths of everything that is not identity."""

from dataclasses import dataclass

from icre_jax.errors import InputError

MAX_IDS = 9999  # four-digit folder names
MAX_IMAGES_PER_CAMERA = 9999  # four-digit file names


@dataclass(frozen=True)
class Difficulty:
    """Strengths of the nuisances. Probabilities and strengths are in [0, 1]; 0 switches the nuisance off."""

    off_axis: float  # share of images whose viewpoint is drawn from the full circle rather than near front or back
    gait: float  # stride length, 1 is a brisk walk
    crop_jitter: float  # detector error as a share of the image height
    occlusion: float  # probability that something stands in front
    camera_shift: float  # white balance, exposure and contrast differences between and within cameras
    lighting: float  # directional shade (visible), lamp fall-off (infrared)
    blur: float  # optics and low-resolution sensors
    noise: float  # sensor noise
    clutter: float  # contrast of the background
    jpeg_quality: tuple[int, int]  # lowest and highest


DIFFICULTIES = {
    "easy": Difficulty(
        off_axis=0.1,
        gait=0.5,
        crop_jitter=0.015,
        occlusion=0.0,
        camera_shift=0.25,
        lighting=0.25,
        blur=0.15,
        noise=0.15,
        clutter=0.4,
        jpeg_quality=(88, 95),
    ),
    "default": Difficulty(
        off_axis=0.25,
        gait=0.8,
        crop_jitter=0.05,
        occlusion=0.1,
        camera_shift=0.5,
        lighting=0.5,
        blur=0.35,
        noise=0.3,
        clutter=0.6,
        jpeg_quality=(70, 92),
    ),
    "hard": Difficulty(
        off_axis=0.9,
        gait=1.0,
        crop_jitter=0.08,
        occlusion=0.4,
        camera_shift=1.0,
        lighting=1.0,
        blur=1.0,
        noise=1.0,
        clutter=1.0,
        jpeg_quality=(40, 80),
    ),
}


@dataclass(frozen=True)
class SyntheticSettings:
    """Everything that decides the pixels and the file tree.

    Raises InputError for a value that cannot be used.
    """

    seed: int
    difficulty: str  # a key of DIFFICULTIES
    num_train_ids: int
    num_val_ids: int
    num_test_ids: int
    num_images_per_camera: int  # per identity and camera
    image_size: tuple[int, int]  # (height, width) in pixels

    def __post_init__(self) -> None:
        if self.difficulty not in DIFFICULTIES:
            allowed = ", ".join(repr(name) for name in DIFFICULTIES)
            raise InputError(f"difficulty is {self.difficulty!r}; allowed: {allowed}. Fix: set one of these names.")
        _check_range("seed", self.seed, 0, 2**63 - 1)
        _check_range("num_train_ids", self.num_train_ids, 1, MAX_IDS)
        _check_range("num_val_ids", self.num_val_ids, 0, MAX_IDS)
        _check_range("num_test_ids", self.num_test_ids, 1, MAX_IDS)
        _check_range("num_images_per_camera", self.num_images_per_camera, 1, MAX_IMAGES_PER_CAMERA)
        if self.num_ids > MAX_IDS:
            raise InputError(
                f"num_train_ids + num_val_ids + num_test_ids is {self.num_ids}; allowed: at most {MAX_IDS}, as folder "
                "names have four digits. Fix: lower one of the three."
            )
        if not isinstance(self.image_size, tuple) or len(self.image_size) != 2:
            raise InputError(
                f"image_size is {self.image_size!r}; allowed: a (height, width) tuple. Fix: e.g. (128, 64)."
            )
        height, width = self.image_size
        _check_range("image_size height", height, 32, 512)
        _check_range("image_size width", width, 16, 512)
        if not height <= 4 * width or not width <= height:
            raise InputError(
                f"image_size is {self.image_size}; allowed: height between 1 and 4 times the width, as people stand. "
                f"Fix: (height, width), e.g. ({height}, {max(16, height // 2)})."
            )

    @property
    def num_ids(self) -> int:
        """Identities in all three lists together."""
        return self.num_train_ids + self.num_val_ids + self.num_test_ids


def _check_range(name: str, value: object, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InputError(
            f"{name} is {value!r}; allowed: an integer from {lowest} to {highest}. Fix: set {name} in that range."
        )

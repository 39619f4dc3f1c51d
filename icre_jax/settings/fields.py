"""What a config may say: names, types and ranges of every field.

Configs (`configs/*.py`) hold the values, this file holds the rules; no defaults here, so that a value has one home,
but for fields that configs written earlier do not have.
A field has the name of the keyword argument that consumes it.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic import ConfigDict as ModelConfig

from icre_jax.datasets import CARDS, Card
from icre_jax.files.images import HIGHEST_MAX_PIXELS, MAX_PIXELS

Probability = Annotated[float, Field(ge=0, le=1)]
# Far above what anybody has a use for, and below what takes the memory of a machine by a slip of the finger.
MOST_WORKERS = 256  # processes, or threads
MOST_EPOCHS = 100_000
MOST_WIDTH = 256  # channels of the stem; published networks have 64
MOST_CHANNELS = 8192
LONGEST_SIDE, MOST_PIXELS = 1024, 2**18  # of the images that a network takes
_LONGEST_PLACE, _LONGEST_NAME = 4095, 255  # bytes of a path and of a part of it, as Linux has them
Positive = Annotated[int, Field(gt=0, le=10**9)]
Workers = Annotated[int, Field(ge=0, le=MOST_WORKERS)]
Threads = Annotated[int, Field(gt=0, le=MOST_WORKERS)]
Epochs = Annotated[int, Field(gt=0, le=MOST_EPOCHS)]
Channels = Annotated[int, Field(gt=0, le=MOST_CHANNELS)]
FourDigits = Annotated[int, Field(gt=0, le=9999)]  # of the names of rendered files
Few = Annotated[int, Field(gt=0, le=4096)]
NotNegative = Annotated[int, Field(ge=0, le=10**9)]
Blocks = Annotated[int, Field(ge=0, le=64)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
MaxPixels = Annotated[int, Field(ge=1, le=HIGHEST_MAX_PIXELS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _known(dataset: str) -> str:
    if dataset not in CARDS:
        raise ValueError(f"allowed are {', '.join(map(repr, CARDS))}")
    return dataset


def _a_name(name: str) -> str:
    # It names a folder below runs/.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise ValueError("a name of at most 100 letters, digits, '_', '-' and '.' is needed, and no '.' or '-' first")
    return name


def _a_place(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path without NUL characters is needed")
    size, longest = len(os.fsencode(path)), max(len(os.fsencode(part)) for part in path.split("/"))
    if size > _LONGEST_PLACE or longest > _LONGEST_NAME:
        raise ValueError(
            f"a path of at most {_LONGEST_PLACE:,} bytes, and {_LONGEST_NAME} in each part of it, is needed; this has "
            f"{size:,} and {longest:,}"
        )
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError("a path is needed whose ~ stands for a home folder that is known") from None
    return path


def _a_size(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"at most {MOST_PIXELS:,} pixels in all are allowed, as 512 x 512; these are {size[0] * size[1]:,}"
        )
    return size


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError("a pair (smallest, largest) of positive numbers is needed")
    return pair


def _three_stages(taps: tuple[int, ...]) -> tuple[int, ...]:
    if taps not in ((1, 2, 3), (2, 3, 4)):
        raise ValueError("(1, 2, 3) or (2, 3, 4) is needed")
    return taps


def _as_tuple(value: Any) -> Any:
    """ConfigDict and JSON turn tuples into lists; here these are tuples again."""
    return tuple(value) if isinstance(value, list) else value


def _a_share(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[1] > 1:
        raise ValueError("shares of the image are at most 1")
    return pair


Range = Annotated[tuple[float, float], BeforeValidator(_as_tuple), AfterValidator(_ascending)]
Side = Annotated[int, Field(gt=0, le=LONGEST_SIDE)]
ImageSize = Annotated[tuple[Side, Side], BeforeValidator(_as_tuple), AfterValidator(_a_size)]
Place = Annotated[str, AfterValidator(_a_place)]
Taps = Annotated[tuple[int, ...], BeforeValidator(_as_tuple), AfterValidator(_three_stages)]


class Group(BaseModel):
    """Fields that belong together: strict types, no unknown names, no NaN."""

    model_config = ModelConfig(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SyntheticData(Group):
    """People rendered into `data_dir` when it is absent; see `icre_jax.rendering.SyntheticSettings`."""

    seed: Seed
    difficulty: Literal["easy", "default", "hard"]
    num_train_ids: FourDigits
    num_val_ids: Annotated[int, Field(ge=0, le=9999)]
    num_test_ids: FourDigits
    num_images_per_camera: FourDigits
    image_size: ImageSize
    num_workers: Workers


class Data(Group):
    """Where images come from and who reads them."""

    dataset: Annotated[str, AfterValidator(_known)]  # a name of `icre_jax.datasets`
    trial: int | None  # one of RegDB's ten; None for the others
    data_dir: Place
    prepared_dir: Place
    synthetic: SyntheticData | None
    train_splits: Annotated[tuple[Literal["train", "val"], ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    image_size: ImageSize
    max_pixels: MaxPixels = MAX_PIXELS  # of an image file; configs from before this field have 25 million
    store_resized: bool  # records hold the images at image_size, not the files' own bytes; the same pixels either way
    num_workers: Workers
    num_threads: Threads
    # Of data sets of tracks: how often an epoch counts each, and how many of its frames stand for it in a test; None
    # for all. None for data sets of images, and in configs from before this field.
    frames_per_track: Positive | None = None

    @property
    def card(self) -> Card:
        """What is known of the data set."""
        return CARDS[self.dataset]

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """(height, width) that the records hold all images at; None for the files as they are."""
        return self.image_size if self.store_resized else None


class Sampling(Group):
    """The balanced batch: P identities x K images x two modalities."""

    num_ids_per_batch: Few
    num_images_per_id: Few


class Augment(Group):
    """Training augmentation; see `icre_jax.data.augment`."""

    pad: Annotated[int, Field(ge=0, le=LONGEST_SIDE)]
    flip_probability: Probability
    channel_probability: Probability
    erasing_probability: Probability
    erasing_area: Annotated[Range, AfterValidator(_a_share)]
    erasing_aspect: Range


class Mpfr(Group):
    """MPFR; see `icre_jax.models.mpfr.MPFR`."""

    enabled: bool
    channels: Channels
    taps: Taps
    mask: Literal["sigmoid", "softmax"]
    fusion: Literal["concat", "sum"]


class Sdce(Group):
    """SDCE; see `icre_jax.models.sdce.SDCE`."""

    enabled: bool
    width: Channels
    num_heads: Channels
    mlp_ratio: Annotated[int, Field(gt=0, le=64)]
    cross_attention: bool
    self_attention: bool
    refinement: bool
    roles: Literal["deep_guide_guide", "guide_deep_deep", "guide_guide_deep"]  # query, key, value
    positions: Literal["none", "sine", "tokens"]
    residual: bool = True  # X1 = X0 + MHA(...), or MHA(...) alone; configs from before this field have the first


class Enhancement(Group):
    """How MPFR and SDCE come to the deep features, and what to compare them with; see `icre_jax.models.gate`."""

    gate_init: NotNegativeFloat  # the first value of the scale of what is added
    join: Literal["map", "vector", "concat"]  # f = GeM(F4 + Delta), GeM(F4) + mean(Delta), or both side by side
    placement: Literal["after_layer4", "before_layer4"]  # of what is enhanced
    control: Literal["none", "offset", "local"]  # in the place of MPFR and SDCE


class Model(Group):
    """The network; see `icre_jax.models.network.build_network`."""

    depth: Literal[18, 34, 50, 101]
    width: Annotated[int, Field(gt=0, le=MOST_WIDTH)]
    last_stride: Literal[1, 2]
    specific_until: Literal["stem", "layer1"]
    non_local_blocks: Annotated[tuple[Blocks, Blocks, Blocks, Blocks], BeforeValidator(_as_tuple)]
    non_local_channels: Channels | None  # inside of these blocks; None for half of their stage's
    mpfr: Mpfr
    sdce: Sdce
    enhancement: Enhancement
    # In float32, beyond 6 the smallest value to that power is 0, where the root has no slope; near 0 all powers are 1.
    gem_p: Annotated[float, Field(ge=0.01, le=6)]
    neck_init_std: NotNegativeFloat  # the neck's scale starts as N(1, neck_init_std)
    dtype: Literal["float32", "bfloat16"]
    precision: Literal["highest", "high", "default"]  # of products of float32 numbers, on GPUs and TPUs
    remat: bool  # less memory, more time, the same numbers up to rounding


class Loss(Group):
    """The objective; see `icre_jax.losses.objective`. A weight of 0 leaves a loss out."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    icg_weight: NotNegativeFloat
    icg_form: Literal["relative", "absolute", "guided"]
    icg_rho1: NotNegativeFloat
    icg_rho2: NotNegativeFloat
    icg_space: Literal["features", "unit_features", "embeddings"]  # what it compares; the last two of length 1
    icg_hinge: Literal["hinge", "softplus"]
    icg_margin_unit: Literal["one", "mean_distance"]  # what rho1 and rho2 are multiples of
    guide_weight: NotNegativeFloat  # of an auxiliary ID loss on the pooled F_ig
    triplet_weight: NotNegativeFloat
    triplet_form: Literal["batch_hard", "weighted"]
    triplet_margin: NotNegativeFloat


class Optimizer(Group):
    """Update rule and the learning rate of each parameter group."""

    name: Literal["sgd", "adam"]
    enhancement_name: Literal["sgd", "adam"]  # of MPFR and SDCE
    backbone_learning_rate: Annotated[float, Field(gt=0)]
    enhancement_learning_rate: Annotated[float, Field(gt=0)]
    head_learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    backbone_weight_decay: NotNegativeFloat
    enhancement_weight_decay: NotNegativeFloat  # decoupled; of the others it is part of the gradient
    head_weight_decay: NotNegativeFloat
    accumulate_steps: Few  # micro-batches that a batch passes the network in
    ema_decay: Annotated[float, Field(ge=0, lt=1)]  # of running averages that are scored; 0 for none


class Schedule(Group):
    """Learning rate: linear warm-up by step over the first epochs, and one factor from each boundary epoch on."""

    num_epochs: Epochs
    warmup_epochs: Annotated[int, Field(ge=0, le=MOST_EPOCHS)]
    boundaries: Annotated[tuple[Positive, ...], BeforeValidator(_as_tuple)]
    factors: Annotated[tuple[NotNegativeFloat, ...], BeforeValidator(_as_tuple)]


class Evaluation(Group):
    """How and when to score."""

    every_epochs: Positive
    batch_size: Few
    num_trials: Few
    # Leave out gallery images of the query's identity and camera: of own images; None for the published data sets.
    exclude_same_camera: bool | None


class Checkpoint(Group):
    """What is kept: the latest `keep_latest` and the best by `best_metric`.

    For example "all/single/mAP", as the field does, on the test identities; "val/all/single/mAP" is honest.
    """

    every_epochs: Positive
    keep_latest: Positive
    best_metric: Annotated[str, Field(max_length=200)]


class Logging(Group):
    """Progress on screen and in files.

    `every_steps` is of the screen. Files have a line as often, and more often where that would give fewer than 50.
    """

    every_steps: Positive
    tensorboard: bool


class Settings(Group):
    """One run."""

    name: Annotated[str, AfterValidator(_a_name)]
    seed: Seed
    perturbation: Seed = 0  # none; n: each first weight moved by a relative 1e-6, see `icre_jax.engine.state.perturb`
    pretrained: Place | None
    init_from: Place | None = (
        None  # a trained network to start from: a workdir, an export, or the name of one in the box
    )
    parallel: Literal["jit", "pmap"]
    data: Data
    sampling: Sampling
    augment: Augment
    model: Model
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    evaluation: Evaluation
    checkpoint: Checkpoint
    logging: Logging

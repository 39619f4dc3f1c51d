"""What a config may say: names, types and ranges of every field.

Configs (`configs/*.py`) hold the values, this file holds the rules; no defaults here, so that a value has one home,
but for fields that configs written earlier do not have.
A field has the name of the keyword argument that consumes it.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic import ConfigDict as ModelConfig

from icre_jax.datasets import CARDS, Card
from icre_jax.files.images import HIGHEST_MAX_PIXELS, MAX_PIXELS

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
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


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError("a pair (smallest, largest) of positive numbers is needed")
    return pair


def _three_stages(taps: tuple[int, ...]) -> tuple[int, ...]:
    if taps not in ((1, 2, 3), (2, 3, 4)):
        raise ValueError("(1, 2, 3) or (2, 3, 4) is needed")
    return taps


def _a_share(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[1] > 1:
        raise ValueError("shares of the image are at most 1")
    return pair


# ConfigDict and JSON turn tuples into lists; here a pair is a tuple again.
Range = Annotated[tuple[float, float], BeforeValidator(tuple), AfterValidator(_ascending)]
ImageSize = Annotated[tuple[Positive, Positive], BeforeValidator(tuple)]
Taps = Annotated[tuple[int, ...], BeforeValidator(tuple), AfterValidator(_three_stages)]


class Group(BaseModel):
    """Fields that belong together: strict types, no unknown names, no NaN."""

    model_config = ModelConfig(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SyntheticData(Group):
    """People rendered into `data_dir` when it is absent; see `icre_jax.rendering.SyntheticSettings`."""

    seed: Seed
    difficulty: Literal["easy", "default", "hard"]
    num_train_ids: Positive
    num_val_ids: NotNegative
    num_test_ids: Positive
    num_images_per_camera: Positive
    image_size: ImageSize
    num_workers: NotNegative


class Data(Group):
    """Where images come from and who reads them."""

    dataset: Annotated[str, AfterValidator(_known)]  # a name of `icre_jax.datasets`
    trial: int | None  # one of RegDB's ten; None for the others
    data_dir: str
    prepared_dir: str
    synthetic: SyntheticData | None
    train_splits: Annotated[tuple[Literal["train", "val"], ...], BeforeValidator(tuple), Field(min_length=1)]
    image_size: ImageSize
    max_pixels: MaxPixels = MAX_PIXELS  # of an image file; configs from before this field have 25 million
    store_resized: bool  # records hold the images at image_size, not the files' own bytes; the same pixels either way
    num_workers: NotNegative
    num_threads: Positive
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

    num_ids_per_batch: Positive
    num_images_per_id: Positive


class Augment(Group):
    """Training augmentation; see `icre_jax.data.augment`."""

    pad: NotNegative
    flip_probability: Probability
    channel_probability: Probability
    erasing_probability: Probability
    erasing_area: Annotated[Range, AfterValidator(_a_share)]
    erasing_aspect: Range


class Mpfr(Group):
    """MPFR; see `icre_jax.models.mpfr.MPFR`."""

    enabled: bool
    channels: Positive
    taps: Taps
    mask: Literal["sigmoid", "softmax"]
    fusion: Literal["concat", "sum"]


class Sdce(Group):
    """SDCE; see `icre_jax.models.sdce.SDCE`."""

    enabled: bool
    width: Positive
    num_heads: Positive
    mlp_ratio: Positive
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
    width: Positive
    last_stride: Literal[1, 2]
    specific_until: Literal["stem", "layer1"]
    non_local_blocks: Annotated[tuple[NotNegative, NotNegative, NotNegative, NotNegative], BeforeValidator(tuple)]
    non_local_channels: Positive | None  # inside of these blocks; None for half of their stage's
    mpfr: Mpfr
    sdce: Sdce
    enhancement: Enhancement
    gem_p: Annotated[float, Field(gt=0)]
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
    accumulate_steps: Positive  # micro-batches that a batch passes the network in
    ema_decay: Annotated[float, Field(ge=0, lt=1)]  # of running averages that are scored; 0 for none


class Schedule(Group):
    """Learning rate: linear warm-up by step over the first epochs, and one factor from each boundary epoch on."""

    num_epochs: Positive
    warmup_epochs: NotNegative
    boundaries: Annotated[tuple[Positive, ...], BeforeValidator(tuple)]
    factors: Annotated[tuple[NotNegativeFloat, ...], BeforeValidator(tuple)]


class Evaluation(Group):
    """How and when to score."""

    every_epochs: Positive
    batch_size: Positive
    num_trials: Positive
    # Leave out gallery images of the query's identity and camera: of own images; None for the published data sets.
    exclude_same_camera: bool | None


class Checkpoint(Group):
    """What is kept: the latest `keep_latest` and the best by `best_metric`.

    For example "all/single/mAP", as the field does, on the test identities; "val/all/single/mAP" is honest.
    """

    every_epochs: Positive
    keep_latest: Positive
    best_metric: str


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
    pretrained: str | None
    init_from: str | None = None  # a trained network to start from: a workdir, an export, or the name of one in the box
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

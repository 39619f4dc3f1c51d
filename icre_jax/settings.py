"""What a config may say: names, types and ranges of every field, checked before anything else happens.

Configs (`configs/*.py`) hold the values, this file holds the rules; no defaults here, so that a value has one home,
but for fields that configs written earlier do not have.
A field has the name of the keyword argument that consumes it.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic import ConfigDict as ModelConfig

from icre_jax.datasets import CARDS, Card
from icre_jax.errors import InputError, join_findings

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
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


class _Group(BaseModel):
    model_config = ModelConfig(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SyntheticData(_Group):
    """People rendered into `data_dir` when it is absent; see `icre_jax.rendering.SyntheticSettings`."""

    seed: Seed
    difficulty: Literal["easy", "default", "hard"]
    num_train_ids: Positive
    num_val_ids: NotNegative
    num_test_ids: Positive
    num_images_per_camera: Positive
    image_size: ImageSize
    num_workers: NotNegative


class Data(_Group):
    """Where images come from and who reads them."""

    dataset: Annotated[str, AfterValidator(_known)]  # a name of `icre_jax.datasets`
    trial: int | None  # one of RegDB's ten; None for the others
    data_dir: str
    prepared_dir: str
    synthetic: SyntheticData | None
    train_splits: Annotated[tuple[Literal["train", "val"], ...], BeforeValidator(tuple), Field(min_length=1)]
    image_size: ImageSize
    store_resized: bool  # records hold the images at image_size, not the files' own bytes; the same pixels either way
    num_workers: NotNegative
    num_threads: Positive

    @property
    def card(self) -> Card:
        """What is known of the data set."""
        return CARDS[self.dataset]

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """(height, width) that the records hold all images at; None for the files as they are."""
        return self.image_size if self.store_resized else None


class Sampling(_Group):
    """The balanced batch: P identities x K images x two modalities."""

    num_ids_per_batch: Positive
    num_images_per_id: Positive


class Augment(_Group):
    """Training augmentation; see `icre_jax.data.augment`."""

    pad: NotNegative
    flip_probability: Probability
    channel_probability: Probability
    erasing_probability: Probability
    erasing_area: Annotated[Range, AfterValidator(_a_share)]
    erasing_aspect: Range


class Mpfr(_Group):
    """MPFR; see `icre_jax.models.mpfr.MPFR`."""

    enabled: bool
    channels: Positive
    taps: Taps
    mask: Literal["sigmoid", "softmax"]
    fusion: Literal["concat", "sum"]


class Sdce(_Group):
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


class Enhancement(_Group):
    """How MPFR and SDCE come to the deep features, and what to compare them with; see `icre_jax.models.gate`."""

    gate_init: NotNegativeFloat  # the first value of the scale of what is added
    join: Literal["map", "vector", "concat"]  # f = GeM(F4 + Delta), GeM(F4) + mean(Delta), or both side by side
    placement: Literal["after_layer4", "before_layer4"]  # of what is enhanced
    control: Literal["none", "offset", "local"]  # in the place of MPFR and SDCE


class Model(_Group):
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


class Loss(_Group):
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


class Optimizer(_Group):
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


class Schedule(_Group):
    """Learning rate: linear warm-up by step over the first epochs, and one factor from each boundary epoch on."""

    num_epochs: Positive
    warmup_epochs: NotNegative
    boundaries: Annotated[tuple[Positive, ...], BeforeValidator(tuple)]
    factors: Annotated[tuple[NotNegativeFloat, ...], BeforeValidator(tuple)]


class Evaluation(_Group):
    """How and when to score."""

    every_epochs: Positive
    batch_size: Positive
    num_trials: Positive
    # Leave out gallery images of the query's identity and camera: of own images; None for the published data sets.
    exclude_same_camera: bool | None


class Checkpoint(_Group):
    """What is kept: the latest `keep_latest` and the best by `best_metric`.

    For example "all/single/mAP", as the field does, on the test identities; "val/all/single/mAP" is honest.
    """

    every_epochs: Positive
    keep_latest: Positive
    best_metric: str


class Logging(_Group):
    """Progress on screen and in files."""

    every_steps: Positive
    tensorboard: bool


class Settings(_Group):
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


# Networks that come with the package, see `icre_jax.load`: `init_from` names them, or a place.
IN_THE_BOX = ("synthetic",)

# Fields that change how fast or how loudly a run goes, never what it computes (the door and `remat` up to rounding, as
# the number of devices does): a run may continue with others.
FREE_TO_CHANGE = (
    "parallel",
    "data.data_dir",
    "data.prepared_dir",
    "data.store_resized",
    "data.num_workers",
    "data.num_threads",
    "data.synthetic.num_workers",
    "logging.",
    "model.remat",
)


def parse(config: ConfigDict | dict[str, Any]) -> Settings:
    """Check a config and give it types.

    Raises:
      InputError: naming every unknown, missing or unusable field with its value and what is allowed.
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else config
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        findings = [_finding(detail) for detail in error.errors()]
        raise InputError(f"The config cannot be used:\n{join_findings(findings)}") from error
    schedule = settings.schedule
    if len(schedule.boundaries) != len(schedule.factors) or list(schedule.boundaries) != sorted({*schedule.boundaries}):
        raise InputError(
            f"schedule.boundaries {schedule.boundaries} and schedule.factors {schedule.factors} must be of one length, "
            "boundaries strictly ascending."
        )
    findings = [
        *_check_data(settings.data),
        *_check_losses(settings),
        *_check_enhancement(settings),
        *_check_exclusion(settings),
        *_check_selection(settings),
        *_check_start(settings),
    ]
    if findings:
        raise InputError(f"The config cannot be used:\n{join_findings(findings)}")
    return settings


def _check_data(data: Data) -> list[str]:
    """What the fields of `Data` say against each other."""
    findings = []
    if len({*data.train_splits}) < len(data.train_splits):
        findings.append(f"data.train_splits names a split twice: {data.train_splits}.")
    card = data.card
    if not card.has_validation and "val" in data.train_splits:
        findings.append(f"data.train_splits is {data.train_splits}; {data.dataset} has only ('train',).")
    if card.trials and data.trial not in card.trials:
        allowed = card.describe_trials()
        findings.append(f"data.trial is {data.trial}; {card.name} needs the trial to train and test on, {allowed}.")
    if not card.trials and data.trial is not None:
        findings.append(f"data.trial is {data.trial}; {card.name} has no trials, so it must be None.")
    if data.synthetic is not None and card.own_images:
        findings.append(f"data.synthetic is set; {data.dataset} is for own images, so it must be None.")
    elif data.synthetic is not None and card.has_validation != (data.synthetic.num_val_ids > 0):
        needed = "at least 1" if card.has_validation else "0, as there is no validation list"
        findings.append(f"data.synthetic.num_val_ids is {data.synthetic.num_val_ids}; {data.dataset} needs {needed}.")
    return findings


def _check_exclusion(settings: Settings) -> list[str]:
    value, card = settings.evaluation.exclude_same_camera, settings.data.card
    if card.own_images and value is None:
        return [f"evaluation.exclude_same_camera is None; {card.name} needs True or False."]
    if not card.own_images and value is not None:
        return [f"evaluation.exclude_same_camera is {value}; {card.name} has a rule of its own, so it must be None."]
    return []


def _check_selection(settings: Settings) -> list[str]:
    metric, splits = settings.checkpoint.best_metric, settings.data.train_splits
    if not metric.startswith("val/") or "val" not in splits:
        return []
    return [
        f"checkpoint.best_metric is {metric!r}, a score of the validation identities, and data.train_splits {splits} "
        "trains on them. Train on ('train',) alone, or choose by a test score."
    ]


def _check_start(settings: Settings) -> list[str]:
    if settings.pretrained is None or settings.init_from is None:
        return []
    return [
        f"pretrained is {settings.pretrained!r} and init_from {settings.init_from!r}; both say where the backbone "
        "starts. Set one of them to None."
    ]


def _check_enhancement(settings: Settings) -> list[str]:
    model, loss, findings = settings.model, settings.loss, []
    enhancement = model.enhancement
    if enhancement.control != "none" and (model.mpfr.enabled or model.sdce.enabled):
        findings.append(
            f"model.enhancement.control is {enhancement.control!r} and stands in the place of MPFR and SDCE. Set "
            "model.mpfr.enabled and model.sdce.enabled to False, or the control to 'none'."
        )
    if enhancement.placement == "before_layer4":
        if enhancement.join != "map":
            findings.append(
                f"model.enhancement.join is {enhancement.join!r}; it needs model.enhancement.placement 'after_layer4'."
            )
        if model.mpfr.enabled and 4 in model.mpfr.taps:
            findings.append(
                f"model.mpfr.taps is {model.mpfr.taps}; before layer4 MPFR cannot read it. Set them to (1, 2, 3), or "
                "model.enhancement.placement to 'after_layer4'."
            )
        if loss.icg_weight and loss.icg_form == "guided":
            findings.append(
                "loss.icg_form is 'guided', which compares features before and after the enhancement; it needs "
                "model.enhancement.placement 'after_layer4'."
            )
    if loss.icg_weight and loss.icg_form == "guided" and enhancement.join == "concat":
        findings.append(
            "model.enhancement.join is 'concat', which makes the enhanced features longer than those before; "
            "loss.icg_form 'guided' compares the two. Set the join to 'map' or 'vector', or choose another form."
        )
    if loss.guide_weight and not model.mpfr.enabled:
        findings.append(
            f"loss.guide_weight is {loss.guide_weight}; it is of MPFR's map, and model.mpfr.enabled is False. "
            "Set it to 0."
        )
    return findings


def _check_losses(settings: Settings) -> list[str]:
    num_ids, loss, findings = settings.sampling.num_ids_per_batch, settings.loss, []
    if loss.icg_weight and loss.icg_form == "guided" and loss.icg_space == "embeddings":
        findings.append(
            "loss.icg_space is 'embeddings'; loss.icg_form 'guided' compares features before and after the "
            "enhancement, of which only the latter have embeddings. Set it to 'features' or 'unit_features', or choose "
            "another form."
        )
    if num_ids >= 2 or not (loss.icg_weight or loss.triplet_weight):
        return findings
    return [
        *findings,
        f"sampling.num_ids_per_batch is {num_ids}; the ICG and triplet losses compare identities within a batch and "
        "need 2 or more. Raise it, or set loss.icg_weight and loss.triplet_weight to 0.",
    ]


def resolve_paths(settings: Settings) -> Settings:
    """The same run with absolute paths, so that its config.json finds the data from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().resolve())

    names = ("data_dir", "prepared_dir")
    data = settings.data.model_copy(update={name: absolute(getattr(settings.data, name)) for name in names})
    starts = {
        name: absolute(path)
        for name in ("pretrained", "init_from")
        if (path := getattr(settings, name)) is not None and path not in IN_THE_BOX
    }
    return settings.model_copy(update={"data": data, **starts})


def without_places(settings: Settings) -> Settings:
    """The same run with the last name alone of each path: the rest says nothing on another machine, or too much."""
    places = {name: Path(getattr(settings.data, name)).name for name in ("data_dir", "prepared_dir")}
    starts = {
        name: Path(path).name for name in ("pretrained", "init_from") if (path := getattr(settings, name)) is not None
    }
    data = settings.data.model_copy(update=places)
    return settings.model_copy(update={"data": data, **starts})


def _finding(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{field}: unknown field (see icre_jax/settings.py for the known ones)"
    if detail["type"] == "missing":
        return f"{field}: missing"
    return f"{field} = {detail['input']!r}: {detail['msg']}"


def to_json(settings: Settings) -> str:
    """The whole run as JSON, readable by `from_json`."""
    return settings.model_dump_json(indent=2)


def to_config(settings: Settings) -> ConfigDict:
    """Inverse of `parse`: a config whose fields may be overridden on the command line, those that are None too."""
    return _to_config(settings)


def _to_config(group: BaseModel) -> ConfigDict:
    config = ConfigDict()
    for name, value in group:
        if isinstance(value, BaseModel):
            config[name] = _to_config(value)
        elif value is None:
            kinds = [_plain(kind) for kind in get_args(type(group).model_fields[name].annotation)]
            # A group that is absent stays so; a field that is, keeps its type.
            config[name] = next((placeholder(kind) for kind in kinds if kind in (str, int, float, bool)), None)
        else:
            config[name] = value
    return config


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def from_json(text: str) -> Settings:
    """Inverse of `to_json`; raises `InputError` as `parse` does, or if it is no JSON."""
    try:
        return parse(json.loads(text))
    except ValueError as error:
        raise InputError(f"The config.json of the run is damaged ({error}). Use another workdir.") from error


def differences(old: Settings, new: Settings) -> list[str]:
    """Fields in which two runs differ and that decide what is computed, as "name: old -> new"."""
    flat_old, flat_new = flatten(old), flatten(new)
    return [
        f"{name}: {flat_old.get(name)} -> {flat_new.get(name)}"
        for name in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(name) != flat_new.get(name) and not name.startswith(FREE_TO_CHANGE)
    ]


def flatten(group: BaseModel | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every field of a run or of one of its groups (or of these as plain data) by its full name, "model.mpfr.taps"."""
    flat: dict[str, Any] = {}
    for key, value in group.items() if isinstance(group, dict) else group:
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, BaseModel | dict) else {name: value}
    return flat

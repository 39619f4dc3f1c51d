"""What stands in the ICRE paper's own words, what in summaries of it, and what is our reading: one list for all.

`docs/sourced.md` shows it whole, `icre_jax.describe` as far as it concerns one config. The tags:

    P   stands in text that copies the authors' own words (abstract, captions)
    S   stands in a summary of the paper by others, and may be wrong
    I   our reading, inferred from the closest published relatives
    -   no part of ICRE: a baseline, a part that is left out, or a value other than the sources name
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from icre_jax.datasets import LLCM, REGDB, SYSU_MM01
from icre_jax.settings.fields import Settings

TAGS = ("P", "S", "I", "-")
_OF_THE_PAPER = (SYSU_MM01.name, LLCM.name, REGDB.name)


def _always(settings: Settings) -> bool:
    return True


def _mpfr(settings: Settings) -> bool:
    return settings.model.mpfr.enabled


def _sdce(settings: Settings) -> bool:
    return settings.model.sdce.enabled


def _enhanced(settings: Settings) -> bool:
    return _mpfr(settings) or _sdce(settings) or settings.model.enhancement.control != "none"


def _icg(settings: Settings) -> bool:
    return settings.loss.icg_weight > 0


def _triplet(settings: Settings) -> bool:
    return settings.loss.triplet_weight > 0


@dataclass(frozen=True)
class Choice:
    """One thing that was known or had to be decided.

    Attributes:
      part: of the method.
      what: the choice, in words.
      tag: one of `TAGS`.
      fields: of the config, that hold it; none where there is one form only.
      sourced: field -> the value that the source names; with any other the choice is not the source's.
      applies: whether a config has it at all.
    """

    part: str
    what: str
    tag: str
    fields: tuple[str, ...] = ()
    sourced: Mapping[str, Any] = field(default_factory=dict)
    applies: Callable[[Settings], bool] = _always


CHOICES = (
    Choice("data", "SYSU-MM01, LLCM, RegDB", "P", ("data.dataset",),
           applies=lambda s: s.data.synthetic is None and s.data.dataset in _OF_THE_PAPER),
    Choice("data", "HITSZ-VCM, or images of one's own", "-", ("data.dataset",),
           applies=lambda s: s.data.synthetic is None and s.data.dataset not in _OF_THE_PAPER),
    Choice(
        "data", "rendered people in the layout of a data set", "-", ("data.dataset",),
        applies=lambda s: s.data.synthetic is not None,
    ),
    Choice(
        "backbone", "dual-stream ResNet-50", "P", ("model.depth",),
        {"model.depth": 50},
    ),
    Choice("backbone", "first layers per modality, the rest shared: they meet after the stem or after layer1", "I",
           ("model.specific_until",)),
    Choice("backbone", "channels of the stem (64 is the published ResNet)", "I", ("model.width",)),
    Choice("backbone", "stride of layer4", "I", ("model.last_stride",)),
    Choice("backbone", "both stems start from the same ImageNet weights", "I", ("pretrained",)),
    Choice("MPFR", "aggregates shallow features of the shared layers, to keep modality-specific attributes", "P",
           ("model.mpfr.enabled",), {"model.mpfr.enabled": True}),
    Choice("MPFR", "reads three successive stages of different resolution", "S", applies=_mpfr),
    Choice("MPFR", "which stages these are", "I", ("model.mpfr.taps",), applies=_mpfr),
    Choice("MPFR", "brings them to one size and width", "S", applies=_mpfr),
    Choice("MPFR", "by 1x1 convolution, BatchNorm and ReLU, then average pooling to the size of layer4", "I",
           ("model.mpfr.channels",), applies=_mpfr),
    Choice("MPFR", "learns a spatial importance mask per scale", "S", applies=_mpfr),
    Choice("MPFR", "by 1x1 convolution and a sigmoid per scale, or a softmax across the scales", "I",
           ("model.mpfr.mask",), applies=_mpfr),
    Choice("MPFR", "fuses the masked scales into one identity-guided map", "S", applies=_mpfr),
    Choice("MPFR", "by concatenation or sum, then 1x1 convolution, BatchNorm and ReLU", "I", ("model.mpfr.fusion",),
           applies=_mpfr),
    Choice("MPFR", "without SDCE: the map is added to the deep features by 1x1 convolution and BatchNorm", "I",
           applies=lambda s: _mpfr(s) and not _sdce(s)),
    Choice("MPFR", "an ID loss on the pooled map, dropped at test: a third loss, where the paper has two", "-",
           ("loss.guide_weight",), applies=lambda s: s.loss.guide_weight > 0),
    Choice("SDCE", "distils identity knowledge from MPFR's map and guides the deep features with it", "P",
           ("model.sdce.enabled",), {"model.sdce.enabled": True}),
    Choice(
        "SDCE", "cross-attention, then self-attention, then a non-linear refinement", "S",
        ("model.sdce.cross_attention", "model.sdce.self_attention", "model.sdce.refinement"),
        {"model.sdce.cross_attention": True, "model.sdce.self_attention": True, "model.sdce.refinement": True},
        applies=_sdce,
    ),
    Choice("SDCE", "width, heads and MLP of the transformer", "I",
           ("model.sdce.width", "model.sdce.num_heads", "model.sdce.mlp_ratio"), applies=_sdce),
    Choice("SDCE", "LayerNorm before each step, GELU; tokens are the positions of one image", "I", applies=_sdce),
    Choice("SDCE", "who is query, key and value of the cross-attention", "I", ("model.sdce.roles",), applies=_sdce),
    Choice("SDCE", "whether queries and keys, or the tokens themselves, are told where they stand", "I",
           ("model.sdce.positions",), applies=_sdce),
    Choice("SDCE", "whether the deep tokens are kept beside what cross-attention gives", "I", ("model.sdce.residual",),
           applies=_sdce),
    Choice("SDCE", "its tokens are added to the deep features by 1x1 convolution and BatchNorm", "I", applies=_sdce),
    Choice("SDCE", "without MPFR: keys and values from the projected layer3", "I",
           applies=lambda s: _sdce(s) and not _mpfr(s)),
    Choice("enhancement", "first value of the scale of what MPFR and SDCE add", "I",
           ("model.enhancement.gate_init",), applies=_enhanced),
    Choice("enhancement", "whether they add to the map before pooling, to the pooled vector, or stand beside it", "I",
           ("model.enhancement.join",), applies=_enhanced),
    Choice("enhancement", "whether they stand after layer4 or before it", "I", ("model.enhancement.placement",),
           applies=_enhanced),
    Choice("enhancement", "a control in the place of MPFR and SDCE: a learned offset, or a gated convolution branch",
           "-", ("model.enhancement.control",), applies=lambda s: s.model.enhancement.control != "none"),
    Choice("head", "GeM pooling, input clipped at 1e-6", "I", ("model.gem_p",)),
    Choice("head", "BN neck without bias; classifier without bias, N(0, 0.001)", "I"),
    Choice("head", "scale of the neck at first: 1, or N(1, std) as in AGW, where std is 0.01", "I",
           ("model.neck_init_std",)),
    Choice("head", "triplet losses see the features before the neck, not normalised; ICG what its own field says", "I"),
    Choice("head", "retrieval by cosine of the embeddings after the neck", "I"),
    Choice("loss", "ID loss and ICG loss, and no other", "P",
           ("loss.icg_weight", "loss.triplet_weight"), {"loss.triplet_weight": 0.0}, applies=_icg),
    Choice("loss", "ID loss alone or with another than ICG: a baseline", "-",
           ("loss.icg_weight", "loss.triplet_weight"), applies=lambda s: not _icg(s)),
    Choice("loss", "the ID loss is a cross-entropy over the training identities; its label smoothing", "I",
           ("loss.label_smoothing",)),
    Choice("ICG loss", "acts on the enhanced features: a smaller modality gap, a diverse representation space", "P",
           applies=_icg),
    Choice("ICG loss", "modality-aware centers; tightens identities across modalities", "S", applies=_icg),
    Choice("ICG loss", "form: which distances are pulled and pushed", "I", ("loss.icg_form",), applies=_icg),
    Choice("ICG loss", "has hyper-parameters called lambda and rho_1", "P", applies=_icg),
    Choice("ICG loss", "that they are a weight and a margin, their values, and a second margin rho_2", "I",
           ("loss.icg_weight", "loss.icg_rho1", "loss.icg_rho2"), applies=_icg),
    Choice("ICG loss", "compares the features before the neck, as they are or of length 1, or the embeddings after it",
           "I", ("loss.icg_space",), applies=_icg),
    Choice("ICG loss", "a hinge, or softplus in its place, which never is at rest", "I", ("loss.icg_hinge",),
           applies=_icg),
    Choice("ICG loss", "margins as they are, or in units of the mean distance between identities", "I",
           ("loss.icg_margin_unit",), applies=_icg),
    Choice("recipe", "size of the images", "I", ("data.image_size",)),
    Choice("recipe", "P identities, K images of each per modality", "I",
           ("sampling.num_ids_per_batch", "sampling.num_images_per_id")),
    Choice("recipe", "update rule (SGD is Nesterov's), weight decay on every parameter of backbone and head", "I",
           ("optimizer.name", "optimizer.momentum", "optimizer.backbone_weight_decay",
            "optimizer.head_weight_decay")),
    Choice("recipe", "update rule of MPFR and SDCE, and their decoupled weight decay", "I",
           ("optimizer.enhancement_name", "optimizer.enhancement_weight_decay"), applies=_enhanced),
    Choice("recipe", "micro-batches of a batch: all losses see the whole of it, BatchNorm a micro-batch", "I",
           ("optimizer.accumulate_steps",)),
    Choice("recipe", "running averages of weights and statistics, scored in their place", "-",
           ("optimizer.ema_decay",), applies=lambda s: s.optimizer.ema_decay > 0),
    Choice("recipe", "learning rates of backbone, of MPFR and SDCE, of neck and classifier", "I",
           ("optimizer.backbone_learning_rate", "optimizer.enhancement_learning_rate",
            "optimizer.head_learning_rate")),
    Choice("recipe", "epochs, and factors of the learning rate from boundary epochs on", "I",
           ("schedule.num_epochs", "schedule.boundaries", "schedule.factors")),
    Choice("recipe", "linear warm-up that rises with every step (the closest relatives' rises once an epoch)", "I",
           ("schedule.warmup_epochs",)),
    Choice("recipe", "random crop after padding, and flip", "I", ("augment.pad", "augment.flip_probability")),
    Choice("recipe", "channel augmentation of a visible image", "I", ("augment.channel_probability",)),
    Choice("recipe", "random erasing", "I",
           ("augment.erasing_probability", "augment.erasing_area", "augment.erasing_aspect")),
    Choice("recipe", "type of the computation, and precision of float32 products on GPUs and TPUs", "I",
           ("model.dtype", "model.precision")),
    Choice("recipe", "parts computed again in the backward pass, for less memory", "I", ("model.remat",)),
    Choice("baseline", "backbone, head and ID loss alone are what the paper compares with", "I",
           applies=lambda s: not (_enhanced(s) or _icg(s) or _triplet(s) or any(s.model.non_local_blocks))),
    Choice("baseline", "triplet loss, batch-hard or AGW's weighted regularised, with a stable masked softmax", "-",
           ("loss.triplet_form", "loss.triplet_margin"), applies=_triplet),
    Choice("baseline", "AGW's non-local blocks", "-", ("model.non_local_blocks",),
           applies=lambda s: any(s.model.non_local_blocks)),
    Choice("baseline", "channels inside of them: 1 in AGW's released code, which gave its published numbers, half "
           "of the stage's (None) in its paper", "-", ("model.non_local_channels",),
           applies=lambda s: any(s.model.non_local_blocks)),
)  # fmt: skip


@dataclass(frozen=True)
class Applied:
    """A choice as one config makes it.

    Attributes:
      choice: which one.
      tag: the choice's, or "-" where the config has another value than the source names.
      values: field -> value.
    """

    choice: Choice
    tag: str
    values: dict[str, Any]


def choices_of(settings: Settings) -> list[Applied]:
    """What of the list concerns one config, in the order of the list."""
    rows = []
    for choice in CHOICES:
        if choice.applies(settings):
            values = {name: value_of(settings, name) for name in choice.fields}
            departs = any(values[name] != value for name, value in choice.sourced.items())
            rows.append(Applied(choice, "-" if departs else choice.tag, values))
    return rows


def value_of(settings: Settings, name: str) -> Any:
    """The value of a field by its dotted name, as "model.mpfr.taps"."""
    value: Any = settings
    for key in name.split("."):
        value = getattr(value, key)
    return value

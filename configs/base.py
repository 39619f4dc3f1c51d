"""Shared by the configs: full ICRE with the recipe of docs/method.md for ResNet-50 at 384x144. Not a run by itself.

Variants, as `--config configs/llcm.py:VARIANT`; none is full ICRE:

    baseline          backbone, head and ID loss: what the paper compares with
    baseline_triplet  baseline + batch-hard triplet loss, margin 0.3
    agw               AGW as its authors released it: non-local blocks with one inner channel, weighted regularised
                      triplet loss; with its own recipe on the real data sets (docs/protocols.md, section 4)
    mpfr              baseline + MPFR (its map added to the deep features)
    sdce              baseline + SDCE (keys and values from layer3)
    icg               baseline + ICG loss
    mpfr_sdce         baseline + MPFR + SDCE: full ICRE without the ICG loss
    offset            baseline + a learned vector in the place of MPFR + SDCE: a control that looks at nothing
    local             baseline + a gated convolution branch in their place: a control without shallow features
    adam              full ICRE with the alternative recipe (3.5e-4, /10 at 80 and 120, 140 epochs)
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "base"
    config.seed = 0
    config.perturbation = 0  # n > 0: every first weight times 1 + 1e-6 z, z ~ N(0, 1) drawn from n (docs/noise.md)
    config.parallel = "jit"  # or "pmap"; the same step over all devices either way
    config.pretrained = placeholder(str)  # a .safetensors file with the backbone's weights; random without
    config.init_from = placeholder(str)  # a workdir or an export: start from its network; docs/training.md

    config.data = ConfigDict()
    config.data.dataset = "sysu_mm01"
    config.data.trial = placeholder(int)  # None; one of RegDB's ten
    config.data.data_dir = "data/sysu_mm01"  # the data set as it was delivered
    config.data.prepared_dir = "data/prepared"  # ArrayRecord files made from it
    config.data.synthetic = None
    config.data.train_splits = ("train", "val")
    config.data.image_size = (384, 144)  # height, width
    config.data.max_pixels = 25_000_000  # of an image file that is prepared; more are refused before they are decoded
    config.data.store_resized = False  # True: records at image_size, quicker to read and larger; the same pixels
    config.data.num_workers = 0
    config.data.num_threads = 2
    config.data.frames_per_track = placeholder(int)  # None; of data sets of tracks, or None there for all frames

    config.sampling = ConfigDict()
    config.sampling.num_ids_per_batch = 6  # P
    config.sampling.num_images_per_id = 4  # K, per modality

    config.augment = ConfigDict()
    config.augment.pad = 10
    config.augment.flip_probability = 0.5
    config.augment.channel_probability = 0.5
    config.augment.erasing_probability = 0.5
    config.augment.erasing_area = (0.02, 0.4)
    config.augment.erasing_aspect = (0.3, 3.3)

    config.model = ConfigDict()
    config.model.depth = 50
    config.model.width = 64
    config.model.last_stride = 1
    config.model.specific_until = "stem"  # or "layer1"
    config.model.non_local_blocks = (0, 0, 0, 0)  # at the end of layer1 to layer4
    config.model.non_local_channels = placeholder(int)  # None: half of the stage's
    config.model.mpfr = ConfigDict()
    config.model.mpfr.enabled = True
    config.model.mpfr.channels = 512  # C
    config.model.mpfr.taps = (1, 2, 3)  # or (2, 3, 4)
    config.model.mpfr.mask = "sigmoid"  # or "softmax"
    config.model.mpfr.fusion = "concat"  # or "sum"
    config.model.sdce = ConfigDict()
    config.model.sdce.enabled = True
    config.model.sdce.width = 512  # d
    config.model.sdce.num_heads = 8
    config.model.sdce.mlp_ratio = 4
    config.model.sdce.cross_attention = True
    config.model.sdce.self_attention = True
    config.model.sdce.refinement = True
    config.model.sdce.roles = "deep_guide_guide"  # query, key, value; or "guide_deep_deep", "guide_guide_deep"
    config.model.sdce.positions = "none"  # or "sine", "tokens"
    config.model.sdce.residual = True  # False: what cross-attention gives takes the place of the deep tokens
    config.model.enhancement = ConfigDict()
    config.model.enhancement.gate_init = 0.1
    config.model.enhancement.join = "map"  # or "vector", "concat"
    config.model.enhancement.placement = "after_layer4"  # or "before_layer4"
    config.model.enhancement.control = "none"  # or "offset", "local", in the place of MPFR and SDCE
    config.model.gem_p = 3.0
    config.model.neck_init_std = 0.0
    config.model.dtype = "float32"  # or "bfloat16"
    config.model.precision = "highest"  # float32 products on GPUs and TPUs; "high", "default": rounded inputs, faster
    config.model.remat = False

    config.loss = ConfigDict()
    config.loss.label_smoothing = 0.0
    config.loss.icg_weight = 1.0  # lambda
    config.loss.icg_form = "relative"  # or "absolute", "guided"
    config.loss.icg_rho1 = 0.3
    config.loss.icg_rho2 = 0.3
    config.loss.icg_space = "embeddings"  # or "features", "unit_features"
    config.loss.icg_hinge = "hinge"  # or "softplus"
    config.loss.icg_margin_unit = "one"  # or "mean_distance"
    config.loss.guide_weight = 0.0  # an ID loss on MPFR's map, which is not the paper's
    config.loss.triplet_weight = 0.0
    config.loss.triplet_form = "batch_hard"  # or "weighted"
    config.loss.triplet_margin = 0.3

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # or "adam"
    config.optimizer.enhancement_name = "sgd"  # MPFR and SDCE
    config.optimizer.backbone_learning_rate = 0.01
    config.optimizer.enhancement_learning_rate = 0.03
    config.optimizer.head_learning_rate = 0.1  # BN neck and classifier
    config.optimizer.momentum = 0.9
    config.optimizer.backbone_weight_decay = 5e-4  # in the gradient, as is the head's
    config.optimizer.enhancement_weight_decay = 0.0  # decoupled
    config.optimizer.head_weight_decay = 5e-4
    config.optimizer.accumulate_steps = 1  # micro-batches of a batch; losses see the whole batch, BatchNorm each one
    config.optimizer.ema_decay = 0.0  # of running averages of the weights, scored in their place; 0: none

    config.schedule = ConfigDict()
    config.schedule.num_epochs = 150
    config.schedule.warmup_epochs = 10  # the rate rises with every step of these; the relatives' once an epoch
    config.schedule.boundaries = (20, 80)
    config.schedule.factors = (0.1, 0.01)

    config.evaluation = ConfigDict()
    config.evaluation.every_epochs = 5
    config.evaluation.batch_size = 64
    config.evaluation.num_trials = 10
    config.evaluation.exclude_same_camera = placeholder(bool)  # None; of own images True or False

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1
    config.checkpoint.keep_latest = 1
    config.checkpoint.best_metric = "all/single/mAP"

    config.logging = ConfigDict()
    config.logging.every_steps = 50
    config.logging.tensorboard = False
    return config


def use_variant(config: ConfigDict, variant: str) -> None:
    """Turn full ICRE into one of the variants above; "" leaves it as it is."""
    known = ("baseline", "baseline_triplet", "agw", "mpfr", "sdce", "icg", "mpfr_sdce", "offset", "local", "adam")
    if variant and variant not in known:
        raise ValueError(f"Unknown variant {variant!r}; allowed are {', '.join(known)}.")
    if variant == "adam":
        _use_adam(config)
    elif variant:
        config.model.mpfr.enabled = variant in ("mpfr", "mpfr_sdce")
        config.model.sdce.enabled = variant in ("sdce", "mpfr_sdce")
        config.loss.icg_weight = config.loss.icg_weight if variant == "icg" else 0.0
        config.loss.guide_weight = config.loss.guide_weight if config.model.mpfr.enabled else 0.0
    if variant in ("offset", "local"):
        config.model.enhancement.control = variant
    if variant == "baseline_triplet":
        config.loss.triplet_weight = 1.0
    if variant == "agw":
        config.model.non_local_blocks = (0, 2, 3, 0)
        config.model.non_local_channels = 1
        config.model.neck_init_std = 0.01
        config.loss.triplet_weight = 1.0
        config.loss.triplet_form = "weighted"
    if variant:
        config.name = f"{config.name}_{variant}"


def use_agw_recipe(config: ConfigDict) -> None:
    """The recipe of AGW's released code, whole, so that it does not move with ours.

    It and what still differs from that code: docs/protocols.md, section 4.
    """
    config.data.image_size = (288, 144)
    config.sampling.num_ids_per_batch = 8
    config.sampling.num_images_per_id = 4
    config.augment.pad = 10
    config.augment.flip_probability = 0.5
    config.augment.channel_probability = 0.0
    config.augment.erasing_probability = 0.0
    config.optimizer.name = "sgd"
    config.optimizer.backbone_learning_rate = 0.01
    config.optimizer.head_learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.backbone_weight_decay = 5e-4
    config.optimizer.head_weight_decay = 5e-4
    config.schedule.num_epochs = 81
    config.schedule.warmup_epochs = 10
    config.schedule.boundaries = (20, 50)
    config.schedule.factors = (0.1, 0.01)


def _use_adam(config: ConfigDict) -> None:
    config.optimizer.name = "adam"
    config.optimizer.enhancement_name = "adam"
    config.optimizer.backbone_learning_rate = 3.5e-4
    config.optimizer.enhancement_learning_rate = 1e-3
    config.optimizer.head_learning_rate = 3.5e-4
    config.schedule.num_epochs = 140
    config.schedule.boundaries = (80, 120)
    config.schedule.factors = (0.1, 0.01)

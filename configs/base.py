"""What the configs share: the training recipe of `method.md` for ResNet-50 at 384x144. Not a run by itself.

`use_adam` is the alternative recipe (3.5e-4, /10 at 80 and 120, 140 epochs): `--config configs/sysu_mm01.py:adam`.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "base"
    config.seed = 0

    config.data = ConfigDict()
    config.data.dataset = "sysu_mm01"
    config.data.trial = config_dict.placeholder(int)  # None; one of RegDB's ten
    config.data.data_dir = "data/sysu_mm01"  # the data set as it was delivered
    config.data.prepared_dir = "data/prepared"  # ArrayRecord files made from it
    config.data.synthetic = None
    config.data.train_splits = ("train", "val")
    config.data.image_size = (384, 144)  # height, width
    config.data.num_workers = 0
    config.data.num_threads = 2

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
    config.model.gem_p = 3.0
    config.model.dtype = "float32"

    config.loss = ConfigDict()
    config.loss.label_smoothing = 0.0

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.backbone_learning_rate = 0.01
    config.optimizer.head_learning_rate = 0.1  # BN neck and classifier
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4

    config.schedule = ConfigDict()
    config.schedule.num_epochs = 150
    config.schedule.warmup_epochs = 10
    config.schedule.boundaries = (20, 80)
    config.schedule.factors = (0.1, 0.01)

    config.evaluation = ConfigDict()
    config.evaluation.every_epochs = 5
    config.evaluation.batch_size = 64
    config.evaluation.num_trials = 10

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1
    config.checkpoint.keep_latest = 1
    config.checkpoint.best_metric = "all/single/mAP"

    config.logging = ConfigDict()
    config.logging.every_steps = 50
    config.logging.tensorboard = False
    return config


def use_adam(config: ConfigDict) -> None:
    """The "adam" recipe of `method.md`."""
    config.optimizer.name = "adam"
    config.optimizer.backbone_learning_rate = 3.5e-4
    config.optimizer.head_learning_rate = 3.5e-4
    config.schedule.num_epochs = 140
    config.schedule.boundaries = (80, 120)
    config.schedule.factors = (0.1, 0.01)

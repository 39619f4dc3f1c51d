"""Your own images (docs/own_pictures.md), with full ICRE on a ResNet-18 at 256x128: sized for some hundred people.

    python -m icre_jax.prepare --make_manifest data/own
    python -m icre_jax.train --config configs/manifest.py --config.data.data_dir=data/own --workdir runs/own
    python -m icre_jax.evaluate --workdir runs/own

The result depends on the images; nothing is expected of it here. For a GPU and thousands of people take the network
of the other configs: --config.model.depth=50 and --config.pretrained=WEIGHTS. Variants (`:baseline`, `:agw`, ...): see
`configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config()
    config.name = "manifest"
    config.data.dataset = "manifest"
    config.data.data_dir = "data/own"
    config.data.prepared_dir = "data/own_prepared"
    config.data.train_splits = ("train",)
    config.data.image_size = (256, 128)

    config.sampling.num_ids_per_batch = 4
    config.sampling.num_images_per_id = 4

    config.model.depth = 18
    config.model.mpfr.channels = 256
    config.model.sdce.width = 256

    config.optimizer.name = "adam"
    config.optimizer.enhancement_name = "adam"
    config.optimizer.backbone_learning_rate = 3.5e-4
    config.optimizer.enhancement_learning_rate = 3.5e-4
    config.optimizer.head_learning_rate = 3.5e-4
    config.schedule.num_epochs = 60
    config.schedule.warmup_epochs = 5
    config.schedule.boundaries = (30, 50)
    config.schedule.factors = (0.1, 0.01)

    config.evaluation.exclude_same_camera = True
    config.checkpoint.best_metric = "infrared_to_visible/mAP"
    base.use_variant(config, variant)
    if variant == "agw":
        config.model.non_local_blocks = (0, 2, 2, 0)  # as many as a ResNet-18 has blocks
    return config

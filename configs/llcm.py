"""LLCM, the recipe of `method.md`: ResNet-50 at 384x144, P = 6, K = 4, SGD.

    python -m icre_jax.train --config configs/llcm.py --config.data.data_dir=PATH --workdir runs/llcm

No result of ours yet: the data set is licence-gated, and nobody has run it here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "llcm"
    config.data.dataset = "llcm"
    config.data.data_dir = "data/llcm"
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "infrared_to_visible/mAP"
    return config

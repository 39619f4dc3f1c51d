"""LLCM with full ICRE: ResNet-50 at 384x144, P = 6, K = 4, SGD (the recipe of docs/method.md).

    python -m icre_jax.train --config configs/llcm.py --config.data.data_dir=PATH --config.pretrained=WEIGHTS

Published: ICRE's numbers on LLCM are not known to us; infrared to visible (Rank-1/mAP) AGW has 49.13/55.80, DEEN
55.52/62.07. No result and no time of ours: the data set is licence-gated, and nobody has run it here; `python -m
icre_jax.describe` says what a step costs. Variants (`:baseline`, `:agw`, ...): see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config()
    config.name = "llcm"
    config.data.dataset = "llcm"
    config.data.data_dir = "data/llcm"
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "infrared_to_visible/mAP"
    base.use_variant(config, variant)
    if variant == "agw":
        base.use_agw_recipe(config)
    return config

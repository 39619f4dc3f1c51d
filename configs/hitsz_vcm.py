"""HITSZ-VCM with full ICRE: ResNet-50 at 384x144, P = 6, K = 4, SGD (the recipe of docs/method.md).

    python -m icre_jax.train --config configs/hitsz_vcm.py --config.data.data_dir=PATH --config.pretrained=WEIGHTS

A track is the mean of six of its frames, and an epoch counts each track six times, as in the released code of its
authors: docs/data_sets/hitsz_vcm.md. Published, infrared to visible (Rank-1/mAP): CAJ, an image method, 56.59/41.49;
M3-ReID, a video method, 73.21/59.02. ICRE has not been scored on it. No result and no time of ours: nobody has run it
here. Variants (`:baseline`, `:agw`, ...): see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config()
    config.name = "hitsz_vcm"
    config.data.dataset = "hitsz_vcm"
    config.data.data_dir = "data/hitsz_vcm"
    config.data.train_splits = ("train",)
    config.data.frames_per_track = 6
    config.checkpoint.best_metric = "infrared_to_visible/mAP"
    base.use_variant(config, variant)
    if variant == "agw":
        base.use_agw_recipe(config)
    return config

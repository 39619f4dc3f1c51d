"""SYSU-MM01 with full ICRE: ResNet-50 at 384x144, P = 6, K = 4, SGD (the recipe of docs/method.md).

    python -m icre_jax.train --config configs/sysu_mm01.py --config.data.data_dir=PATH --config.pretrained=WEIGHTS

Published: all-search single-shot Rank-1 77.51, mAP 74.16 (second-hand). No result and no time of ours: the data set is
licence-gated, and nobody has run it here; `python -m icre_jax.describe` says what a step costs. Variants (`:baseline`,
`:agw`, ...): see `configs/base.py`; AGW's published numbers are 47.50 and 47.65.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config()
    config.name = "sysu_mm01"
    base.use_variant(config, variant)
    if variant == "agw":
        base.use_agw_recipe(config)
    return config

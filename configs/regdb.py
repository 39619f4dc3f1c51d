"""RegDB with full ICRE: ResNet-50 at 384x144, P = 6, K = 4, SGD (the recipe of docs/method.md). One of ten trials.

    python -m icre_jax.train --config configs/regdb.py --config.data.trial=1 --config.data.data_dir=PATH \\
        --config.pretrained=WEIGHTS --workdir runs/regdb_1

The protocol is the mean over ten such runs. Published: ICRE's numbers on RegDB are not known to us; visible to thermal
(Rank-1/mAP) AGW has 70.05/66.37, CAJ 85.03/79.14. No result and no time of ours: the data set is licence-gated, and
nobody has run it here. Variants (`:baseline`, `:agw`, ...): see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config()
    config.name = "regdb"
    config.data.dataset = "regdb"
    config.data.trial = 1
    config.data.data_dir = "data/regdb"
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "visible_to_infrared/mAP"
    base.use_variant(config, variant)
    if variant == "agw":
        base.use_agw_recipe(config)
    return config

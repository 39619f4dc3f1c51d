"""RegDB, the recipe of `method.md`: ResNet-50 at 384x144, P = 6, K = 4, SGD. One of ten trials, each a run of its own.

    python -m icre_jax.train --config configs/regdb.py --config.data.trial=1 --config.data.data_dir=PATH \\
        --workdir runs/regdb_1

No result of ours yet: the data set is licence-gated, and nobody has run it here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "regdb"
    config.data.dataset = "regdb"
    config.data.trial = 1
    config.data.data_dir = "data/regdb"
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "visible_to_infrared/mAP"
    return config

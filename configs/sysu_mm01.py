"""SYSU-MM01, the recipe of `method.md`: ResNet-50 at 384x144, P = 6, K = 4, SGD.

    python -m icre_jax.train --config configs/sysu_mm01.py --config.data.data_dir=PATH --workdir runs/sysu_mm01

`:adam` takes the alternative recipe. No result of ours yet: the data set is licence-gated, and nobody has run it here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "sgd") -> ConfigDict:
    config = base.get_config()
    config.name = "sysu_mm01"
    if variant == "adam":
        base.use_adam(config)
    elif variant != "sgd":
        raise ValueError(f"Unknown variant {variant!r} of configs/sysu_mm01.py; allowed are 'sgd' and 'adam'.")
    return config

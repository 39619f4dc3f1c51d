"""The second set of the instrument: other people and harder images, on which no choice is made.

    python -m icre_jax.ablate --config configs/instrument_second.py --out runs/ablation_second

What was chosen on `configs/instrument.py` (a form, a weight, a number of epochs) looks better there than it is. Whether
a difference is there on other data too, this set says. Variants: see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import instrument, synthetic


def get_config(variant: str = "") -> ConfigDict:
    config = instrument.full("instrument_second")
    config.data.synthetic.seed = instrument.SEED + 1
    config.data.synthetic.difficulty = "default"
    synthetic.use_variant(config, variant)
    return config

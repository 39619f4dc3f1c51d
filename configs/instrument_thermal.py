"""The thermal set of the instrument: RegDB's layout, one trial of its protocol, thermal images for near-infrared ones.

    python -m icre_jax.ablate --config configs/instrument_thermal.py --out runs/ablation_thermal

Other people than those of `configs/instrument.py`, as many in training and test; network, start and recipe are its. The
first setting, which the tables show, is visible to infrared. Variants: see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import instrument, synthetic


def get_config(variant: str = "") -> ConfigDict:
    config = instrument.full("instrument_thermal")
    config.data.dataset = "regdb"
    config.data.trial = 1
    config.data.train_splits = ("train",)  # there is no validation list
    config.data.synthetic.seed = instrument.SEED + 2
    config.data.synthetic.num_train_ids = instrument.NUM_TRAIN_IDS + instrument.NUM_VAL_IDS
    config.data.synthetic.num_val_ids = 0
    config.data.synthetic.num_images_per_camera = 7  # of two cameras: as many visible ones, so epochs are as long
    config.checkpoint.best_metric = "visible_to_infrared/mAP"
    synthetic.use_variant(config, variant)
    return config

"""The instrument: rendered people to compare configurations on, once its noise is known (docs/noise.md).

    python -m icre_jax.noise --config configs/instrument.py --out runs/noise
    python -m icre_jax.ablate --config configs/instrument.py --out runs/ablation

More people than `configs/synthetic.py` has, and easier images, so that scores lie far from chance and from their upper
end; its network, and a recipe as short as that allows. Beside it, with the same network and recipe:

    configs/instrument_second.py    other people and harder images, on which no choice is made
    configs/instrument_thermal.py   RegDB's layout: thermal images in the place of near-infrared ones

Variants (`:baseline`, `:agw`, ...) of all three: see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import synthetic

NUM_TRAIN_IDS = 990
NUM_VAL_IDS = 10  # SYSU-MM01's layout has some; trained on with the others, so 1000 in all
NUM_TEST_IDS = 400
DIFFICULTY = "easy"
NUM_EPOCHS = 8
BOUNDARIES = (6,)
FACTORS = (0.1,)


def get_config(variant: str = "") -> ConfigDict:
    config = full("instrument")
    synthetic.use_variant(config, variant)
    return config


def full(name: str) -> ConfigDict:
    """Full ICRE on people in a folder of this name; a variant comes last."""
    config = synthetic.get_config()
    config.name = name
    config.data.data_dir = f"data/{name}/tree"
    config.data.prepared_dir = f"data/{name}/prepared"
    config.data.synthetic.seed = 0
    config.data.synthetic.difficulty = DIFFICULTY
    config.data.synthetic.num_train_ids = NUM_TRAIN_IDS
    config.data.synthetic.num_val_ids = NUM_VAL_IDS
    config.data.synthetic.num_test_ids = NUM_TEST_IDS
    config.schedule.num_epochs = NUM_EPOCHS
    config.schedule.boundaries = BOUNDARIES
    config.schedule.factors = FACTORS
    config.evaluation.every_epochs = NUM_EPOCHS  # the last step is what counts
    return config

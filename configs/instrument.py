"""The instrument: rendered people to compare configurations on, whose noise is known (docs/noise.md).

    python -m icre_jax.convert --workdir instrument --stem visible --to_safetensors data/start.safetensors
    python -m icre_jax.noise --config configs/instrument.py --out runs/noise
    python -m icre_jax.ablate --config configs/instrument.py --out runs/ablation

Every run starts from one backbone, as those on real people start from ImageNet's: that of the network in the box, which
has learned from other rendered people (the first command writes it). From random numbers, how soon a network begins to
learn is a matter of chance, and a short run carries that to its end. Then a recipe that ends where the score no longer
rises. Beside it, with the same network, start and recipe:

    configs/instrument_second.py    other people and harder images, on which no choice is made
    configs/instrument_thermal.py   RegDB's layout: thermal images in the place of near-infrared ones

Variants (`:baseline`, `:agw`, ...) of all three: see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import synthetic

START = "data/start.safetensors"
NUM_TRAIN_IDS = 990
NUM_VAL_IDS = 10  # SYSU-MM01's layout has some; trained on with the others, so 1000 in all
NUM_TEST_IDS = 400
SEED = 10  # of the people: seed 0 are those that the network in the box has learned from
DIFFICULTY = "easy"
LEARNING_RATE = 1e-3  # a third of that from random numbers
NUM_EPOCHS = 3
BOUNDARIES = (2,)
FACTORS = (0.1,)


def get_config(variant: str = "") -> ConfigDict:
    config = full("instrument")
    synthetic.use_variant(config, variant)
    return config


def full(name: str) -> ConfigDict:
    """Full ICRE on people in a folder of this name; a variant comes last."""
    config = synthetic.get_config()
    config.name = name
    config.pretrained = START
    config.data.data_dir = f"data/{name}/tree"
    config.data.prepared_dir = f"data/{name}/prepared"
    config.data.image_size = (96, 48)
    config.data.store_resized = False
    config.data.synthetic.seed = SEED
    config.data.synthetic.difficulty = DIFFICULTY
    config.data.synthetic.num_train_ids = NUM_TRAIN_IDS
    config.data.synthetic.num_val_ids = NUM_VAL_IDS
    config.data.synthetic.num_test_ids = NUM_TEST_IDS
    config.sampling.num_ids_per_batch = 16
    config.loss.icg_weight = 1.0
    config.optimizer.backbone_learning_rate = LEARNING_RATE
    config.optimizer.enhancement_learning_rate = LEARNING_RATE
    config.optimizer.ema_decay = 0.98
    config.schedule.num_epochs = NUM_EPOCHS
    config.schedule.boundaries = BOUNDARIES
    config.schedule.factors = FACTORS
    config.checkpoint.every_epochs = 1
    config.evaluation.every_epochs = NUM_EPOCHS  # the last step is what counts
    return config

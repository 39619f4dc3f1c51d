"""A ResNet-50 from ImageNet's weights on few rendered people: does it hold from the start that real runs have?

    python -m icre_jax.ablate --config configs/instrument_imagenet.py --seeds 0,1,2 \
        --rows baseline,agw,icg,mpfr_sdce,icre --out runs/ablation_imagenet

Needs the weights (docs/pretrained.md) as data/resnet50_imagenet.safetensors. One run is 237 steps of 32 images of 96x48
pixels, about 7 minutes on 2 CPU cores; its 180 identities and few steps make it noisier than the other instruments,
and its recipe is that of `configs/base.py:adam`, shortened. Variants: see `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import base, instrument

START = "data/resnet50_imagenet.safetensors"


def get_config(variant: str = "") -> ConfigDict:
    config = instrument.full("instrument_imagenet")
    recipe = base.get_config()
    base.use_variant(recipe, "adam")
    config.model = recipe.model
    config.optimizer = recipe.optimizer
    config.pretrained = START
    config.data.synthetic.seed = instrument.SEED + 3
    config.data.synthetic.difficulty = "default"
    config.data.synthetic.num_train_ids = 140
    config.data.synthetic.num_val_ids = 40
    config.data.synthetic.num_test_ids = 120
    config.sampling.num_ids_per_batch = 8
    config.sampling.num_images_per_id = 2
    config.augment.channel_probability = 0.5
    config.checkpoint.every_epochs = 3  # a checkpoint is 0.3 GB
    base.use_variant(config, variant)
    return config

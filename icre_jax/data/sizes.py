"""How many training identities a data set has, known without reading it."""

from icre_jax.settings import Data

# Of the lists that are delivered with each data set.
_PUBLISHED = {
    "sysu_mm01": {"train": 296, "val": 99},
    "llcm": {"train": 713},
    "regdb": {"train": 206},
}


def num_training_ids(settings: Data) -> int:
    """Identities in `train_splits`: of the data set as published, or of the people that the config has rendered."""
    sizes = _PUBLISHED[settings.dataset]
    if settings.synthetic is not None:
        sizes = {"train": settings.synthetic.num_train_ids, "val": settings.synthetic.num_val_ids}
    return sum(sizes[split] for split in settings.train_splits)

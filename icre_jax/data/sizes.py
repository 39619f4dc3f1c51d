"""How many training identities a config has, known before its data is prepared."""

from pathlib import Path

from icre_jax.data.layouts import manifest
from icre_jax.settings.fields import Data

# Of own images that are not there yet: what costs are then counted for.
ASSUMED_IDS = 100


def count_training_ids(settings: Data) -> tuple[int, str]:
    """Identities in `train_splits`, and where the number comes from.

    That is the data set as published, the people that the config has rendered, or the list of own images; where that is
    not there yet, a round number is assumed and said so.

    Raises:
      InputError: a list of own images that cannot be used.
    """
    if settings.synthetic is not None:
        people = {"train": settings.synthetic.num_train_ids, "val": settings.synthetic.num_val_ids}
        return sum(people[split] for split in settings.train_splits), "rendered people"
    if not settings.card.own_images:
        return sum(settings.card.counts[split].identities for split in settings.train_splits), "as published"
    data_dir = Path(settings.data_dir).expanduser()
    if not (data_dir / manifest.NAME).is_file():
        return ASSUMED_IDS, f"assumed: {data_dir / manifest.NAME} is not there yet"
    return len({record.pid for record in manifest.scan(data_dir).get("train", [])}), f"of {data_dir / manifest.NAME}"

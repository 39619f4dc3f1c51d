"""Who the rendered people of a data set are."""

from pathlib import Path

from icre_jax.datasets import RENDERED_MARK
from icre_jax.errors import UnreadableError
from icre_jax.files.json_files import read_json_object
from icre_jax.settings.fields import Data


def rendered_seed(data: Data) -> int | None:
    """The seed of rendered people, on which alone it depends who they are: the config's, or the one the tree names.

    None where it is not known, or the people are real.
    """
    if data.synthetic is not None:
        return data.synthetic.seed
    try:
        seed = read_json_object(Path(data.data_dir).expanduser() / RENDERED_MARK).get("seed")
    except UnreadableError:
        return None
    return seed if type(seed) is int else None

"""ICRE for visible-infrared person re-identification, in JAX and Flax."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icre_jax.engine.loaded import LoadedNetwork

__version__ = "0.1.0"


def load(path: str | Path, *, step: int | None = None, max_pixels: int | None = None) -> "LoadedNetwork":
    """A trained network that embeds images. None of its training data is needed.

    Args:
      path: the workdir of a run, a folder that `python -m icre_jax.export` wrote (of two forms in it the orbax one is
        taken), one of the forms in it (`variables` or `network.safetensors`), or the string "synthetic": a small
        network that comes with the package and was trained on rendered people.
      step: which checkpoint of a workdir; None for the latest.
      max_pixels: of an image file that it is given, up to 89 million; one of more is refused by its header, before
        memory is taken for it. None for 25 million.

    Returns:
      See `icre_jax.engine.loaded.LoadedNetwork`, and docs/python.md.

    Raises:
      icre_jax.errors.InputError: no network is there, or it is damaged, was changed, or is of another network than the
        files beside it say; or no such number of pixels.

    Example:
      >>> import icre_jax
      >>> icre_jax.load("synthetic").size
      128
    """
    from icre_jax.engine.loaded import load as load_network  # imports jax, which takes seconds: not with the package

    return load_network(path, step=step, max_pixels=max_pixels)

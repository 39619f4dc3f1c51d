"""Which few of many images are shown: identities and images spread evenly, the same ones every time."""

from collections.abc import Mapping

import numpy as np

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, normalize

_MOST_IMAGES = 20  # of an identity in a modality


def choose_identities(sides: Mapping[Modality, Embedded], number: int) -> list[int]:
    """At most `number` identities that are there in both modalities, spread evenly over their numbers.

    Raises:
      InputError: there is none.
    """
    both = np.intersect1d(sides["visible"].pid, sides["infrared"].pid)
    if not len(both):
        raise InputError("No identity has test images of both modalities; pairs of one identity are needed.")
    return both[np.unique(np.linspace(0, len(both) - 1, min(number, len(both))).round().astype(int))].tolist()


def choose_rows(side: Embedded, pids: list[int], number: int = _MOST_IMAGES) -> np.ndarray:
    """Rows of at most `number` images of each identity, spread evenly over its images."""
    rows = []
    for pid in pids:
        of_pid = np.flatnonzero(side.pid == pid)
        rows.append(of_pid[np.unique(np.linspace(0, len(of_pid) - 1, min(number, len(of_pid))).round().astype(int))])
    return np.concatenate(rows)


def choose_images(sides: Mapping[Modality, Embedded], pids: list[int]) -> dict[Modality, Embedded]:
    """The images of `choose_rows` in each modality, visible first, with features of length 1."""
    chosen = {}
    for modality in MODALITIES:
        side = sides[modality].subset(choose_rows(sides[modality], pids))
        chosen[modality] = Embedded(normalize(side.features), side.pid, side.camid, side.path)
    return chosen

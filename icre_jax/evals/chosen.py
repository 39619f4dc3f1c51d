"""Which few of many images are shown: identities and images spread evenly, the same ones every time."""

from collections.abc import Mapping

import numpy as np

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, normalize
from icre_jax.evals.ranks import IntArray

_MOST_IMAGES = 20  # of an identity in a modality


def choose_identities(sides: Mapping[Modality, Embedded], number: int) -> list[int]:
    """At most `number` identities that are there in both modalities, spread evenly over their numbers.

    Raises:
      InputError: there is none.
    """
    both = np.intersect1d(sides["visible"].pid, sides["infrared"].pid)
    if not len(both):
        raise InputError("No identity has test images of both modalities; pairs of one identity are needed.")
    return spread(both, number).tolist()


def choose_rows(side: Embedded, pids: list[int], number: int = _MOST_IMAGES) -> np.ndarray:
    """Rows of at most `number` images of each identity, spread evenly over its images."""
    rows = []
    for pid in pids:
        rows.append(spread(np.flatnonzero(side.pid == pid), number))
    return np.concatenate(rows)


def spread(rows: IntArray, number: int) -> IntArray:
    """At most `number` of some rows [N], spread evenly over them and none of them twice."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int))]


def choose_images(sides: Mapping[Modality, Embedded], pids: list[int]) -> dict[Modality, Embedded]:
    """The images of `choose_rows` in each modality, visible first, with features of length 1."""
    chosen = {}
    for modality in MODALITIES:
        side = sides[modality].subset(choose_rows(sides[modality], pids))
        chosen[modality] = Embedded(normalize(side.features), side.pid, side.camid, side.path)
    return chosen

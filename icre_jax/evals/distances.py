"""How far apart images of one person and of two people are across the modalities."""

from dataclasses import dataclass

import numpy as np

from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, check_feature_sizes, normalize
from icre_jax.evals.ranks import Float64Array, IntArray

# Of cosine distances, which lie in [0, 2]: fine enough for a plot 5 inches wide, and the same for all networks.
EDGES: Float64Array = np.linspace(0, 2, 101)
_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Cosine distances, 1 - cos, of all pairs of a visible and an infrared image.

    Attributes:
      intra: [bins] int64, pairs of one identity in each bin of `EDGES`.
      inter: [bins] int64, the same of two identities.
      intra_mean, inter_mean: of the distances themselves.
    """

    intra: IntArray
    inter: IntArray
    intra_mean: float
    inter_mean: float


def cross_modal_distances(visible: Embedded, infrared: Embedded) -> PairDistances:
    """Histograms of all pairs, whatever their cameras; memory is bounded by blocks.

    Raises:
      InputError: the sides have other sizes of features, or no pair shows one identity, or none shows two.
    """
    check_feature_sizes(visible, infrared)
    rows, columns = normalize(infrared.features), normalize(visible.features)
    counts = np.zeros((2, len(EDGES) - 1), np.int64)
    sums = np.zeros(2)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        distance = np.clip(1 - rows[block] @ columns.T, 0, 2)
        same = infrared.pid[block, None] == visible.pid
        for kind, chosen in enumerate((distance[same], distance[~same])):
            counts[kind] += np.histogram(chosen, EDGES)[0]
            sums[kind] += chosen.sum(dtype=np.float64)
    numbers = counts.sum(axis=1)
    if not numbers.all():
        raise InputError(
            f"Of the pairs of a visible and an infrared image {numbers[0]} show one identity and {numbers[1]} two; "
            "both kinds are needed. Give test images of several people, each in both modalities."
        )
    means = sums / numbers
    return PairDistances(counts[0], counts[1], float(means[0]), float(means[1]))

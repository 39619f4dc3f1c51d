"""How far apart images of one person and of two people are across the modalities."""

from dataclasses import dataclass

import numpy as np

from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, check_feature_sizes, normalize
from icre_jax.evals.ranks import Float32Array, Float64Array, IntArray

NUM_BINS = 60
_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Cosine distances, 1 - cos, of all pairs of a visible and an infrared image.

    Attributes:
      edges: [bins + 1] float64, from the smallest distance to the largest.
      intra: [bins] int64, pairs of one identity in each bin.
      inter: [bins] int64, the same of two identities.
      intra_mean, inter_mean: of the distances themselves.
    """

    edges: Float64Array
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
    counts = np.zeros((2, NUM_BINS), np.int64)
    sums = np.zeros(2)
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(rows), _BLOCK_ROWS)]

    def measure(block: slice) -> Float32Array:
        return np.clip(1 - rows[block] @ columns.T, 0, 2)

    # Twice, as all of them may be more than fits into memory. The ends are moved out by what float64 rounds.
    low = min(float(measure(block).min()) for block in blocks)
    high = max(float(measure(block).max()) for block in blocks)
    edges = np.linspace(low - 1e-9, max(high, low + 1e-3) + 1e-9, NUM_BINS + 1)
    for block in blocks:
        distance = measure(block).astype(np.float64)
        same = infrared.pid[block, None] == visible.pid
        for kind, chosen in enumerate((distance[same], distance[~same])):
            counts[kind] += np.histogram(chosen, edges)[0]
            sums[kind] += chosen.sum()
    numbers = counts.sum(axis=1)
    if not numbers.all():
        raise InputError(
            f"Of the pairs of a visible and an infrared image {numbers[0]} show one identity and {numbers[1]} two; "
            "both kinds are needed. Give test images of several people, each in both modalities."
        )
    means = sums / numbers
    return PairDistances(edges, counts[0], counts[1], float(means[0]), float(means[1]))

"""One search in several parts of a gallery: which rows each part has, and what they found, as one.

The parts are contiguous ranges of rows. Each is searched exactly, and the best k of the whole are among the best k of
the parts. As similarities do not depend on how a gallery is divided (`icre_jax.retrieval.similarity`), the result is
that of a search in the whole, bit for bit.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from icre_jax.retrieval.search import Found


def divide(num_rows: int, num_parts: int) -> list[range]:
    """Contiguous ranges of rows, in order, whose sizes differ by one at most; fewer where there are fewer rows.

    Raises:
      ValueError: no rows or no parts.
    """
    if num_rows < 1 or num_parts < 1:
        raise ValueError(f"{num_rows} rows cannot be divided into {num_parts} parts.")
    parts = min(num_rows, num_parts)
    edges = [number * num_rows // parts for number in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(edges)]


def merge(parts: Sequence[Found], *, top: int) -> Found:
    """The best `top` rows for each query among those that parts of a gallery found.

    Args:
      parts: results for the same queries, at least one; rows are numbered as in the whole gallery, none is in two
        parts. They may come in any order.
      top: k at most; fewer where the parts have fewer.

    Returns:
      As of `icre_jax.retrieval.search.search`: best first, equal similarities in the order of the gallery.
    """
    indices = np.concatenate([part.indices for part in parts], axis=1)
    similarities = np.concatenate([part.similarities for part in parts], axis=1)
    best = np.lexsort((indices, -similarities), axis=1)[:, :top]
    return Found(np.take_along_axis(indices, best, axis=1), np.take_along_axis(similarities, best, axis=1))

"""The queries that a network is most wrong about."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from icre_jax.datasets import OTHER, Modality
from icre_jax.evals.protocol import Setting, query_rows, searched_columns
from icre_jax.evals.ranking import Embedded, normalize

_BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True)
class Hard:
    """A query with its best right and its best wrong image of the gallery.

    Attributes:
      query, right, wrong: indices into the sides.
      right_similarity, wrong_similarity: cosines with the query.
    """

    query: int
    right: int
    wrong: int
    right_similarity: float
    wrong_similarity: float

    @property
    def margin(self) -> float:
        """By how much the wrong image is the more similar one; below 0 where the right one comes first."""
        return self.wrong_similarity - self.right_similarity


def hardest_queries(setting: Setting, sides: Mapping[Modality, Embedded], *, top: int) -> list[Hard]:
    """The `top` queries with the largest margin, largest first, in the gallery of trial 0.

    Queries without a right or without a wrong image that they may see are no candidates. Equal margins keep the order
    of the queries. The setting must not be transposed.
    """
    assert not setting.transposed
    query, gallery = sides[setting.query], sides[OTHER[setting.query]]
    columns = searched_columns(setting, gallery)
    columns = np.arange(len(gallery)) if columns is None else columns
    asking, pid, camid = query_rows(setting, query), gallery.pid[columns], gallery.camid[columns]
    unit = normalize(gallery.features[columns])
    found: list[Hard] = []
    step = max(1, _BLOCK_ELEMENTS // len(columns))
    for rows in (asking[start : start + step] for start in range(0, len(asking), step)):
        similarity = normalize(query.features[rows]) @ unit.T
        seen = ~setting.excluded(query.pid[rows], query.camid[rows], pid, camid)
        same = query.pid[rows, None] == pid
        right, wrong = (np.where(seen & kind, similarity, -np.inf) for kind in (same, ~same))
        for row, (r, w) in enumerate(zip(right.argmax(axis=1).tolist(), wrong.argmax(axis=1).tolist(), strict=True)):
            if np.isfinite(right[row, r]) and np.isfinite(wrong[row, w]):
                indices = (int(rows[row]), int(columns[r]), int(columns[w]))
                found.append(Hard(*indices, float(right[row, r]), float(wrong[row, w])))
        found = sorted(found, key=lambda hard: -hard.margin)[:top]
    return found

"""The SYSU-MM01 protocol: infrared queries, two searches, two shots, ten gallery draws.

Steps (named in the docstrings below):
  1. Query: every test image of the infrared cameras 3 and 6. Gallery cameras {1, 2, 4, 5} (all) or {1, 2} (indoor).
  2. Ten trials; each draws one (single-shot) or ten (multi-shot) images per camera and id.
  3. A gallery item taken at the query's place is dropped, whatever its id.
  4. CMC: every id counts once, at its first image; only queries with a true match left count.
  5. mAP over the full list, same queries.
  6. mINP over the full list, same queries.
  7. Mean (and here the standard deviation) over the trials.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from icre_jax.datasets import INFRARED, SYSU_MM01, VISIBLE
from icre_jax.evals.galleries import PYTHON_RANDOM, GallerySource
from icre_jax.evals.protocol import Draw, Protocol, Setting
from icre_jax.evals.ranking import BoolArray, IntArray, excluding

# Step 1: the visible cameras of each search, in the order in which the draw visits them.
SEARCHES: Mapping[str, tuple[int, ...]] = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
# Step 2: images per camera and id.
SHOTS: Mapping[str, int] = {"single": 1, "multi": 10}
# Step 3: cameras 2 (visible) and 3 (infrared) hang in the same room. Entry c - 1 is the place of camera c.
PLACES = np.array([1, 2, 2, 4, 5, 6])


@excluding("same place left out")
def exclude_same_place(
    query_pid: IntArray, query_camid: IntArray, gallery_pid: IntArray, gallery_camid: IntArray
) -> BoolArray:
    """Step 3: [Q, G], True where the item was taken at the query's place (cameras 1 to 6)."""
    return PLACES[query_camid - 1][:, None] == PLACES[gallery_camid - 1]


def make_protocol(source: GallerySource) -> Protocol:
    """The four settings, searches outermost, on galleries of `source`."""

    def draw(search: str, shot: str) -> Draw:
        return lambda folders, trial: source.draw(folders, SEARCHES[search], SHOTS[shot], trial)

    return Protocol(
        name=SYSU_MM01.title,
        settings=tuple(
            Setting(
                name=f"{search}/{shot}",
                query=INFRARED,
                excluded=exclude_same_place,
                deduplicate_ids=True,
                gallery_source=source.name,
                draw=draw(search, shot),
            )
            for search in SEARCHES
            for shot in SHOTS
        ),
        cameras={VISIBLE: SEARCHES["all"], INFRARED: (3, 6)},
    )


PROTOCOL = make_protocol(PYTHON_RANDOM)
# The same on the 99 validation identities, to choose a checkpoint without looking at the test identities.
VALIDATION = replace(
    PROTOCOL,
    name=f"{SYSU_MM01.title} (validation)",
    settings=tuple(replace(setting, name=f"val/{setting.name}") for setting in PROTOCOL.settings),
)

"""The LLCM protocol: both directions, ten draws of one image per id and camera.

  1. Query: every test image of one modality.
  2. Ten trials; each draws one image per id and camera of the other modality: the gallery.
  3. A gallery item of the query's id and the query's camera is dropped.
  4. CMC: every id counts once, at its first image; mAP and mINP over the full list; only queries with a true match
     left count.
  5. Mean (and here the standard deviation) over the trials.

Infrared to visible is undisputed. Visible to infrared exists twice: as above, and "transposed", as the released test
scripts of the data set's authors do it: the drawn infrared images are the queries, and all visible ones the gallery.
Rank-1 is then far above mAP. The two are not comparable.
"""

from icre_jax.datasets import LLCM
from icre_jax.evals.galleries import PYTHON_RANDOM, Folders
from icre_jax.evals.protocol import Protocol, Setting
from icre_jax.evals.ranking import IntArray, exclude_same_id_and_camera

# In the order in which the draw visits them. No infrared test image is of camera 3.
CAMERAS = tuple(range(1, 10))


def draw_single_shot(folders: Folders, trial: int) -> IntArray:
    """Step 2: ids ascending, then cameras, from sorted listings, with Python's generator seeded with the trial."""
    return PYTHON_RANDOM.draw(folders, CAMERAS, 1, trial)


PROTOCOL = Protocol(
    name=LLCM.title,
    settings=(
        Setting(
            name="infrared_to_visible",
            query="infrared",
            excluded=exclude_same_id_and_camera,
            deduplicate_ids=True,
            gallery_source=PYTHON_RANDOM.name,
            draw=draw_single_shot,
        ),
        Setting(
            name="visible_to_infrared",
            query="visible",
            excluded=exclude_same_id_and_camera,
            deduplicate_ids=True,
            gallery_source=PYTHON_RANDOM.name,
            draw=draw_single_shot,
        ),
        Setting(
            name="visible_to_infrared_transposed",
            query="visible",
            excluded=exclude_same_id_and_camera,
            deduplicate_ids=True,
            gallery_source=f"all images, queries {PYTHON_RANDOM.name}",
            draw=draw_single_shot,
            transposed=True,
        ),
    ),
    cameras={"visible": CAMERAS, "infrared": tuple(camid for camid in CAMERAS if camid != 3)},
)

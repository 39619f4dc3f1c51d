"""The SYSU-MM01 protocol: infrared queries, two searches, two shots, ten gallery draws, all from one embedding pass.

Steps (named in the docstrings below):
  1. Query: every test image of the infrared cameras 3 and 6. Gallery cameras {1, 2, 4, 5} (all) or {1, 2} (indoor).
  2. Ten trials; each draws one (single-shot) or ten (multi-shot) images per camera and id.
  3. A gallery item taken at the query's place is dropped, whatever its id.
  4. CMC: every id counts once, at its first image; only queries with a true match left count.
  5. mAP over the full list, same queries.
  6. mINP over the full list, same queries.
  7. Mean (and here the standard deviation) over the trials.

The draw of step 2 has two sources in the literature. Their scores differ by about 0.5 Rank-1, hence every result names
its source.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from icre_jax.errors import InputError
from icre_jax.evals.ranking import BoolArray, Embedded, IntArray, cosine_similarity, score
from icre_jax.evals.results import METRICS, ProtocolResult, summarize

QUERY_CAMERAS = (3, 6)
# Step 1: the visible cameras of each search, in the order in which the draw visits them.
SEARCHES: Mapping[str, tuple[int, ...]] = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
# Step 2: images per camera and id.
SHOTS: Mapping[str, int] = {"single": 1, "multi": 10}
# Step 3: cameras 2 (visible) and 3 (infrared) hang in the same room. Entry c - 1 is the place of camera c.
PLACES = np.array([1, 2, 2, 4, 5, 6])

# Names of the scores that `evaluate` gives, for choosing a checkpoint by one of them.
METRIC_NAMES = tuple(f"{search}/{shot}/{metric}" for search in SEARCHES for shot in SHOTS for metric in METRICS)

# {(pid, camid): {file name: index into the gallery}}, file names ascending: what the folders cam<camid>/<pid> hold.
Folders = Mapping[tuple[int, int], Mapping[str, int]]


@dataclass(frozen=True)
class GallerySource:
    """Who decides which images make up the gallery of a trial (step 2).

    Attributes:
      name: stands in every result.
      draw: (folders, cameras, images per camera and id, trial from 0) -> [G] int64 indices into the gallery.
    """

    name: str
    draw: Callable[[Folders, Sequence[int], int, int], IntArray]


def draw_python_random(folders: Folders, cameras: Sequence[int], num_images: int, trial: int) -> IntArray:
    """Step 2 with Python's generator, seeded with the trial: [G] int64 indices, ids ascending, then `cameras` in order.

    Single-shot repeats the galleries of AGW and its descendants: `random.seed(trial)`, and for every folder that exists
    `random.choice(sorted(listing))`. Multi-shot has no precedent with this generator. We define it as
    `random.sample(sorted(listing), min(10, len(listing)))` over the same visit of the folders.
    """
    generator = random.Random(trial)
    drawn = []
    for pid in sorted({pid for pid, _ in folders}):
        for camid in cameras:
            listing = list(folders.get((pid, camid), {}).values())
            if not listing:
                continue
            if num_images == 1:
                drawn.append(generator.choice(listing))
            else:
                drawn.extend(generator.sample(listing, min(num_images, len(listing))))
    return np.array(drawn, np.int64)


PYTHON_RANDOM = GallerySource("python-random", draw_python_random)


def exclude_same_place(
    query_pid: IntArray, query_camid: IntArray, gallery_pid: IntArray, gallery_camid: IntArray
) -> BoolArray:
    """Step 3: [Q, G], True where the item was taken at the query's place (cameras 1 to 6)."""
    return PLACES[query_camid - 1][:, None] == PLACES[gallery_camid - 1]


def group_into_folders(gallery: Embedded) -> Folders:
    """The embedded pool as the folders it came from, file names ascending.

    Raises:
      InputError: two images with the same id, camera and file name.
    """
    folders: dict[tuple[int, int], dict[str, int]] = {}
    names = [PurePosixPath(path).name for path in gallery.path.tolist()]
    for index in sorted(range(len(gallery)), key=names.__getitem__):
        folder = folders.setdefault((int(gallery.pid[index]), int(gallery.camid[index])), {})
        if names[index] in folder:
            raise InputError(
                f"The gallery holds camera {gallery.camid[index]}, id {gallery.pid[index]}, file {names[index]} twice: "
                f"{gallery.path[folder[names[index]]]} and {gallery.path[index]}. Embed every test image once."
            )
        folder[names[index]] = index
    return folders


def evaluate(
    query: Embedded,
    gallery: Embedded,
    *,
    dataset: str,
    searches: Sequence[str] = ("all", "indoor"),
    shots: Sequence[str] = ("single", "multi"),
    num_trials: int = 10,
    source: GallerySource = PYTHON_RANDOM,
    feature: str = "embeddings",
    flip: bool = False,
) -> list[ProtocolResult]:
    """Steps 1 to 7 for every search and shot: one result each, searches outermost.

    The similarity of all queries with the whole pool is computed once ([Q, G] float32, 103 MB on SYSU-MM01); every
    trial of every setting takes its columns.

    Args:
      query: every infrared test image, cameras 3 and 6.
      gallery: every visible test image, cameras 1, 2, 4 and 5. pid must ascend as the ids of the data set do.
      dataset: the label of the results. "SYSU-MM01" is reserved for the real data set.
      searches: of "all", "indoor".
      shots: of "single", "multi".
      num_trials: gallery draws per setting.
      source: of the gallery draw.
      feature: label, which output of the network was embedded.
      flip: label, whether the mirrored image was averaged in.

    Raises:
      InputError: unknown settings, cameras on the wrong side, or no query with a true match.
    """
    for names, allowed in ((searches, SEARCHES), (shots, SHOTS)):
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            raise InputError(f"{list(names)} is not a choice of SYSU-MM01 settings; allowed are {list(allowed)}.")
    if num_trials < 1:
        raise InputError(f"num_trials must be at least 1, not {num_trials}.")
    _check_cameras("query", query, QUERY_CAMERAS)
    _check_cameras("gallery", gallery, SEARCHES["all"])

    folders = group_into_folders(gallery)
    similarity = cosine_similarity(query, gallery)
    results = []
    for search in searches:
        if not np.isin(gallery.camid, SEARCHES[search]).any():
            raise InputError(f"The gallery has no image of the cameras {SEARCHES[search]} of {search}-search.")
        for shot in shots:
            trials = [
                score(
                    query,
                    gallery,
                    excluded=exclude_same_place,
                    deduplicate_ids=True,
                    similarity=similarity,
                    columns=source.draw(folders, SEARCHES[search], SHOTS[shot], trial),
                )
                for trial in range(num_trials)
            ]
            results.append(
                summarize(
                    trials,
                    dataset=dataset,
                    search=search,
                    shot=shot,
                    gallery_source=source.name,
                    direction="infrared->visible",
                    feature=feature,
                    flip=flip,
                    reranking=False,
                )
            )
    return results


def _check_cameras(side: str, images: Embedded, allowed: tuple[int, ...]) -> None:
    wrong = sorted(set(images.camid.tolist()) - set(allowed))
    if wrong:
        raise InputError(
            f"The {side} holds images of camera {', '.join(map(str, wrong))}; SYSU-MM01 takes its {side} from cameras "
            f"{', '.join(map(str, allowed))}. Queries are infrared, the gallery is visible: are the two sides swapped?"
        )

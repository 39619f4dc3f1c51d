"""Which images make up the gallery of a trial, where only some of a pool do.

The draw has two sources in the literature, whose scores differ by about 0.5 Rank-1; hence every result names its own.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, IntArray

# {(pid, camid): {file name: index into the pool}}, file names ascending: what the folders cam<camid>/<pid> hold.
Folders = Mapping[tuple[int, int], Mapping[str, int]]


@dataclass(frozen=True)
class GallerySource:
    """Who decides which images make up the gallery of a trial.

    Attributes:
      name: stands in every result.
      draw: (folders, cameras, images per camera and id, trial from 0) -> [G] int64 indices into the pool.
    """

    name: str
    draw: Callable[[Folders, Sequence[int], int, int], IntArray]


def draw_python_random(folders: Folders, cameras: Sequence[int], num_images: int, trial: int) -> IntArray:
    """Draw with Python's generator, seeded with the trial: [G] int64 indices, ids ascending, then `cameras` in order.

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


def group_into_folders(pool: Embedded) -> Folders:
    """The embedded pool as the folders it came from, file names ascending.

    Raises:
      InputError: two images with the same id, camera and file name.
    """
    folders: dict[tuple[int, int], dict[str, int]] = {}
    names = [PurePosixPath(path).name for path in pool.path.tolist()]
    for index in sorted(range(len(pool)), key=names.__getitem__):
        folder = folders.setdefault((int(pool.pid[index]), int(pool.camid[index])), {})
        if names[index] in folder:
            raise InputError(
                f"The gallery holds camera {pool.camid[index]}, id {pool.pid[index]}, file {names[index]} twice: "
                f"{pool.path[folder[names[index]]]} and {pool.path[index]}. Embed every test image once."
            )
        folder[names[index]] = index
    return folders

"""Which images make up the gallery of a trial, where only some of a pool do.

The draw has two sources in the literature, whose scores differ by about 0.5 Rank-1; hence every result names its own.
Given the same gallery, all code of the field agrees.
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
OFFICIAL = "official"


def make_official_source(permutations: Mapping[tuple[int, int], Sequence[Sequence[int]]]) -> GallerySource:
    """The draws that the authors of SYSU-MM01 published: cameras in order, then ids, then the order of the permutation.

    Trial t takes the first image (single-shot) or up to ten (multi-shot) of row t.

    Args:
      permutations: (pid, camid) -> for each trial the image numbers; image k is the file whose name is k.
    """

    def draw(folders: Folders, cameras: Sequence[int], num_images: int, trial: int) -> IntArray:
        drawn = []
        for camid, pid in sorted((camid, pid) for pid, camid in folders if camid in cameras):
            trials = permutations.get((pid, camid))
            if trials is None:
                raise InputError(
                    f"The official draws know no image of id {pid} at camera {camid}, of which there are "
                    f"{len(folders[pid, camid])}. Are they those of this data set?"
                )
            if trial >= len(trials):
                raise InputError(
                    f"The official draws hold {len(trials)} trials; evaluation.num_trials asks for more. Use at most "
                    f"{len(trials)}, or the {PYTHON_RANDOM.name} galleries."
                )
            numbered = {_number(name): index for name, index in folders[pid, camid].items()}
            for number in trials[trial][:num_images]:
                if number not in numbered:
                    raise InputError(
                        f"The official draws name image {number} of id {pid} at camera {camid}; the files there are "
                        f"{', '.join(list(folders[pid, camid])[:5])} ... Are they those of this data set?"
                    )
                drawn.append(numbered[number])
        return np.array(drawn, np.int64)

    return GallerySource(OFFICIAL, draw)


def _number(name: str) -> int | None:
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else None


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

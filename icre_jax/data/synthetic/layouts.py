"""Which images a data set holds and what its files are called; one function per published layout.

A layout only names things. `writers.py` renders and writes any of them.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from icre_jax.data.synthetic.camera import SYSU_MM01_CAMERAS, Camera
from icre_jax.data.synthetic.draws import Draws, Stream
from icre_jax.data.synthetic.settings import SyntheticSettings


@dataclass(frozen=True)
class Shot:
    """One image of an identity: the camera, its number there (from 1), and the file relative to the root."""

    camera: Camera
    number: int
    path: PurePosixPath


@dataclass(frozen=True)
class Layout:
    """shots: per pid, all its images; texts: contents of the list files, relative to the root."""

    name: str
    shots: dict[int, tuple[Shot, ...]]
    texts: dict[PurePosixPath, str]


def sysu_mm01_layout(settings: SyntheticSettings) -> Layout:
    """`camN/IIII/KKKK.jpg` and `exp/{train,val,test}_id.txt`, each one line of comma-separated ids.

    Ids are 1 to N; the three lists are a shuffled partition of them. An identity may miss one visible camera.
    """
    shots = {pid: _sysu_mm01_shots(settings, pid) for pid in range(1, settings.num_ids + 1)}
    order = [1 + int(i) for i in Draws(settings.seed, Stream.SPLIT).rng.permutation(settings.num_ids)]
    first, second = settings.num_train_ids, settings.num_train_ids + settings.num_val_ids
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    texts = {
        PurePosixPath("exp", f"{name}_id.txt"): ",".join(str(pid) for pid in sorted(pids)) + "\n"
        for name, pids in parts.items()
    }
    return Layout("sysu_mm01", shots, texts)


def _sysu_mm01_shots(settings: SyntheticSettings, pid: int) -> tuple[Shot, ...]:
    draws = Draws(settings.seed, Stream.CAMERAS, pid)
    # Half of the identities never pass one of the four visible cameras.
    missing = (1, 2, 4, 5)[draws.integer(0, 3)] if draws.chance(0.5) else None
    return tuple(
        Shot(camera, number, PurePosixPath(f"cam{camera.camid}", f"{pid:04d}", f"{number:04d}.jpg"))
        for camera in SYSU_MM01_CAMERAS
        if camera.camid != missing
        for number in range(1, settings.num_images_per_camera + 1)
    )


LAYOUTS = {"sysu_mm01": sysu_mm01_layout}

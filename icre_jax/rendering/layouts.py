"""Which images a data set holds and what its files are called; one function per published layout.

A layout only names things. `writers.py` renders and writes any of them. What the trees are is said where they are read,
in `icre_jax.data.layouts`; the two share no code, so that each tests the other.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from icre_jax.datasets import HITSZ_VCM, LLCM, REGDB, SYSU_MM01
from icre_jax.errors import InputError
from icre_jax.rendering.camera import HITSZ_VCM_CAMERAS, LLCM_CAMERAS, REGDB_CAMERAS, SYSU_MM01_CAMERAS, Camera
from icre_jax.rendering.draws import Draws, Stream
from icre_jax.rendering.settings import SyntheticSettings


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
    order = _shuffle(settings, Draws(settings.seed, Stream.SPLIT))
    first, second = settings.num_train_ids, settings.num_train_ids + settings.num_val_ids
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    texts = {
        PurePosixPath("exp", f"{name}_id.txt"): ",".join(str(pid) for pid in sorted(pids)) + "\n"
        for name, pids in parts.items()
    }
    return Layout(SYSU_MM01.name, shots, texts)


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


def llcm_layout(settings: SyntheticSettings) -> Layout:
    """`vis/`, `nir/`, `test_vis/camN/IIII/`, `test_nir/camN/IIII/` and the lists in `idx/`.

    Ids are 1 to N, shuffled into train and test; the train lists label theirs from 0. An identity passes three to six
    of the nine cameras. No near-infrared test image is of camera 3.
    """
    _refuse_val_ids(LLCM.name, settings)
    order = _shuffle(settings, Draws(settings.seed, Stream.SPLIT))
    train, test = sorted(order[: settings.num_train_ids]), sorted(order[settings.num_train_ids :])
    shots = {pid: _llcm_shots(settings, pid, test=pid in test) for pid in range(1, settings.num_ids + 1)}
    texts = {PurePosixPath("idx", "test_id.txt"): ",".join(str(pid) for pid in test) + "\n"}
    for part, pids in (("train", train), ("test", test)):
        for folder, modality in (("vis", "visible"), ("nir", "infrared")):
            texts[PurePosixPath("idx", f"{part}_{folder}.txt")] = _labelled(
                (shot.path, pids.index(pid) if part == "train" else pid)
                for pid in pids
                for shot in shots[pid]
                if shot.camera.modality == modality
            )
    return Layout(LLCM.name, shots, texts)


def _llcm_shots(settings: SyntheticSettings, pid: int, *, test: bool) -> tuple[Shot, ...]:
    draws = Draws(settings.seed, Stream.CAMERAS, pid)
    passed = [1 + int(i) for i in draws.rng.permutation(9)][: draws.integer(3, 6)]
    shots = []
    for camera in LLCM_CAMERAS:
        infrared = camera.modality == "infrared"
        if camera.camid not in passed or (test and infrared and camera.camid == 3):
            continue
        kind = "nir" if infrared else "vis"
        for nth in range(1, settings.num_images_per_camera + 1):
            # A camera goes on counting in the dark: numbers seed images, and no two of its images are the same moment.
            number = nth + infrared * settings.num_images_per_camera
            name = f"{pid:04d}_c{camera.camid:02d}_f{number:05d}_{kind}.jpg"
            folder = (f"test_{kind}", f"cam{camera.camid}", f"{pid:04d}") if test else (kind, f"{pid:04d}")
            shots.append(Shot(camera, number, PurePosixPath(*folder, name)))
    return tuple(shots)


def regdb_layout(settings: SyntheticSettings) -> Layout:
    """`Visible/<id>/*.bmp`, `Thermal/<id>/*.bmp` and ten trials of four lists in `idx/`.

    Ids are 1 to N. Each trial shuffles them anew into train and test (halves, if there are as many of both), and labels
    each part from 0.
    """
    _refuse_val_ids(REGDB.name, settings)
    shots = {
        pid: tuple(
            Shot(camera, number, PurePosixPath(folder, str(pid), f"person_{number:05d}_{pid}.bmp"))
            for camera, folder in zip(REGDB_CAMERAS, ("Visible", "Thermal"), strict=True)
            for number in range(1, settings.num_images_per_camera + 1)
        )
        for pid in range(1, settings.num_ids + 1)
    }
    texts = {}
    for trial in REGDB.trials:
        order = _shuffle(settings, Draws(settings.seed, Stream.SPLIT, trial))
        for part, pids in (("train", order[: settings.num_train_ids]), ("test", order[settings.num_train_ids :])):
            for camera, kind in zip(REGDB_CAMERAS, ("visible", "thermal"), strict=True):
                texts[PurePosixPath("idx", f"{part}_{kind}_{trial}.txt")] = _labelled(
                    (shot.path, label)
                    for label, pid in enumerate(sorted(pids))
                    for shot in shots[pid]
                    if shot.camera is camera
                )
    return Layout(REGDB.name, shots, texts)


# The published tracks have 24 frames; shorter ones here give a small tree more of them. Of fewer none is read.
_TRACK_LENGTH = 12
_DIGITS = {"infrared": 1, "visible": 2}


def hitsz_vcm_layout(settings: SyntheticSettings) -> Layout:
    """`Train/IIII/{ir,rgb}/DN/F.jpg`, `Test/...`, and the lists of frames, tracks and queries in `info/`.

    Ids are 1 to N, shuffled into train and test. An identity passes two or three of the twelve cameras. What a camera
    has of it in a modality is cut into tracks of twelve frames and a shorter rest. Frames are numbered with gaps, as
    the published ones are, and are as many moments, not a walk.
    """
    _refuse_val_ids(HITSZ_VCM.name, settings)
    if settings.num_images_per_camera < _TRACK_LENGTH:
        raise InputError(
            f"num_images_per_camera is {settings.num_images_per_camera}; allowed for {HITSZ_VCM.name}: {_TRACK_LENGTH} "
            f"or more, as tracks of fewer frames are left out. Fix: {_TRACK_LENGTH}."
        )
    order = _shuffle(settings, Draws(settings.seed, Stream.SPLIT))
    shots: dict[int, tuple[Shot, ...]] = {}
    texts: dict[PurePosixPath, str] = {}
    for part, pids in (("Train", order[: settings.num_train_ids]), ("Test", order[settings.num_train_ids :])):
        names: list[str] = []
        tracks: list[str] = []
        queries: list[int] = []
        for pid in sorted(pids):
            shots[pid] = ()
            for camera, number in itertools.product(_passed(settings, pid), range(_num_tracks(settings))):
                track, its_names = _hitsz_vcm_track(settings, part, pid, camera, number)
                digit = _DIGITS[camera.modality]
                tracks.append(f"{digit} {len(names) + 1} {len(names) + len(track)} {pid:04d} {camera.camid}\n")
                names += its_names
                shots[pid] += track
                if camera.modality == "infrared":
                    queries.append(len(tracks))
        texts[PurePosixPath("info", f"{part.lower()}_name.txt")] = "".join(names)
        texts[PurePosixPath("info", f"track_{part.lower()}_info.txt")] = "".join(tracks)
        if part == "Test":
            texts[PurePosixPath("info", "query_IDX.txt")] = " ".join(map(str, queries)) + "\n"
    return Layout(HITSZ_VCM.name, dict(sorted(shots.items())), texts)


def _num_tracks(settings: SyntheticSettings) -> int:
    return -(-settings.num_images_per_camera // _TRACK_LENGTH)


def _hitsz_vcm_track(
    settings: SyntheticSettings, part: str, pid: int, camera: Camera, number: int
) -> tuple[tuple[Shot, ...], list[str]]:
    """Track `number` (from 0) of an identity at a camera: its shots, and their lines of the list of frames."""
    infrared = camera.modality == "infrared"
    shots, names = [], []
    for nth in range(number * _TRACK_LENGTH, min((number + 1) * _TRACK_LENGTH, settings.num_images_per_camera)):
        file = f"{5 * nth + 1}.jpg"
        path = PurePosixPath(part, f"{pid:04d}", "ir" if infrared else "rgb", f"D{camera.camid}", file)
        # As of LLCM: no moment by light is one in the dark.
        shots.append(Shot(camera, 1 + nth + infrared * settings.num_images_per_camera, path))
        names.append(f"{pid:04d}M{_DIGITS[camera.modality]}D{camera.camid}T{number + 1}F{file}\n")
    return tuple(shots), names


def _passed(settings: SyntheticSettings, pid: int) -> list[Camera]:
    """The cameras of HITSZ-VCM that see an identity, each by light and in the dark."""
    draws = Draws(settings.seed, Stream.CAMERAS, pid)
    sites = [1 + int(i) for i in draws.rng.permutation(12)][: draws.integer(2, 3)]
    return [camera for camera in HITSZ_VCM_CAMERAS if camera.camid in sites]


def _shuffle(settings: SyntheticSettings, draws: Draws) -> list[int]:
    """Every identity once, in an order of chance."""
    return [1 + int(i) for i in draws.rng.permutation(settings.num_ids)]


def _labelled(images: Iterable[tuple[PurePosixPath, int]]) -> str:
    return "".join(f"{path} {label}\n" for path, label in images)


def _refuse_val_ids(name: str, settings: SyntheticSettings) -> None:
    if settings.num_val_ids:
        raise InputError(
            f"num_val_ids is {settings.num_val_ids}; allowed for {name}: 0, as it has no validation list. "
            "Fix: add them to num_train_ids."
        )


LAYOUTS: dict[str, Callable[[SyntheticSettings], Layout]] = {
    SYSU_MM01.name: sysu_mm01_layout,
    LLCM.name: llcm_layout,
    REGDB.name: regdb_layout,
    HITSZ_VCM.name: hitsz_vcm_layout,
}

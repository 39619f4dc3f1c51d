"""Trees with the published numbers of identities, cameras and images; the images are a few pixels of noise."""

import functools
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

_counter = itertools.count()


@functools.cache
def _encoded(coloured: bool, suffix: str) -> bytes:
    pixels = np.zeros((8, 4, 3), np.uint8) + 90
    pixels[..., 0] += 100 * coloured
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP" if suffix == ".bmp" else "JPEG")
    return stream.getvalue()


def write_image(path: Path, modality: str) -> None:
    """A file of its own: decoders do not read what comes after the image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(modality == "visible", path.suffix) + b"%d" % next(_counter))


def spread(total: int, slots: int) -> Iterator[int]:
    """`total` over `slots`, as evenly as it goes."""
    return ((i + 1) * total // slots - i * total // slots for i in range(slots))


def write_sysu_mm01(root: Path) -> Path:
    """SYSU-MM01, with the official gallery draws and with folders that no list names."""
    lists = {"train": range(1, 297), "val": range(297, 396), "test": range(396, 492)}
    (root / "exp").mkdir(parents=True)
    for name, ids in lists.items():
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, ids)) + "\n")
    per_camera = {1: (56, 1374), 2: (56, 1565), 3: (93, 1883), 4: (94, 1918), 5: (95, 1918), 6: (96, 1920)}
    numbers: dict[tuple[int, int], int] = {}
    for camera, (num_ids, images) in per_camera.items():
        # The last identities, so that those of the smaller cameras are not simply the first.
        numbers |= {(camera, p): n for p, n in zip(lists["test"][-num_ids:], spread(images, num_ids), strict=True)}
    for name, visible, infrared in (("train", 20_284, 9_929), ("val", 1_974, 1_980)):
        for cameras, total in (((1, 2, 4, 5), visible), ((3, 6), infrared)):
            slots = [(camera, pid) for pid in lists[name] for camera in cameras]
            numbers |= dict(zip(slots, spread(total, len(slots)), strict=True))
    numbers[1, 500] = 3
    draws = np.empty((6, 1), object)
    rng = np.random.default_rng(0)
    for camera in range(1, 7):
        draws[camera - 1, 0] = np.empty((500, 1), object)
        for pid in range(1, 501):
            n = numbers.get((camera, pid), 0)
            rows = [rng.permutation(n) + 1 for _ in range(10)]
            draws[camera - 1, 0][pid - 1, 0] = np.array(rows, np.float64).reshape(10 if n else 0, n)
            modality = "infrared" if camera in (3, 6) else "visible"
            for number in range(1, n + 1):
                write_image(root / f"cam{camera}" / f"{pid:04d}" / f"{number:04d}.jpg", modality)
    scipy.io.savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": draws})
    return root


def write_llcm(root: Path) -> Path:
    """LLCM."""
    (root / "idx").mkdir(parents=True)
    train, test = range(1, 714), range(714, 1065)
    (root / "idx" / "test_id.txt").write_text(",".join(map(str, test)) + "\n")
    for kind, modality, num_train, num_test in (
        ("vis", "visible", 16_946, 8_680),
        ("nir", "infrared", 13_975, 7_166),
    ):
        lines = {"train": [], "test": []}
        cameras = itertools.cycle([1, 2, 4, 5, 6, 7, 8, 9] if kind == "nir" else range(1, 10))
        for part, ids, total in (("train", train, num_train), ("test", test, num_test)):
            for label, (pid, n) in enumerate(zip(ids, spread(total, len(ids)), strict=True)):
                for number in range(n):
                    camera = next(cameras)
                    name = f"{pid:04d}_c{camera:02d}_f{number:05d}_{kind}.jpg"
                    folder = f"{kind}/{pid:04d}" if part == "train" else f"test_{kind}/cam{camera}/{pid:04d}"
                    write_image(root / folder / name, modality)
                    lines[part].append(f"{folder}/{name} {label if part == 'train' else pid}\n")
        for part, text in lines.items():
            (root / "idx" / f"{part}_{kind}.txt").write_text("".join(text))
    return root


def write_regdb(root: Path) -> Path:
    """RegDB."""
    (root / "idx").mkdir(parents=True)
    for folder, modality in (("Visible", "visible"), ("Thermal", "infrared")):
        for pid in range(1, 413):
            for number in range(10):
                write_image(root / folder / str(pid) / f"{number}.bmp", modality)
    for trial in range(1, 11):
        order = np.random.default_rng(trial).permutation(412) + 1
        for half, ids in (("train", sorted(order[:206])), ("test", sorted(order[206:]))):
            for folder in ("Visible", "Thermal"):
                lines = [f"{folder}/{pid}/{n}.bmp {label}\n" for label, pid in enumerate(ids) for n in range(10)]
                (root / "idx" / f"{half}_{folder.lower()}_{trial}.txt").write_text("".join(lines))
    return root


def write_hitsz_vcm(root: Path) -> Path:
    """HITSZ-VCM: tracks of 12 frames and more with the published numbers, and short ones that make up the rest."""
    (root / "info").mkdir(parents=True)
    # Visible and infrared: tracks and frames that are used, short tracks and their frames.
    parts = {
        "train": (range(1, 501), (5_460, 126_543, 700, 4_100), (4_291, 98_214, 610, 3_639)),
        "test": (range(501, 928), (5_099, 118_137, 544, 3_231), (4_584, 105_979, 575, 3_416)),
    }
    for part, (ids, visible, infrared) in parts.items():
        names, tracks, queries = [], [], []
        for digit, kind, modality, numbers in ((2, "rgb", "visible", visible), (1, "ir", "infrared", infrared)):
            cameras = itertools.cycle(range(1, 13))
            frame = itertools.count(1)
            for num_tracks, num_frames in (numbers[:2], numbers[2:]):
                for nth, length in enumerate(spread(num_frames, num_tracks)):
                    pid, camera = ids[nth % len(ids)], next(cameras)
                    first = len(names) + 1
                    for _ in range(length):
                        file = f"{next(frame)}.jpg"
                        names.append(f"{pid:04d}M{digit}D{camera}T1F{file}\n")
                        write_image(root / part.capitalize() / f"{pid:04d}" / kind / f"D{camera}" / file, modality)
                    tracks.append(f"{digit} {first} {len(names)} {pid} {camera}\n")
                    if digit == 1:
                        queries.append(len(tracks))
        (root / "info" / f"{part}_name.txt").write_text("".join(names))
        (root / "info" / f"track_{part}_info.txt").write_text("".join(tracks))
        if part == "test":
            (root / "info" / "query_IDX.txt").write_text(" ".join(map(str, queries)))
    return root

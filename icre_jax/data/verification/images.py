"""Decodes every image of a data set and says what is wrong or odd about it."""

import collections
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icre_jax.data.images import find_image_defect
from icre_jax.data.records import Record
from icre_jax.data.verification.report import Report
from icre_jax.datasets import CARDS, INFRARED
from icre_jax.errors import UnreadableError
from icre_jax.files.images import UnusableImageError, load_image, read_image

Progress = Callable[[int, int], None]
# Mean distance between the largest and the smallest channel, of 255, from which an image counts as coloured.
_COLOURED = 4.0
# Images are told to be coloured or grey at this size (width, height): enough, and quick.
_GLANCE = (8, 16)
_SMALLEST = (8, 16)  # width, height below which nobody is recognised
_EXAMPLES = 3


@dataclass(frozen=True)
class Facts:
    """What one file holds; with a defect nothing but that is known."""

    defect: str | None
    digest: bytes = b""
    mode: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    coloured: bool = False
    link: bool = False


def inspect(path: Path, max_pixels: int) -> Facts:
    """Decode one file, if it has at most `max_pixels`."""
    try:
        data = read_image(path)
        image = load_image(data, max_pixels=max_pixels)
    except UnreadableError as error:
        return Facts(f"cannot be read ({error.reason})")
    except UnusableImageError as error:
        return Facts(str(error))
    defect = find_image_defect(image)
    coloured = False
    if defect is None and image.mode not in ("L", "LA") and not image.mode.startswith("I"):
        glance = np.asarray(image.convert("RGB").resize(_GLANCE), dtype=np.int16)
        coloured = bool(np.ptp(glance, axis=2).mean() > _COLOURED)
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return Facts(defect, digest, image.mode, image.size, coloured, path.is_symlink())


def check_images(
    data_dir: Path,
    records: Sequence[Record],
    report: Report,
    *,
    num_workers: int,
    max_pixels: int,
    progress: Progress | None,
) -> None:
    """Decode the images of `records` (each path once) in `num_workers` threads; Pillow decodes outside of the lock.

    Errors: files that cannot be used or have more than `max_pixels`, visible cameras of a published data set without
    colour. Warnings: colour in infrared cameras, odd modes, sizes, and one image in two folders.
    """
    facts: list[Facts] = []
    with ThreadPoolExecutor(num_workers) as pool:
        for done, found in enumerate(
            pool.map(lambda record: inspect(data_dir / record.path, max_pixels), records), start=1
        ):
            facts.append(found)
            if progress:
                progress(done, len(records))
    good = []
    for record, found in zip(records, facts, strict=True):
        if found.defect:
            report.errors.append(f"{record.path}: {found.defect}")
        else:
            good.append((record, found))
    _check_colour(good, report)
    _check_repeats(good, report)
    _say_how_many(
        report.warnings, "images of a mode that is converted", [r.path for r, f in good if f.mode not in ("RGB", "L")]
    )
    _say_how_many(report.warnings, "images wider than high", [r.path for r, f in good if f.size[0] > f.size[1]])
    small = [r.path for r, f in good if f.size[0] < _SMALLEST[0] or f.size[1] < _SMALLEST[1]]
    _say_how_many(
        report.warnings, f"images smaller than {_SMALLEST[0]} x {_SMALLEST[1]} pixels (width x height)", small
    )
    _say_how_many(report.notes, "symbolic links, which are followed", [r.path for r, f in good if f.link])


def _check_colour(good: list[tuple[Record, Facts]], report: Report) -> None:
    """Most images of a camera tell its modality; single ones may be grey or tinted for many reasons."""
    groups: collections.defaultdict[tuple[str, int], list[bool]] = collections.defaultdict(list)
    for record, found in good:
        groups[record.modality, record.camid].append(found.coloured)
    for (modality, camid), coloured in sorted(groups.items()):
        share = sum(coloured)
        if modality == INFRARED and 2 * share > len(coloured):
            report.warnings.append(f"infrared, camera {camid}: {share:,} of {len(coloured):,} images have colour")
        elif modality != INFRARED and 2 * share < len(coloured):
            # A visible camera of one's own may be a grey one.
            target = report.warnings if CARDS[report.dataset].own_images else report.errors
            target.append(
                f"visible, camera {camid}: {len(coloured) - share:,} of {len(coloured):,} images have no colour; are "
                "they infrared ones?"
            )


def _check_repeats(good: list[tuple[Record, Facts]], report: Report) -> None:
    first: dict[bytes, Record] = {}
    repeats = []
    for record, found in good:
        other = first.setdefault(found.digest, record)
        if other.path != record.path and other.path.split("/")[:-1] != record.path.split("/")[:-1]:
            repeats.append(f"{record.path} = {other.path}")
    _say_how_many(report.warnings, "images byte for byte the same as one of another folder", repeats)


def _say_how_many(target: list[str], what: str, examples: list[str]) -> None:
    if examples:
        rest = f" and {len(examples) - _EXAMPLES:,} more" if len(examples) > _EXAMPLES else ""
        target.append(f"{what}: {len(examples):,}: {', '.join(examples[:_EXAMPLES])}{rest}")

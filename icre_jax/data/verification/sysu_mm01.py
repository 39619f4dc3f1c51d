"""SYSU-MM01: the published counts, folder and file names, and the official gallery draws where they are."""

import collections
import re
from pathlib import Path

from icre_jax.data.layouts import sysu_mm01
from icre_jax.data.permutations import SOURCE, read_mat
from icre_jax.data.records import Record
from icre_jax.data.verification.report import Report
from icre_jax.datasets import SYSU_MM01
from icre_jax.errors import InputError


def check(data_dir: Path, trial: int | None, report: Report, *, published: bool) -> list[Record]:
    """Everything but the pixels; the images."""
    del trial
    splits, findings = sysu_mm01.survey(data_dir)
    report.errors += findings
    test = splits["query"] + splits["gallery"]
    for name, records in (("train", splits["train"]), ("val", splits["val"]), ("test", test)):
        report.count_part(name, records, SYSU_MM01.counts[name] if published else None)
    for camera, numbers in SYSU_MM01.camera_counts.items():
        here = [record for record in test if record.camid == camera]
        ids, images = numbers if published else (None, None)
        report.count(f"test, camera {camera}", "identities", len({record.pid for record in here}), ids)
        report.count(f"test, camera {camera}", "images", len(here), images)
    listed_images = [record for records in splits.values() for record in records]
    _check_names(data_dir, listed_images, report)
    if (data_dir / SOURCE).is_file():
        _check_draws(data_dir, test, report)
    else:
        report.notes.append(f"{SOURCE} is not there: the official gallery draws cannot be used, python-random can.")
    return listed_images


def _check_names(data_dir: Path, images: list[Record], report: Report) -> None:
    numbers: dict[tuple[int, int, int], str] = {}
    for record in images:
        stem = Path(record.path).stem
        if not re.fullmatch(r"\d{4}", stem):
            report.errors.append(f"{record.path}: its name is no four-digit number")
            continue
        other = numbers.setdefault((record.camid, record.pid, int(stem)), record.path)
        if other != record.path:
            report.errors.append(f"{record.path} has the number of {other}")
    listed = {record.path.split("/")[1] for record in images}
    unlisted = set()
    for camera in range(1, 7):
        folder = data_dir / f"cam{camera}"
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.name.startswith(".") or entry.name == "Thumbs.db":
                continue
            if not entry.is_dir() or not re.fullmatch(r"\d{4}", entry.name):
                report.warnings.append(
                    f"cam{camera}/{entry.name} is no folder of a four-digit identity; nobody reads it"
                )
            elif entry.name not in listed:
                unlisted.add(entry.name)
    if unlisted:
        report.notes.append(
            f"{len(unlisted)} identities have folders and are in no list: {', '.join(sorted(unlisted))}"
        )


def _check_draws(data_dir: Path, test: list[Record], report: Report) -> None:
    """The file is what it should be, and draws among as many images as there are."""
    try:
        permutations = read_mat(data_dir / SOURCE)
    except InputError as error:
        report.errors.append(str(error))
        return
    images = collections.Counter((record.pid, record.camid) for record in test)
    for (pid, camid), here in sorted(images.items()):
        trials = permutations.get((pid, camid))
        drawn = len(trials[0]) if trials else 0
        if drawn != here:
            report.errors.append(
                f"{SOURCE} draws among {drawn} images of identity {pid} at camera {camid}, of which there are {here}"
            )

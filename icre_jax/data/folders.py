"""Writes the list of a user's own images from the folders they lie in.

    FOLDER/{train,query,gallery}/{visible,infrared}/<person>/<anything>

A person's folder is a number, or any name: if one of them is not a number that a list may hold, all are numbered from 1
in the order of their names. Cameras are folders camN anywhere below the person's; without any, camera 1 stands for
visible images and 2 for infrared ones, as in RegDB.

Nothing is left out in silence: another folder or file in FOLDER is refused by name, as its images would be missing from
the list. Texts may lie there (.txt, .md, .csv, .json: a description, an older list, the mark of a rendered tree), as
none of them holds an image.
"""

import csv
import re
from pathlib import Path

from rich.table import Table

from icre_jax.data.images import SUFFIXES
from icre_jax.data.layouts.manifest import COLUMNS, NAME, SPLITS
from icre_jax.data.walking import is_folder, list_folder, walk_files
from icre_jax.datasets import INFRARED, MODALITIES, VISIBLE
from icre_jax.errors import InputError, join_findings
from icre_jax.files import whole_file
from icre_jax.files.names import find_name_defect, is_file
from icre_jax.files.texts import LARGEST_NUMBER, whole_number

_TEXTS = (".txt", ".md", ".csv", ".json")
_CAMERA = re.compile(r"cam(\d+)")
_DEFAULT_CAMERAS = {VISIBLE: 1, INFRARED: 2}

Row = tuple[str, str, int | None, str, str]  # path, person, camera if a folder tells, modality, split


def write_manifest(folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Write `folder`/manifest.csv; (split, modality) -> (identities, images).

    Raises:
      InputError: naming every file and folder that has no place in this form or cannot be read; no image at all; the
        list is there already, or cannot be written.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. It must hold {{train,query,gallery}}/{{visible,infrared}}/.")
    target = folder / NAME
    if is_file(target):
        raise InputError(f"{target} is there already and stays as it is. Delete it to have it written anew.")
    findings: list[str] = []
    rows = _list_images(folder, findings)
    if not rows and not findings:
        findings.append("no image below {train,query,gallery}/{visible,infrared}/<person>/")
    if len({row[2] is None for row in rows}) > 1:
        bare = next(row[0] for row in rows if row[2] is None)
        findings.append(f"some images lie in camN folders and some do not, e.g. {bare}; give all of them a camera")
    pids = _number([row[1] for row in rows], findings)
    if findings:
        raise InputError(f"No list can be made of {folder}:\n{join_findings(findings)}")
    try:
        with whole_file(target) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for path, person, camera, modality, split in rows:
                writer.writerow(
                    (path, pids[person], _DEFAULT_CAMERAS[modality] if camera is None else camera, modality, split)
                )
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}. Free space, or make the folder writable.") from error
    return _count(rows)


def name_of(path: str, pid: int) -> str:
    """The name of a person's folder, of an image in the form above; "" where it is their number, or in another form.

    Args:
      path: as in the list.
      pid: of the person in the list.
    """
    parts = path.split("/")
    if len(parts) < 4 or parts[0] not in SPLITS or parts[1] not in MODALITIES:
        return ""
    return "" if whole_number(parts[2]) == pid else parts[2]


def describe_manifest(folder: Path, counts: dict[tuple[str, str], tuple[int, int]]) -> Table:
    """What `write_manifest` counted, for the terminal."""
    table = Table(title=str(folder / NAME))
    for column in ("split", "modality", "identities", "images"):
        table.add_column(column, justify="left" if column in ("split", "modality") else "right")
    for (split, modality), numbers in counts.items():
        table.add_row(split, modality, *map(str, numbers))
    return table


def _list_images(folder: Path, findings: list[str]) -> list[Row]:
    rows: list[Row] = []
    entries = list_folder(folder, folder, findings)
    there = {entry.name for entry in entries}
    for entry in entries:
        if entry.name in SPLITS:
            continue
        if is_folder(entry):
            findings.append(f"{entry.name}/ is none of the folders {', '.join(SPLITS)}; rename it or move it away")
        elif Path(entry.name).suffix.lower() not in _TEXTS:
            findings.append(
                f"{entry.name} lies in none of the folders {', '.join(SPLITS)}, and is no text ({', '.join(_TEXTS)}); "
                "move it away"
            )
    for split in SPLITS:
        if split not in there:
            continue
        modalities = {entry.name for entry in list_folder(folder / split, folder, findings)}
        for modality in MODALITIES:
            if modality in modalities:
                rows += _list_side(folder, split, modality, findings)
        findings += [f"{split}/{name} is neither visible nor infrared" for name in sorted(modalities - {*MODALITIES})]
    return rows


def _list_side(folder: Path, split: str, modality: str, findings: list[str]) -> list[Row]:
    """The images of one split and modality."""
    rows: list[Row] = []
    root = folder / split / modality
    for file in walk_files(root, folder, findings):
        path = file.relative_to(folder).as_posix()
        below = file.relative_to(root).parts
        cameras = [whole_number(found[1]) for part in below[1:-1] if (found := _CAMERA.fullmatch(part))]
        if len(below) < 2:
            findings.append(f"{path} lies in no person's folder")
        elif file.suffix.lower() not in SUFFIXES:
            findings.append(f"{path} is none of {', '.join(SUFFIXES)}")
        elif not is_file(file):
            findings.append(f"{path} is a link to a file that is not there, or no file that you may read")
        elif len(cameras) > 1:
            findings.append(f"{path} lies in several camN folders")
        elif None in cameras:
            findings.append(f"{path} lies in a folder of a camera above {LARGEST_NUMBER}")
        elif defect := find_name_defect(path):
            findings.append(f"{path!r} cannot be listed, as {defect}; rename it")
        elif path != path.strip():
            findings.append(f"{path!r} begins or ends with a space")
        else:
            rows.append((path, below[0], cameras[0] if cameras else None, modality, split))
    known = {row[1] for row in rows}
    persons = [entry.name for entry in list_folder(root, folder, []) if is_folder(entry)]
    findings += [
        f"{split}/{modality}/{person} holds no image"
        for person in persons
        if person not in known and not any(f"{split}/{modality}/{person}/" in finding for finding in findings)
    ]
    return rows


def _number(persons: list[str], findings: list[str]) -> dict[str, int]:
    """Folder name -> pid: its number, or all are counted from 1."""
    names = sorted(set(persons))
    pids = {name: pid for name in names if (pid := whole_number(name)) is not None}
    if len(pids) < len(names):
        return {name: pid for pid, name in enumerate(names, start=1)}
    for pid in sorted({pid for pid in pids.values() if list(pids.values()).count(pid) > 1}):
        same = ", ".join(name for name in names if pids[name] == pid)
        findings.append(f"person {pid} has several folder names: {same}; give each person one")
    return pids


def _count(rows: list[Row]) -> dict[tuple[str, str], tuple[int, int]]:
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for split in SPLITS:
        for modality in MODALITIES:
            persons = [row[1] for row in rows if (row[4], row[3]) == (split, modality)]
            if persons:
                counts[split, modality] = (len(set(persons)), len(persons))
    return counts

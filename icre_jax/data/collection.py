"""Which images a user means: those of a folder, of a list of paths, or of a manifest with labels.

    FOLDER          its manifest.csv if it holds one; otherwise every image in it and below
    NAME.csv        a manifest (`icre_jax.data.layouts.manifest`), of which the images of one modality are taken
    any other file  one path a line, relative to the folder of the list

Nothing is skipped in silence: what is in a folder and is no image is refused by name, as are folders that cannot be
read and lines that cannot be used.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from icre_jax.data.images import SUFFIXES
from icre_jax.data.layouts import manifest
from icre_jax.data.walking import walk_files
from icre_jax.datasets import Modality
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files.names import find_name_defect, is_file
from icre_jax.files.texts import read_text


@dataclass(frozen=True, eq=False)
class Collection:
    """Images of one modality, and what is known of them.

    Attributes:
      root: the folder that paths are relative to.
      path: [N] str, with forward slashes, in normal form ("x/a.png" where a list says "./x//a.png").
      pid, camid: [N] int64; None where nobody says.
      num_others: images of the manifest that are of the other modality, or of another split than was asked for.
    """

    root: Path
    path: np.ndarray
    pid: np.ndarray | None = None
    camid: np.ndarray | None = None
    num_others: int = 0

    def __len__(self) -> int:
        return len(self.path)

    @property
    def files(self) -> list[Path]:
        """Where the images are."""
        return [self.root / path for path in self.path.tolist()]


def collect(source: Path, modality: Modality, split: str | None = None) -> Collection:
    """The images of one modality that `source` means; none of them is opened.

    Args:
      source: a folder, a list or a manifest, as above.
      modality: of a manifest, take these. Of a folder or a list all images are taken to be of it.
      split: of a manifest, take only "train", "query" or "gallery"; None for all.

    Raises:
      InputError: nothing is there, or no image; or naming every file, folder and line that has no place.
    """
    file = source / manifest.NAME if is_file(source / manifest.NAME) else source
    if file.suffix.lower() == ".csv" and file.is_file():
        return _of_manifest(file, modality, split)
    if split is not None:
        raise InputError(f"--split {split} needs a manifest, which says what is of which split; {source} is none.")
    if source.is_dir():
        return _of_folder(source)
    if source.is_file():
        return _of_list(source)
    raise InputError(
        f"There is no {source}. Give a folder of images, a list with one path a line, or a manifest "
        f"({','.join(manifest.COLUMNS)})."
    )


def _of_manifest(file: Path, modality: Modality, split: str | None) -> Collection:
    splits, findings = manifest.survey_lines(file)
    if findings:
        raise InputError(f"{file} cannot be used:\n{join_findings(findings)}\n{manifest.HOW_TO_GET}")
    everything = [record for records in splits.values() for record in records]
    asked = everything if split is None else splits[split]
    records = [record for record in asked if record.modality == modality]
    if not records:
        where = "" if split is None else f" in the split {split}"
        raise InputError(f"{file} names no {modality} image{where}. Choose another --modality or --split.")
    return Collection(
        root=file.parent,
        path=np.array([record.path for record in records]),
        pid=np.array([record.pid for record in records], np.int64),
        camid=np.array([record.camid for record in records], np.int64),
        num_others=len(everything) - len(records),
    )


def _of_folder(folder: Path) -> Collection:
    paths: list[str] = []
    findings: list[str] = []
    for file in walk_files(folder, folder, findings):
        path = file.relative_to(folder).as_posix()
        if defect := find_name_defect(path):
            findings.append(f"{path!r} cannot be listed, as {defect}; rename it")
        elif file.suffix.lower() not in SUFFIXES:
            findings.append(f"{path} is none of {', '.join(SUFFIXES)}")
        else:
            paths.append(path)
    if findings:
        raise InputError(
            f"{folder} cannot be used:\n{join_findings(findings)}\n"
            "Mend this or remove it, or give a list of the images."
        )
    if not paths:
        raise InputError(f"{folder} holds no image ({', '.join(SUFFIXES)}).")
    return Collection(folder, np.array(paths))


def _of_list(file: Path) -> Collection:
    try:
        lines = read_text(file).splitlines()
    except UnreadableError as error:
        raise InputError(f"{file} is no list of images ({error.reason}). It is text, one path a line.") from error
    # In normal form, or one image could be named twice.
    named = [
        (number, PurePosixPath(line.strip()).as_posix()) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    lines_of: dict[str, int] = {}
    findings = []
    for number, path in named:
        if path in lines_of:
            findings.append(f"line {number}: {path} is named in line {lines_of[path]} already")
        elif defect := find_name_defect(path):
            findings.append(f"line {number}: {path!r} cannot be used, as {defect}; rename the file")
        elif not is_file(file.parent / path):
            findings.append(f"line {number}: {path} is missing")
        lines_of.setdefault(path, number)
    if not named:
        findings.append("names no image")
    if findings:
        raise InputError(
            f"{file} cannot be used:\n{join_findings(findings)}\nA list holds one path a line, relative to its folder."
        )
    return Collection(file.parent, np.array([path for _, path in named]))

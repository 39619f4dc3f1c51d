"""Which images a user means: those of a folder, of a list of paths, or of a manifest with labels.

    FOLDER          its manifest.csv if it holds one; otherwise every image in it and below, or in the folder visible or
                    infrared in it where one of these is there
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
from icre_jax.data.walking import is_folder, list_folder, walk_files
from icre_jax.datasets import MODALITIES, Modality
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files.names import find_name_defect, is_file
from icre_jax.files.texts import read_text


@dataclass(frozen=True, eq=False)
class Collection:
    """Images of one modality, and what is known of them.

    Attributes:
      root: the folder that paths are relative to; visible/ or infrared/ where that was chosen.
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


def collect(source: Path, modality: Modality, split: str | None = None, *, with_training: bool = True) -> Collection:
    """The images of one modality that `source` means; none of them is opened.

    Args:
      source: a folder, a list or a manifest, as above.
      modality: of a manifest, and of a folder with visible/ or infrared/, take these. Of another folder or a list all
        images are taken to be of it.
      split: of a manifest, take only "train", "query" or "gallery"; None for all.
      with_training: whether "train" is among all.

    Raises:
      InputError: nothing is there, or no image; or naming every file, folder and line that has no place.
    """
    file = source / manifest.NAME if is_file(source / manifest.NAME) else source
    if file.suffix.lower() == ".csv" and file.is_file():
        return _of_manifest(file, modality, _splits(split, with_training=with_training))
    if split is not None:
        raise InputError(f"--split {split} needs a manifest, which says what is of which split; {source} is none.")
    if source.is_dir():
        return _of_folder(source, modality)
    if source.is_file():
        return _of_list(source)
    raise InputError(
        f"There is no {source}. Give a folder of images, a list with one path a line, or a manifest "
        f"({','.join(manifest.COLUMNS)})."
    )


def _splits(split: str | None, *, with_training: bool) -> tuple[str, ...]:
    if split is not None:
        return (split,)
    return manifest.SPLITS if with_training else manifest.TEST_SPLITS


def _of_manifest(file: Path, modality: Modality, wanted: tuple[str, ...]) -> Collection:
    splits, findings = manifest.survey_lines(file)
    if findings:
        raise InputError(f"{file} cannot be used:\n{join_findings(findings)}\n{manifest.HOW_TO_GET}")
    records = [record for split in wanted for record in splits[split] if record.modality == modality]
    if not records:
        if wanted == manifest.TEST_SPLITS:
            fix = "Choose another --modality, or list them as query or gallery: training images are not taken."
        else:
            fix = "Choose another --modality or --split."
        where = "" if wanted == manifest.SPLITS else f" in the split {' or '.join(wanted)}"
        raise InputError(f"{file} names no {modality} image{where}. {fix}")
    return Collection(
        root=file.parent,
        path=np.array([record.path for record in records]),
        pid=np.array([record.pid for record in records], np.int64),
        camid=np.array([record.camid for record in records], np.int64),
        num_others=sum(map(len, splits.values())) - len(records),
    )


def _of_folder(folder: Path, modality: Modality) -> Collection:
    folder = _choose_folder(folder, modality)
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


def _choose_folder(folder: Path, modality: Modality) -> Path:
    """Its folder of the modality where it has one for either: images of the other would pass the wrong stem."""
    entries = list_folder(folder, folder, [])  # one that cannot be read is named by the walk
    splits = [entry.name for entry in entries if entry.name in manifest.SPLITS and _has_modalities(folder / entry.name)]
    if splits:
        raise InputError(
            f"{folder} holds {', '.join(splits)} with a folder for each modality. Name one of them, for example "
            f"{folder / splits[0]}, or have a list of all written: python -m icre_jax.prepare --make_manifest {folder}"
        )
    if not _has_modalities(folder):
        return folder
    if not any(entry.name == modality and is_folder(entry) for entry in entries):
        raise InputError(f"{folder} has no folder {modality!r} beside the other modality's.")
    others = [entry.name for entry in entries if not (entry.name in MODALITIES and is_folder(entry))]
    if others:
        raise InputError(f"{folder} holds {', '.join(others[:10])} beside {' and '.join(MODALITIES)}. Remove it.")
    return folder / modality


def _has_modalities(folder: Path) -> bool:
    return any(entry.name in MODALITIES and is_folder(entry) for entry in list_folder(folder, folder, []))


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

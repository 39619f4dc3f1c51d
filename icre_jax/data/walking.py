"""Walks through folders that anybody has filled with images.

What file managers leave, hidden entries and Thumbs.db, is passed over everywhere. A folder that cannot be read is a
finding, as what is in it would be left out in silence.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def list_folder(folder: Path, base: Path, findings: list[str]) -> list[os.DirEntry[str]]:
    """What is right in a folder, by name; nothing if it cannot be read, which goes into `findings`.

    Args:
      folder: to look into.
      base: it, or a folder above it from which findings name it.
      findings: to add to.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _is_left_over(entry)), key=lambda entry: entry.name)
    except OSError as error:
        place = "the folder itself" if folder == base else f"{folder.relative_to(base).as_posix()}/"
        findings.append(f"{place} cannot be read ({error.strerror or error}); it must be a folder that you may read")
        return []


def walk_files(folder: Path, base: Path, findings: list[str]) -> Iterator[Path]:
    """Every file in a folder and below, ordered by the parts of the paths; arguments as of `list_folder`.

    Links to folders are findings too: they are not followed, so nobody would look into them.
    """
    waiting = list_folder(folder, base, findings)[::-1]
    while waiting:
        entry = waiting.pop()
        path = Path(entry.path)
        if not is_folder(entry):
            yield path
        elif entry.is_symlink():
            findings.append(f"{path.relative_to(base).as_posix()} is a link to a folder; put the folder itself there")
        else:
            waiting += list_folder(path, base, findings)[::-1]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; no entry is an error here."""
    try:
        return entry.is_dir()
    except OSError:  # a link in circles, or to where nobody may look
        return False


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or (entry.name == "Thumbs.db" and not is_folder(entry))

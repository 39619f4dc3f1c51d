"""The files of an index, one version at a time.

    FOLDER/index.json            network (hash), creation, number and size of embeddings, preprocessing; which <n>;
                                 SHA-256 of the two files below, and of itself
    FOLDER/embeddings-<n>.npy    [N, D] float16, rows of length 1 (`icre_jax.retrieval.rows`)
    FOLDER/entries-<n>.csv       path, person, camera, modality of every row

Version <n> is there once index.json names it, which happens in one step; the files of the version before are removed
after it. Whatever interrupts a change, the folder is the old index or the new one. Nothing of it is used before it was
compared with its sum.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pydantic

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.errors import InputError, UnreadableError
from icre_jax.files import whole_file, write_file
from icre_jax.files.json_files import read_json
from icre_jax.files.names import find_name_defect
from icre_jax.files.regular import read_bytes
from icre_jax.files.texts import parse_rows, whole_number
from icre_jax.retrieval.rows import compare_rows, map_rows, write_rows
from icre_jax.sums import seal, unseal

HEADER = "index.json"
ROWS_TOGETHER = 4096  # that are copied at a time
_COLUMNS = ("path", "person", "camid", "modality", "root")
_LARGEST_HEADER = 2**24  # bytes of index.json
_LARGEST_ENTRY = 2**13  # bytes of an entry, on average
_OF_A_VERSION = re.compile(r"(?:embeddings|entries)-(\d+)\.(?:npy|csv)")
_UNFINISHED = re.compile(r"\.(?:index|embeddings-\d+|entries-\d+)\.(?:json|npy|csv)\.\d+\.partial")


class Entry(NamedTuple):
    """What a row of an index shows.

    Attributes:
      path: of the image, relative to `root`, with forward slashes.
      person: as a folder or list called them; "" where nobody said.
      camid: the camera's number, None where it is not known.
      modality: "visible" or "infrared".
      root: the folder that was indexed, absolute.
    """

    path: str
    person: str
    camid: int | None
    modality: Modality
    root: str

    @property
    def file(self) -> Path:
        """Where the image was when it was indexed."""
        return Path(self.root, self.path)


class Header(pydantic.BaseModel):
    """What index.json says; times are UTC, by ISO 8601."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[2] = 2
    model_hash: str
    origin: str
    created: str
    changed: str
    num_images: int = pydantic.Field(ge=1, lt=2**31)
    dimensions: int = pydantic.Field(ge=1, lt=2**20)
    preprocessing: dict[str, Any]
    roots: list[str]
    version: int = pydantic.Field(ge=1)
    entries_sha256: str
    embeddings_sha256: list[str]

    @property
    def embeddings_name(self) -> str:
        """Of the file with the embeddings."""
        return _names(self.version)[0]

    @property
    def entries_name(self) -> str:
        """Of the file with the entries."""
        return _names(self.version)[1]


def write_version(
    folder: Path,
    blocks: Iterable[npt.NDArray[np.floating]],
    entries: Sequence[Entry],
    *,
    dimensions: int,
    **facts: Any,
) -> Header:
    """Write the files of a version and make it the one that counts.

    Args:
      folder: of the index.
      blocks: embeddings [M, dimensions] of the entries, in order; scaled to length 1 unless they are float16.
      entries: of all rows.
      dimensions: of an embedding.
      **facts: the other fields of `Header`.

    Raises:
      InputError: an embedding that is not finite.
      ValueError: not one embedding of this size for each entry, or a float16 one that is longer than 1.
      OSError: the folder cannot be written; it is as it was.
    """
    roots = list(dict.fromkeys(entry.root for entry in entries))
    text = _to_csv(entries, roots)
    version = facts["version"]
    embeddings, listed = (folder / name for name in _names(version))

    def name(row: int) -> str:
        return entries[row].path if row < len(entries) else "an image"

    try:
        with whole_file(embeddings) as partial:
            sums = write_rows(partial, blocks, num_rows=len(entries), dimensions=dimensions, name=name)
        write_file(listed, text)
    except BaseException:
        for path in (embeddings, listed):
            path.unlink(missing_ok=True)
        raise
    header = Header(
        num_images=len(entries),
        dimensions=dimensions,
        roots=roots,
        entries_sha256=hashlib.sha256(text).hexdigest(),
        embeddings_sha256=sums,
        **facts,
    )
    write_file(folder / HEADER, json.dumps(seal(header.model_dump()), indent=2) + "\n")
    return header


def read_header(folder: Path) -> Header:
    """What the index in `folder` says of itself.

    Raises:
      InputError: there is none, or it cannot be read.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"{folder} is not the index of a gallery: {path} is missing. `icre_jax index` makes one.")
    try:
        return Header.model_validate(unseal(read_json(path, most_bytes=_LARGEST_HEADER)))
    except UnreadableError as error:
        raise _damaged(folder, f"{HEADER}: {error.reason}") from error
    except ValueError as error:  # pydantic's among them
        raise _damaged(folder, f"{HEADER}: {' '.join(str(error).split())[:300]}") from error


def read_version(folder: Path, header: Header) -> tuple[npt.NDArray[np.float16], list[Entry]]:
    """Embeddings, memory-mapped, and entries.

    Raises:
      FileNotFoundError: another process has replaced this version.
      InputError: they do not fit the header.
    """
    path = folder / header.entries_name
    try:
        text = read_bytes(path, most_bytes=_LARGEST_ENTRY * header.num_images)
    except UnreadableError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise _damaged(folder, f"{path.name}, of {header.num_images} entries: {error.reason}") from error
    if hashlib.sha256(text).hexdigest() != header.entries_sha256:
        raise _damaged(folder, f"{path.name} is not what was written")
    embeddings = open_embeddings(folder, header)
    try:
        entries = list(_from_csv(text, header.roots))
    except (ValueError, KeyError, IndexError) as error:
        raise _damaged(folder, f"{path.name} is no list of entries: {error!r}") from error
    if len(entries) != header.num_images:
        raise _damaged(folder, f"{path.name} has {len(entries)} entries, not {header.num_images}")
    return embeddings, entries


def open_embeddings(folder: Path, header: Header) -> npt.NDArray[np.float16]:
    """Embeddings of a version alone, memory-mapped and not compared yet; as of `read_version`."""
    path = folder / header.embeddings_name
    try:
        return map_rows(path, header.embeddings_sha256, num_rows=header.num_images, dimensions=header.dimensions)
    except UnreadableError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise _damaged(folder, f"{path.name}: {error.reason}") from error
    except ValueError as error:
        raise _damaged(folder, f"{path.name}: {error}") from error


def compare_embeddings(folder: Path, header: Header, embeddings: npt.NDArray[np.float16], part: range) -> None:
    """Compare a part of the rows with their sums.

    Args:
      folder, header: of the index.
      embeddings: all rows, as `open_embeddings` gives them.
      part: those that will be used.

    Raises:
      InputError: one of them is not what was written.
    """
    if findings := compare_rows(embeddings, header.embeddings_sha256, part):
        raise _damaged(folder, f"{header.embeddings_name}: {findings[0]}")


def remove_other_versions(folder: Path, version: int) -> None:
    """Remove the files of every other version, finished or not; only the writer of the folder may call it."""
    for path in folder.iterdir():
        found = _OF_A_VERSION.fullmatch(path.name)
        if (found and int(found[1]) != version) or _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def check_entries(entries: Sequence[Entry]) -> None:
    """Refuse what a line of the list cannot hold.

    Raises:
      InputError: naming a text that is not UTF-8.
      ValueError: a modality that there is not.
    """
    for entry in entries:
        if entry.modality not in MODALITIES:
            raise ValueError(f"The modality {entry.modality!r} is none of {', '.join(MODALITIES)}.")
        for name in (entry.path, entry.person, entry.root):
            if defect := find_name_defect(name):
                raise InputError(f"The name {name!r} cannot be listed, as {defect}. Rename the file or folder.")


def _to_csv(entries: Sequence[Entry], roots: Sequence[str]) -> bytes:
    number = {root: i for i, root in enumerate(roots)}
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for path, person, camid, modality, root in entries:
        writer.writerow((path, person, "" if camid is None else camid, modality, number[root]))
    return stream.getvalue().encode()


def _from_csv(text: bytes, roots: Sequence[str]) -> Iterator[Entry]:
    """The lines of what `_to_csv` wrote.

    Raises:
      ValueError, KeyError, IndexError: it did not write them. Whoever changes the lines can change their checksum.
    """
    lines = parse_rows(text.decode())
    next(lines, None)
    # One object for each person, root and modality, however many entries name it.
    words: dict[str, Modality] = {name: name for name in MODALITIES}
    persons: dict[str, str] = {}
    for _, (path, person, camid, modality, root) in lines:
        person = persons.setdefault(person, person)
        for name in (path, person):
            if defect := find_name_defect(name):
                raise ValueError(f"the name {name[:100]!r} cannot stand in it, as {defect}")
        camera, place = whole_number(camid, largest=2**63 - 1), whole_number(root)
        if place is None or (camid and camera is None):
            raise ValueError(f"camera {camid[:100]!r} and folder {root[:100]!r} must be whole numbers")
        yield Entry(path, person, camera, words[modality], roots[place])


def _names(version: int) -> tuple[str, str]:
    return f"embeddings-{version}.npy", f"entries-{version}.csv"


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"The index {folder} is damaged ({what}). Index its images again.")

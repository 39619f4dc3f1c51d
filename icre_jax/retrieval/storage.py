"""The files of an index, one version at a time.

    FOLDER/index.json            network (hash), creation, number and size of embeddings, preprocessing; which <n>
    FOLDER/embeddings-<n>.npy    [N, D] float16, rows of length 1
    FOLDER/entries-<n>.csv       path, person, camera, modality of every row

Version <n> is there once index.json names it, which happens in one step; the files of the version before are removed
after it. Whatever interrupts a change, the folder is the old index or the new one.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pydantic

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.errors import InputError
from icre_jax.evals.ranking import normalize
from icre_jax.files import whole_file, write_file

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

    format: Literal[1] = 1
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

    @property
    def embeddings_name(self) -> str:
        """Of the file with the embeddings."""
        return f"embeddings-{self.version}.npy"

    @property
    def entries_name(self) -> str:
        """Of the file with the entries."""
        return f"entries-{self.version}.csv"


# Length that no row exceeds: 1, rounded to float16 number by number.
LONGEST = 1.01


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
    header = Header(
        num_images=len(entries),
        dimensions=dimensions,
        roots=roots,
        entries_sha256=hashlib.sha256(text).hexdigest(),
        **facts,
    )
    try:
        with whole_file(folder / header.embeddings_name) as partial, partial.open("wb") as file:
            # Written, not mapped: a full disk is then an error, and not the end of the process.
            shape = (len(entries), dimensions)
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            written = 0
            for block in blocks:
                if block.ndim != 2 or block.shape[1] != dimensions:
                    raise ValueError(f"Embeddings must be [M, {dimensions}], not {list(block.shape)}.")
                file.write(_to_rows(block, entries, written).tobytes())
                written += len(block)
            if written != len(entries):
                raise ValueError(f"There are {written} embeddings for {len(entries)} entries.")
            file.flush()
            os.fsync(file.fileno())
        write_file(folder / header.entries_name, text)
    except BaseException:
        for name in (header.embeddings_name, header.entries_name):
            (folder / name).unlink(missing_ok=True)
        raise
    write_file(folder / HEADER, header.model_dump_json(indent=2) + "\n")
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
        if path.stat().st_size > _LARGEST_HEADER:
            raise ValueError(f"it is larger than {_LARGEST_HEADER} bytes")
        return Header.model_validate_json(path.read_bytes())
    except ValueError as error:  # pydantic's among them
        raise _damaged(folder, f"{HEADER}: {' '.join(str(error).split())[:300]}") from error


def read_version(folder: Path, header: Header) -> tuple[npt.NDArray[np.float16], list[Entry]]:
    """Embeddings, memory-mapped, and entries.

    Raises:
      FileNotFoundError: another process has replaced this version.
      InputError: they do not fit the header.
    """
    path = folder / header.entries_name
    if path.stat().st_size > _LARGEST_ENTRY * header.num_images:
        raise _damaged(folder, f"{path.name} is too large for {header.num_images} entries")
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != header.entries_sha256:
        raise _damaged(folder, f"{path.name} is not what was written")
    embeddings = open_embeddings(folder, header)
    entries = list(_from_csv(text, header.roots))
    if len(entries) != header.num_images:
        raise _damaged(folder, f"{path.name} has {len(entries)} entries, not {header.num_images}")
    return embeddings, entries


def open_embeddings(folder: Path, header: Header) -> npt.NDArray[np.float16]:
    """Embeddings of a version alone, memory-mapped; as of `read_version`."""
    try:
        embeddings = np.load(folder / header.embeddings_name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, f"{header.embeddings_name}: {error}") from error
    expected = (header.num_images, header.dimensions)
    if embeddings.dtype != np.float16 or embeddings.shape != expected or not embeddings.flags.c_contiguous:
        raise _damaged(
            folder,
            f"{header.embeddings_name} is {embeddings.dtype} {list(embeddings.shape)}, not float16 {list(expected)}",
        )
    return embeddings


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
        try:
            "".join((entry.path, entry.person, entry.root)).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"The name {entry.path!r} is not valid UTF-8. Rename the file.") from error
        if "\0" in entry.path + entry.person or "\r" in entry.path + entry.person:
            raise InputError(f"The name {entry.path!r} holds a control character. Rename the file.")


def _to_rows(block: npt.NDArray[np.floating], entries: Sequence[Entry], first: int) -> npt.NDArray[np.float16]:
    """[M, D] as they are stored; those that are stored already stay as they are."""
    if block.dtype == np.float16:
        rows = np.asarray(block, "<f2")
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            rows = normalize(np.asarray(block, np.float32)).astype("<f2")
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if broken.size:
        name = entries[first + broken[0]].path if first + broken[0] < len(entries) else "an image"
        raise InputError(f"The embedding of {name} is not finite: the network has diverged or is damaged.")
    squares = np.vecdot(rows, rows, dtype=np.float32)
    if squares.max(initial=0) > LONGEST**2:
        raise ValueError(f"Embeddings in float16 must be of length 1; one has {float(np.sqrt(squares.max())):.3f}.")
    return rows


def _to_csv(entries: Sequence[Entry], roots: Sequence[str]) -> bytes:
    number = {root: i for i, root in enumerate(roots)}
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for path, person, camid, modality, root in entries:
        writer.writerow((path, person, "" if camid is None else camid, modality, number[root]))
    return stream.getvalue().encode()


def _from_csv(text: bytes, roots: Sequence[str]) -> Iterator[Entry]:
    """The lines of what `_to_csv` wrote; its checksum was compared, so that they are as they were written."""
    lines = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
    next(lines)
    # One object for each person, root and modality, however many entries name it.
    words: dict[str, Modality] = {name: name for name in MODALITIES}
    persons: dict[str, str] = {}
    for path, person, camid, modality, root in lines:
        person = persons.setdefault(person, person)
        yield Entry(path, person, int(camid) if camid else None, words[modality], roots[int(root)])


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"The index {folder} is damaged ({what}). Index its images again.")

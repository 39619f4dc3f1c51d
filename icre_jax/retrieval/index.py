"""A gallery on disk: embeddings that are memory-mapped, who and what they show, and the network that made them.

`icre_jax.retrieval.storage` has the files. Embeddings of people are biometric data: what is deleted is in no file of
the folder afterwards.
"""

import dataclasses
import datetime
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError, join_findings
from icre_jax.files import new_folder
from icre_jax.retrieval.storage import (
    ROWS_TOGETHER,
    Entry,
    Header,
    check_entries,
    compare_embeddings,
    read_header,
    read_version,
    remove_other_versions,
    write_version,
)

__all__ = ["Entry", "GalleryIndex"]

# [N, D], or blocks [M, D] one after the other, so that N is not limited by memory.
Embeddings = npt.NDArray[np.floating] | Iterable[npt.NDArray[np.floating]]


@dataclasses.dataclass(frozen=True, eq=False)
class GalleryIndex:
    """An index as it was when it was opened; a change gives a new one, and this one can be read on.

    One process at a time may change an index (`icre_jax.machine.lock`); any number may read.

    Attributes:
      folder: where it is.
      header: what index.json says.
      embeddings: [N, D] float16, memory-mapped, rows of length 1.
      entries: of every row.
    """

    folder: Path
    header: Header
    embeddings: npt.NDArray[np.float16]
    entries: Sequence[Entry]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def num_persons(self) -> int:
        """Persons in it; an image of nobody known counts as a person of its own."""
        return count_persons([entry.person for entry in self.entries])

    @classmethod
    def create(
        cls,
        folder: Path,
        embeddings: Embeddings,
        entries: Sequence[Entry],
        *,
        model_hash: str,
        origin: str = "",
        preprocessing: dict[str, Any] | None = None,
    ) -> "GalleryIndex":
        """Write a new index; the folder appears when it is complete.

        Args:
          folder: where; nothing, or an empty folder, may be there.
          embeddings: of every entry, finite; scaled to length 1 (float16 is taken as it is).
          entries: of every row.
          model_hash: of the network, which tells it from others.
          origin: what the network was called.
          preprocessing: how images became embeddings, plain values.

        Raises:
          InputError: something is at `folder`, no image, one listed twice, or an embedding that is not finite.
          ValueError: not one embedding for each entry.
        """
        folder = folder.expanduser().resolve()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists already. Name a new folder, or add to the index that is there (--add).")
        _check_new(entries, ())
        dimensions, blocks = _open_blocks(embeddings)
        now = _now()
        with new_folder(folder) as partial:
            write_version(
                partial,
                blocks,
                entries,
                dimensions=dimensions,
                version=1,
                model_hash=model_hash,
                origin=origin,
                created=now,
                changed=now,
                preprocessing=preprocessing or {},
            )
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, *, compare: bool = True) -> "GalleryIndex":
        """Open an index: entries are read, embeddings are mapped and compared with their sums.

        Args:
          folder: where it is.
          compare: False where other processes use the rows, and compare those that they use; see `require_whole`.

        Raises:
          InputError: there is none, or it is damaged.
        """
        folder = folder.expanduser().resolve()
        try:
            index = cls._read(folder, read_header(folder))
        except FileNotFoundError:
            # Replaced by another process after index.json was read; what it says now is there.
            try:
                index = cls._read(folder, read_header(folder))
            except FileNotFoundError as error:
                raise InputError(
                    f"The index {folder} is damaged ({error.filename} is missing). Index its images again."
                ) from error
        if compare:
            index.require_whole()
        return index

    def require_whole(self) -> None:
        """Raise `InputError` unless all rows are what was written; all of them are read."""
        compare_embeddings(self.folder, self.header, self.embeddings, range(len(self)))

    def require_model(self, model_hash: str, origin: str) -> None:
        """Raise `InputError` unless the network `origin` with this hash is the one that made this index."""
        if model_hash != self.header.model_hash:
            raise InputError(
                f"The index {self.folder} was made with another network than {origin}: with "
                f"{self.header.origin or 'one'} of hash {self.header.model_hash[:12]}, and {origin} has "
                f"{model_hash[:12]}. Embeddings of two networks cannot be compared: name that network, or index the "
                "images again with this one."
            )

    def add(self, embeddings: Embeddings, entries: Sequence[Entry]) -> "GalleryIndex":
        """The index with more images at its end, which the folder holds from then on; as `create`."""
        _check_new(entries, self.entries)
        dimensions, blocks = _open_blocks(embeddings)
        if dimensions != self.header.dimensions:
            raise ValueError(f"Embeddings of size {dimensions} do not fit an index of size {self.header.dimensions}.")
        return self._replace(itertools.chain(_split(self.embeddings), blocks), [*self.entries, *entries])

    def delete(self, *, persons: Collection[str] = (), paths: Collection[str] = ()) -> "GalleryIndex":
        """The index without all images of some persons and without some images, which the folder holds from then on.

        Their rows are in no file of it any more. What a disk keeps of removed files, and backups, are out of reach.

        Args:
          persons: labels.
          paths: of images, as entries have them, or whole as `Entry.file` has them.

        Raises:
          InputError: a person or image that is not there, a path that two folders have, or nothing would be left;
            nothing is deleted then.
        """
        remove_other_versions(self.folder, self.header.version)  # of a deletion that was interrupted
        rows: dict[str, list[int]] = {}
        for row, entry in enumerate(self.entries):
            for name in {entry.path, str(entry.file)}:
                rows.setdefault(name, []).append(row)
        known = {entry.person for entry in self.entries} - {""}
        missing = [f"person {name!r}" for name in persons if name not in known]
        missing += [f"image {path!r}" for path in paths if path not in rows]
        if missing:
            raise InputError(f"Nothing was deleted; the index {self.folder} does not hold\n{join_findings(missing)}")
        several = [str(self.entries[row].file) for path in paths if len(rows[path]) > 1 for row in rows[path]]
        if several:
            raise InputError(
                f"Nothing was deleted; the index {self.folder} holds several images of this path. Give the whole "
                f"path of each that is meant:\n{join_findings(several)}"
            )
        persons, images = set(persons), {row for path in paths for row in rows[path]}
        keep = [row for row, entry in enumerate(self.entries) if entry.person not in persons and row not in images]
        if not keep:
            raise InputError(f"Nothing would be left in the index {self.folder}. Delete the whole folder instead.")
        blocks = (self.embeddings[keep[start : start + ROWS_TOGETHER]] for start in range(0, len(keep), ROWS_TOGETHER))
        return self._replace(blocks, [self.entries[row] for row in keep])

    @classmethod
    def _read(cls, folder: Path, header: Header) -> "GalleryIndex":
        return cls(folder, header, *read_version(folder, header))

    def _replace(self, blocks: Iterable[npt.NDArray[np.floating]], entries: Sequence[Entry]) -> "GalleryIndex":
        remove_other_versions(self.folder, self.header.version)
        same = self.header.model_dump(include={"dimensions", "model_hash", "origin", "created", "preprocessing"})
        header = write_version(self.folder, blocks, entries, version=self.header.version + 1, changed=_now(), **same)
        remove_other_versions(self.folder, header.version)
        return self._read(self.folder, header)


def count_persons(persons: Sequence[str]) -> int:
    """Different labels; every "" counts as another person."""
    return len({person for person in persons if person}) + sum(not person for person in persons)


def _check_new(entries: Sequence[Entry], present: Sequence[Entry]) -> None:
    if not entries:
        raise InputError("There is no image to index.")
    check_entries(entries)
    seen = {(entry.root, entry.path) for entry in present}
    twice = []
    for entry in entries:
        if (entry.root, entry.path) in seen:
            twice.append(str(entry.file))
        seen.add((entry.root, entry.path))
    if twice:
        raise InputError(
            f"{len(twice)} images are in the index already, or named twice; nothing was changed:\n"
            f"{join_findings(twice)}\nDelete them first if they are to be indexed anew."
        )


def _open_blocks(embeddings: Embeddings) -> tuple[int, Iterator[npt.NDArray[np.floating]]]:
    """Size of an embedding, and all blocks."""
    blocks = _split(embeddings) if isinstance(embeddings, np.ndarray) else iter(embeddings)
    first = next(blocks, None)
    if first is None or first.ndim != 2:
        raise ValueError("Embeddings must be [M, D], at least one.")
    return first.shape[1], itertools.chain([first], blocks)


def _split(embeddings: npt.NDArray[np.floating]) -> Iterator[npt.NDArray[np.floating]]:
    return (embeddings[start : start + ROWS_TOGETHER] for start in range(0, len(embeddings), ROWS_TOGETHER))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""The records of a prepared data set, each image compared with its sum when it is read.

Their files may have tens of gigabytes, so that no start of a run reads all of them. Each image has a CRC-32, which sees
every single bit and takes less than half the time of SHA-256: where pixels are stored as they are, reading is quick.
ArrayRecord compares its chunks with hashes of 64 bits too, but says so in words of its own, and gives other records,
without a word, of some files that were cut.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from icre_jax.errors import InputError


class ComparedRecords:
    """Random access to a split: `records[i]["image"]` is the bytes of image i, as they were stored."""

    def __init__(self, folder: Path, split: str, paths: np.ndarray, sums: np.ndarray):
        """Open the split; nothing is read yet.

        Args:
          folder: of the records.
          split: its name.
          paths: [N] str, what each record shows, for people.
          sums: [N] uint32, `sum_of` each image.

        Raises:
          InputError: TFDS cannot open it.
        """
        self._folder, self._split, self._paths, self._sums = folder, split, paths, sums
        try:
            builder = tfds.builder_from_directory(str(folder))
            # Decoding is ours (see `icre_jax.data.images`).
            self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except MemoryError:
            raise
        except Exception as error:  # TFDS and ArrayRecord have no common kind of error
            raise damaged(folder, f"{split} cannot be opened: {_first_line(error)}") from error
        if len(self._source) != len(sums):
            raise damaged(folder, f"{split} has {len(self._source)} records, not {len(sums)}")

    def __len__(self) -> int:
        return len(self._sums)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """A record.

        Raises:
          InputError: it cannot be read, or its image is not the one that was stored.
        """
        name = f"record {row} of {self._split}, {self._paths[row]},"
        try:
            record = self._source[row]
        except MemoryError:
            raise
        except Exception as error:
            raise damaged(self._folder, f"{name} cannot be read: {_first_line(error)}") from error
        if sum_of(record["image"]) != self._sums[row]:
            raise damaged(self._folder, f"{name} is not what was stored")
        return record


def sum_of(image: bytes) -> int:
    """CRC-32 of an image as it is stored."""
    return zlib.crc32(image)


def damaged(folder: Path, finding: str) -> InputError:
    """What is wrong with prepared records, and what to do."""
    return InputError(
        f"The prepared records in {folder} are damaged: {finding}. Take another copy of them, or delete that "
        "folder: they are prepared anew where the tree is still there."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

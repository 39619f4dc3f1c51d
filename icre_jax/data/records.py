"""What one image is, before and after it was prepared."""

import dataclasses

import numpy as np

from icre_jax.datasets import MODALITIES


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a data set as it lies on disk.

    Attributes:
      path: relative to the root of the data set, with forward slashes.
      pid: identity, as the data set numbers it.
      camid: camera, as the data set numbers it.
      modality: "visible" or "infrared".
      track: number of the track that it is a frame of, as the data set counts them; None for an image of its own.
    """

    path: str
    pid: int
    camid: int
    modality: str
    track: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class SplitIndex:
    """All of a split but the pixels, in the order of its records.

    Attributes:
      path: [N] str.
      pid: [N] int64.
      camid: [N] int64.
      modality: [N] int64, an index into `MODALITIES`.
      track: [N] int64; None where images are not frames of tracks. Frames of a track lie side by side, in its order.
    """

    path: np.ndarray
    pid: np.ndarray
    camid: np.ndarray
    modality: np.ndarray
    track: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pid)

    @staticmethod
    def from_records(records: list[Record]) -> "SplitIndex":
        """Columns of a list of records."""
        tracks = [record.track for record in records if record.track is not None]
        return SplitIndex(
            path=np.array([record.path for record in records], dtype=np.str_),
            pid=np.array([record.pid for record in records], dtype=np.int64),
            camid=np.array([record.camid for record in records], dtype=np.int64),
            modality=np.array([MODALITIES.index(record.modality) for record in records], dtype=np.int64),
            track=np.array(tracks, dtype=np.int64) if tracks else None,
        )

    def select(self, rows: np.ndarray) -> "SplitIndex":
        """The rows at `rows` [M], in that order."""
        track = None if self.track is None else self.track[rows]
        return SplitIndex(self.path[rows], self.pid[rows], self.camid[rows], self.modality[rows], track)

    @staticmethod
    def concatenate(parts: "list[SplitIndex]") -> "SplitIndex":
        """Several splits one after the other; all of them of tracks, or none."""
        tracks = [part.track for part in parts if part.track is not None]
        return SplitIndex(
            path=np.concatenate([part.path for part in parts]),
            pid=np.concatenate([part.pid for part in parts]),
            camid=np.concatenate([part.camid for part in parts]),
            modality=np.concatenate([part.modality for part in parts]),
            track=np.concatenate(tracks) if tracks else None,
        )

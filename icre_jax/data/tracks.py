"""Which frames of a track are taken, where images are frames of tracks."""

import numpy as np


def choose_frames(track: np.ndarray, number: int | None) -> np.ndarray:
    """Rows of `number` frames of each track, spread evenly over it; of a shorter track all.

    A track of n frames is cut into `number` equal pieces, and the middle of each is taken: of one piece the middle
    frame of the track.

    Args:
      track: [N] int64, the track of each frame; those of one track side by side, in its order.
      number: of each track; None for all frames.

    Returns:
      [M] int64 rows, ascending.
    """
    if number is None or not len(track):
        return np.arange(len(track))
    starts = np.flatnonzero(np.append(True, track[1:] != track[:-1]))
    lengths = np.diff(np.append(starts, len(track)))
    pieces = 2 * np.arange(number) + 1
    return np.concatenate(
        [
            start + (np.arange(length) if length <= number else pieces * length // (2 * number))
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
        ]
    )

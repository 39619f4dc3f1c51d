"""Tracks: several frames of one walk by one camera, compared as one."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from icre_jax.evals.ranking import Embedded, IntArray


def average_tracks(frames: Embedded, track: IntArray, shown: IntArray) -> Embedded:
    """One row per track: the mean of its frames' vectors (docs/protocols.md, HITSZ-VCM step 2).

    The vectors are not normalised before it; the ranking compares directions, which normalises the means after it. As
    the BN neck is affine in a test, the mean of embeddings is the embedding of the mean pooled features, which the
    field calls temporal average pooling.

    Args:
      frames: N embedded frames.
      track: [N], the track of each.
      shown: [T], the frame that stands for each track where one image must: its place, path and labels.

    Returns:
      The tracks in the order of `shown`; `frames` holds the vectors of these frames.
    """
    _, inverse = np.unique(track, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    edges = np.searchsorted(inverse[order], np.arange(inverse.max() + 2))
    means = np.stack([frames.features[order[a:b]].mean(axis=0, dtype=np.float64) for a, b in pairwise(edges.tolist())])
    one = frames.subset(shown)
    return replace(one, features=means[inverse[shown]].astype(np.float32), frames=one.features)


def single_frames(tracks: Embedded) -> Embedded:
    """The same tracks, each compared by the one frame that stands for it."""
    assert tracks.frames is not None
    return replace(tracks, features=tracks.frames, frames=None)

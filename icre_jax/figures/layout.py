"""Features in two dimensions by t-SNE; the only user of scikit-learn, which `icre_jax[figures]` brings."""

import importlib.util
from collections.abc import Mapping

import numpy as np

from icre_jax.figures.features import MOST_IDENTITIES, Layout

_SEED = 0
_PERPLEXITY = 30


def has_scikit_learn() -> bool:
    """Whether `lay_out` can be called."""
    return importlib.util.find_spec("sklearn") is not None


def lay_out(features: Mapping[str, np.ndarray], pid: Mapping[str, np.ndarray]) -> Layout:
    """t-SNE of the images of two modalities together, seeded: the same features give the same points.

    Args:
      features: modality -> [N, D] of length 1.
      pid: modality -> [N], of at most `MOST_IDENTITIES` in all.

    Returns:
      The points, one modality after the other. Confused is an image whose most similar one of the other modality, among
      those shown, is of another identity.
    """
    from sklearn.manifold import TSNE  # here: it takes a second, and may not be there

    first, second = features
    all_pids = np.concatenate([pid[first], pid[second]])
    assert len(np.unique(all_pids)) <= MOST_IDENTITIES
    unit = np.concatenate([features[first], features[second]])
    # Of rows of length 1 Euclidean neighbours are cosine neighbours.
    tsne = TSNE(
        perplexity=min(_PERPLEXITY, (len(unit) - 1) / 3),
        init="pca" if min(unit.shape) > 1 else "random",
        learning_rate="auto",
        random_state=_SEED,
        method="exact",
    )
    cosine = features[first] @ features[second].T
    confused = (pid[second][cosine.argmax(axis=1)] != pid[first], pid[first][cosine.argmax(axis=0)] != pid[second])
    return Layout(
        points=tsne.fit_transform(unit.astype(np.float64)),
        pid=all_pids,
        modality=np.repeat(np.array([first, second]), [len(pid[first]), len(pid[second])]),
        confused=np.concatenate(confused),
    )

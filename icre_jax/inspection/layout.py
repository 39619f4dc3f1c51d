"""Features in two dimensions by t-SNE; the only user of scikit-learn, which `icre_jax[figures]` brings."""

import importlib.util
from collections.abc import Mapping

import numpy as np

from icre_jax.datasets import MODALITIES, OTHER, Modality
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, normalize
from icre_jax.figures.features import MOST_IDENTITIES, Layout

_SEED = 0
_PERPLEXITY = 30
_MOST_IMAGES = 20  # of an identity in a modality


def require_scikit_learn() -> None:
    """Raise `InputError` where it is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise InputError(
            "The figure features needs scikit-learn, which is not installed. Install it with pip install "
            "'icre_jax[figures]', or name the other figures with --only."
        )


def choose_identities(sides: Mapping[Modality, Embedded], number: int) -> list[int]:
    """At most `number` identities that are there in both modalities, spread evenly over their numbers.

    Raises:
      InputError: there is none.
    """
    both = np.intersect1d(sides["visible"].pid, sides["infrared"].pid)
    if not len(both):
        raise InputError("No identity has test images of both modalities; pairs of one identity are needed.")
    return both[np.unique(np.linspace(0, len(both) - 1, min(number, len(both))).round().astype(int))].tolist()


def choose_rows(side: Embedded, pids: list[int], number: int = _MOST_IMAGES) -> np.ndarray:
    """Rows of at most `number` images of each identity, spread evenly over its images."""
    rows = []
    for pid in pids:
        of_pid = np.flatnonzero(side.pid == pid)
        rows.append(of_pid[np.unique(np.linspace(0, len(of_pid) - 1, min(number, len(of_pid))).round().astype(int))])
    return np.concatenate(rows)


def lay_out(sides: Mapping[Modality, Embedded], pids: list[int]) -> tuple[Layout, np.ndarray]:
    """t-SNE of the chosen identities' images, seeded: the same features give the same points.

    Args:
      sides: all test images.
      pids: at most `MOST_IDENTITIES`.

    Returns:
      The points, and [N] str, the path of each image. Confused is an image whose most similar one of the other
      modality, among those shown, is of another identity.
    """
    from sklearn.manifold import TSNE  # here: it takes a second, and may not be there

    assert len(pids) <= MOST_IDENTITIES
    chosen = {modality: sides[modality].subset(choose_rows(sides[modality], pids)) for modality in MODALITIES}
    unit = np.concatenate([normalize(side.features) for side in chosen.values()])
    # Of rows of length 1 Euclidean neighbours are cosine neighbours.
    tsne = TSNE(
        perplexity=min(_PERPLEXITY, (len(unit) - 1) / 3),
        init="pca" if min(unit.shape) > 1 else "random",
        learning_rate="auto",
        random_state=_SEED,
        method="exact",
    )
    points = tsne.fit_transform(unit.astype(np.float64))
    confused = [_confused(chosen[modality], chosen[OTHER[modality]]) for modality in MODALITIES]
    layout = Layout(
        points=points,
        pid=np.concatenate([side.pid for side in chosen.values()]),
        modality=np.repeat(np.array(MODALITIES), [len(side) for side in chosen.values()]),
        confused=np.concatenate(confused),
    )
    return layout, np.concatenate([side.path for side in chosen.values()])


def _confused(asking: Embedded, asked: Embedded) -> np.ndarray:
    nearest = (normalize(asking.features) @ normalize(asked.features).T).argmax(axis=1)
    return asked.pid[nearest] != asking.pid

"""Triplet losses of the baselines, on the features before the BN neck (docs/method.md, Baselines).

Positives of a row are all rows of its identity, of either modality and itself included, as in the code that AGW
published; negatives are all others.
"""

import jax
import jax.numpy as jnp
from jax import Array


def batch_hard_triplet(distances: Array, labels: Array, *, margin: float) -> Array:
    """Farthest positive against nearest negative, [margin + max d+ - min d-]_+ per row.

    Args:
      distances: [B, B].
      labels: [B] int, two identities or more (with one only the loss is NaN).
      margin: of the hinge.

    Returns:
      [B] float32.
    """
    positive = labels[:, None] == labels[None, :]
    farthest = jnp.max(jnp.where(positive, distances, -jnp.inf), axis=1)
    nearest = jnp.min(jnp.where(positive, jnp.inf, distances), axis=1)
    return _nan_without_negatives(jax.nn.relu(margin + farthest - nearest), positive)


def weighted_triplet(distances: Array, labels: Array) -> Array:
    """Weighted regularised triplet of AGW: log(1 + exp(sum w+ d - sum w- d)) per row, which needs no margin.

    w+ = softmax(d) over the positives, w- = softmax(-d) over the negatives, computed so that no distance is too large.
    The code that AGW published differs there: its weights no longer sum to one from distances of about 15 on, and its
    exponentials overflow at large ones.

    Args:
      distances: [B, B].
      labels: [B] int, two identities or more (with one only the loss is NaN).

    Returns:
      [B] float32.
    """
    positive = labels[:, None] == labels[None, :]
    pull = jnp.sum(jax.nn.softmax(distances, axis=1, where=positive) * distances, axis=1)
    push = jnp.sum(jax.nn.softmax(-distances, axis=1, where=~positive) * distances, axis=1)
    return _nan_without_negatives(jax.nn.softplus(pull - push), positive)


def _nan_without_negatives(loss: Array, positive: Array) -> Array:
    return jnp.where(jnp.any(~positive), loss, jnp.nan)

"""Identity (ID) loss: classification of the training identities, L_id of docs/method.md."""

import jax.numpy as jnp
import optax
from jax import Array


def identity_loss(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Cross-entropy per row, in float32.

    Args:
      logits: [B, C].
      labels: [B] int, 0 .. C - 1.
      label_smoothing: share of the target spread evenly over all C classes.

    Returns:
      [B] float32; L_id is its mean.
    """
    num_classes = logits.shape[-1]
    targets = jnp.eye(num_classes, dtype=jnp.float32)[labels]
    targets = (1.0 - label_smoothing) * targets + label_smoothing / num_classes
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)

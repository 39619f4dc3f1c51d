"""What training minimises: the weighted sum of the losses, and each part by name."""

import jax.numpy as jnp
from jax import Array

from icre_jax.losses.identity import identity_loss


def objective(outputs: dict[str, Array], labels: Array, *, label_smoothing: float) -> tuple[Array, dict[str, Array]]:
    """Total loss of the global batch.

    Args:
      outputs: of the network; "logits" [B, C].
      labels: [B] int.
      label_smoothing: see `identity_loss`.

    Returns:
      The scalar to differentiate, and its parts as scalars: "identity" (L_id).
    """
    parts = {"identity": jnp.mean(identity_loss(outputs["logits"], labels, label_smoothing=label_smoothing))}
    return jnp.sum(jnp.stack(list(parts.values()))), parts

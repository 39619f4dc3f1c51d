"""What follows the maps: GeM pooling, BN neck, classifier (docs/method.md, Head)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.normalization import BatchNorm


def gem_pool(feature_map: Array, *, p: float = 3.0, epsilon: float = 1e-6) -> Array:
    """Generalised-mean pooling, (mean over h, w of max(x, epsilon)^p)^(1/p), in float32.

    Args:
      feature_map: [B, h, w, D].
      p: exponent; 1 is average pooling, infinity maximum pooling.
      epsilon: lower clip, which keeps the root differentiable.

    Returns:
      [B, D] float32.
    """
    clipped = jnp.maximum(feature_map.astype(jnp.float32), epsilon)
    return jnp.mean(clipped**p, axis=(1, 2)) ** (1.0 / p)


class Head(nn.Module):
    """Features (f) -> embeddings (z) and logits: BN neck and classifier. Everything here is float32.

    Attributes:
      num_classes: training identities.
      neck_init_std: the scale of the neck starts as N(1, neck_init_std).
      axis_name: as in `DualStreamResNet`.
    """

    num_classes: int
    neck_init_std: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: Array, *, train: bool) -> dict[str, Array]:
        """Normalise and classify.

        Args:
          features: [B, D] float32.
          train: use (and update) the statistics of the batch in the neck.

        Returns:
          "features" f [B, D], before the neck: what triplet losses see, and ICG if `loss.icg_space` says so;
          "embeddings" z [B, D], after the neck: what retrieval compares by cosine;
          "logits" [B, num_classes].
        """
        scale_init = _around_one(self.neck_init_std)
        neck = BatchNorm(not train, axis_name=self.axis_name, use_bias=False, scale_init=scale_init, name="neck")
        embeddings = neck(features)
        init: Any = nn.initializers.normal(0.001)
        logits = nn.Dense(self.num_classes, use_bias=False, kernel_init=init, name="classifier")(embeddings)
        return {"features": features, "embeddings": embeddings, "logits": logits}


def _around_one(std: float) -> nn.initializers.Initializer:
    def init(key: Any, shape: Any, dtype: Any = jnp.float32) -> Array:
        return 1.0 + std * jax.random.normal(key, shape, dtype)

    return init

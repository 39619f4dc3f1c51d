"""Non-local block of the AGW baseline: every position sees every other one (docs/method.md, Baselines)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from icre_jax.models.layers import batch_norm, conv


class NonLocal(nn.Module):
    """x + BN0(conv1x1(theta(x) phi(x)^T g(x) / L)), the dot-product form, at half the channels."""

    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, h, w, C] -> [B, h, w, C]; equal to x until training has moved BN0's scale from 0."""
        batch, height, width, channels = x.shape
        tokens = height * width

        def project(name: str) -> Array:
            projected = conv(channels // 2, dtype=self.dtype, name=name, use_bias=True)(x)
            return projected.reshape(batch, tokens, -1)

        theta, phi, g = project("theta"), project("phi"), project("g")
        # Without a softmax the product may be formed in either order; einsum takes the cheaper one, and for long
        # sequences that never holds an L x L matrix.
        y = jnp.einsum("blc,bmc,bmd->bld", theta, phi, g, optimize="optimal") / tokens
        y = conv(channels, dtype=self.dtype, name="out", use_bias=True)(y.reshape(batch, height, width, -1))
        return x + batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn", zero=True)(y)

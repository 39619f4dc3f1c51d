"""Non-local block of the AGW baseline: every position sees every other one (docs/method.md, Baselines)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.layers import Conv, batch_norm


class NonLocal(nn.Module):
    """x + BN0(conv1x1(theta(x) phi(x)^T g(x) / L)), the dot-product form: no softmax, no pooling of phi and g.

    The convolutions start as PyTorch's do by default, as those of AGW: uniform within 1 / sqrt(inputs), biases too.

    Attributes:
      channels: of theta, phi and g; None for half of x's, as AGW's paper has it. Its released code had 1 when it gave
        the published numbers, by mistake, as an author says (github.com/mangye16/ReID-Survey/issues/7).
      dtype, axis_name: as in `DualStreamResNet`.
    """

    channels: int | None = None
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, h, w, C] -> [B, h, w, C]; equal to x until training has moved BN0's scale from 0."""
        batch, height, width, channels = x.shape
        inner = channels // 2 if self.channels is None else self.channels
        tokens = height * width

        def convolution(inputs: Array, outputs: int, name: str) -> Array:
            init = _uniform(inputs.shape[-1] ** -0.5)
            return Conv(outputs, use_bias=True, dtype=self.dtype, kernel_init=init, bias_init=init, name=name)(inputs)

        theta, phi, g = (convolution(x, inner, name).reshape(batch, tokens, -1) for name in ("theta", "phi", "g"))
        # Without a softmax the product may be formed in either order; einsum takes the cheaper one, and for long
        # sequences that never holds an L x L matrix.
        y = jnp.einsum("blc,bmc,bmd->bld", theta, phi, g, optimize="optimal") / tokens
        y = convolution(y.reshape(batch, height, width, -1), channels, "out")
        return x + batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn", scale=0.0)(y)


def _uniform(bound: float) -> nn.initializers.Initializer:
    def init(key: Any, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init

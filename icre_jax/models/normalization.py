"""BatchNorm in as few passes over its input as there can be."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

_EPSILON = 1e-5
_MOMENTUM = 0.9


class BatchNorm(nn.Module):
    """BatchNorm over all axes but the last, with the variables of `nn.BatchNorm` and its values up to rounding.

    y = a x + b with a and b of each channel, a = scale / sqrt(var + 1e-5), b = bias - mean a. Differentiated, that
    needs the sums of dy and of dy x and nothing else of the size of x. `nn.BatchNorm` writes y = (x - mean) a + bias,
    for which XLA keeps x - mean from the forward pass and makes an array of dy a in the backward pass.

    Attributes:
      use_running_average: normalise by the running statistics instead of those of the batch.
      dtype: of what comes out; statistics and the arithmetic are float32.
      axis_name: mapped axis that the batch is spread over.
      use_bias: whether there is a bias.
      scale_init: of the scale.
      repeats: how many groups of channels follow each other in x that are one group at so many positions; parameters
        and statistics are those of one.
    """

    use_running_average: bool
    dtype: Any = jnp.float32
    axis_name: str | None = None
    use_bias: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    repeats: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]; running statistics move to those of the batch by a tenth, the variance being biased."""
        channels = (x.shape[-1] // self.repeats,)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", self.scale_init, channels, jnp.float32)
        x = x.astype(jnp.float32)
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            axes = tuple(range(x.ndim - 1))
            # Not jnp.square, whose derivative keeps 2 x beside x.
            moments = jnp.stack([x.mean(axes), (x * x).mean(axes)])
            if self.repeats > 1:
                moments = moments.reshape(2, self.repeats, -1).mean(axis=1)
            if self.axis_name is not None and not self.is_initializing():
                moments = jax.lax.pmean(moments, self.axis_name)
            mean, var = moments[0], jnp.maximum(0.0, moments[1] - jnp.square(moments[0]))
            if not self.is_initializing():
                for running, now in ((running_mean, mean), (running_var, var)):
                    running.value = _MOMENTUM * running.value + (1 - _MOMENTUM) * now
        a = scale * jax.lax.rsqrt(var + _EPSILON)
        b = -mean * a
        if self.use_bias:
            b += self.param("bias", nn.initializers.zeros_init(), channels, jnp.float32)
        if self.repeats > 1:
            a, b = jnp.tile(a, self.repeats), jnp.tile(b, self.repeats)
        return (x * a + b).astype(self.dtype)

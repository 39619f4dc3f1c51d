"""How an enhancement comes to the deep features, and the controls that stand in its place (docs/method.md, Gate)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from icre_jax.models.layers import batch_norm, conv


class Gate(nn.Module):
    """BN0(conv1x1(x)): Delta, what is added to the deep features.

    Attributes:
      channels: D, of the deep features.
      first_scale: the first value of BN0's scale. With 0 nothing is added at step 0, and in the first step nothing
        before the gate has a gradient.
      dtype, axis_name: as in `DualStreamResNet`.
    """

    channels: int
    first_scale: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, h, w, C] -> [B, h, w, channels]."""
        x = conv(self.channels, dtype=self.dtype, name="conv")(x)
        return batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn", scale=self.first_scale)(x)


class Offset(nn.Module):
    """A learned vector, the same for every image and position: a control that looks at nothing."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, deep: Array, *, train: bool) -> Array:
        """[B, h, w, D] -> [B, h, w, D]."""
        offset = self.param("offset", nn.initializers.zeros_init(), (deep.shape[-1],))
        return jnp.broadcast_to(offset.astype(self.dtype), deep.shape)


class LocalAddition(nn.Module):
    """A gated convolution branch on the deep features alone: a control with neither shallow features nor attention.

    Gate(ReLU(BN(conv3x3(ReLU(BN(conv1x1(F4))))))).

    Attributes:
      width: of the branch.
      gate_init, dtype, axis_name: as in `Gate`.
    """

    width: int
    gate_init: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, deep: Array, *, train: bool) -> Array:
        """[B, h, w, D] -> [B, h, w, D]."""
        x = deep
        for index, size in enumerate((1, 3), start=1):
            x = conv(self.width, size, dtype=self.dtype, name=f"conv{index}")(x)
            x = nn.relu(batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name=f"bn{index}")(x))
        gate = Gate(deep.shape[-1], self.gate_init, self.dtype, self.axis_name, name="gate")
        return gate(x, train=train)

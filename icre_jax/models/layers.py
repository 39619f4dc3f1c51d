"""The layers that every part of the network is made of: convolution, BatchNorm, adaptive pooling. Arrays are NHWC."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from icre_jax.models.convolution import convolve
from icre_jax.models.normalization import BatchNorm
from icre_jax.models.pooling import block_means

# He initialisation over the outputs, as torchvision trains its ResNets.
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """A convolution with the parameters of `nn.Conv`: "kernel" [size, size, C, channels] and "bias" [channels].

    Attributes:
      channels: of the output.
      size, stride: of the kernel, odd, and of its steps, in both directions.
      use_bias: add a bias.
      dtype: type of the computation; parameters are float32.
      kernel_init, bias_init: where they start.
      through: another function than `convolve` that takes x, the kernel and the stride, and what it says it returns.
    """

    channels: int
    size: int = 1
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = _kernel_init
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    through: Callable[[Array, Array, int], Array] | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), channels]."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.channels))
        # Padded on both sides, as published weights expect it; "SAME" would pad a strided convolution on one side only.
        y = (self.through or convolve)(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            y += self.param("bias", self.bias_init, (self.channels,)).astype(self.dtype)
        return y


def conv(channels: int, size: int = 1, stride: int = 1, *, dtype: Any, name: str) -> Conv:
    """A size x size convolution, [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), channels]."""
    return Conv(channels, size, stride, dtype=dtype, name=name)


def batch_norm(
    *, train: bool, dtype: Any, axis_name: str | None, name: str, scale: float = 1.0, repeats: int = 1
) -> BatchNorm:
    """BatchNorm over batch and space. Its scale starts at `scale`: with 0 it gives 0 until it has learned."""
    init = nn.initializers.constant(scale)
    return BatchNorm(not train, dtype, axis_name, scale_init=init, repeats=repeats, name=name)


def pool_to(x: Array, size: tuple[int, int]) -> Array:
    """Adaptive average pooling to (h, w): [B, H, W, C] -> [B, h, w, C].

    Output row i is the mean of the input rows floor(i H / h) to ceil((i + 1) H / h) - 1, columns alike; where H is a
    multiple of h these are plain blocks.
    """
    height, width = x.shape[1:3]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        return block_means(x, size)
    rows = _averaging(height, size[0]).astype(x.dtype)
    columns = _averaging(width, size[1]).astype(x.dtype)
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns)


def _averaging(length: int, bins: int) -> np.ndarray:
    """[bins, length] with rows that sum to one."""
    matrix = np.zeros((bins, length), np.float32)
    for i in range(bins):
        first, last = i * length // bins, -(-(i + 1) * length // bins)
        matrix[i, first:last] = 1 / (last - first)
    return matrix

"""The layers that every part of the network is made of: convolution, BatchNorm, adaptive pooling. Arrays are NHWC."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

# He initialisation over the outputs, as torchvision trains its ResNets.
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(channels: int, size: int = 1, stride: int = 1, *, dtype: Any, name: str, use_bias: bool = False) -> nn.Conv:
    """A size x size convolution, [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), channels]."""
    # "SAME" would pad a strided convolution on one side only; published weights expect both sides.
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=_kernel_init,
        name=name,
    )


def batch_norm(*, train: bool, dtype: Any, axis_name: str | None, name: str, zero: bool = False) -> nn.BatchNorm:
    """BatchNorm over batch and space; `zero` starts its scale at 0, so that it gives 0 until it has learned."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        scale_init=nn.initializers.zeros_init() if zero else nn.initializers.ones_init(),
        axis_name=axis_name,
        name=name,
    )


def max_pool(x: Array) -> Array:
    """3x3 maximum, stride 2, one row and column of padding: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return nn.max_pool(padded, (3, 3), strides=(2, 2), padding="VALID")


def pool_to(x: Array, size: tuple[int, int]) -> Array:
    """Adaptive average pooling to (h, w): [B, H, W, C] -> [B, h, w, C].

    Output row i is the mean of the input rows floor(i H / h) to ceil((i + 1) H / h) - 1, columns alike; where H is a
    multiple of h these are plain blocks.
    """
    height, width = x.shape[1:3]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        blocks = x.reshape(x.shape[0], size[0], height // size[0], size[1], width // size[1], x.shape[3])
        return blocks.mean(axis=(2, 4))
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

"""Convolutions whose gradients are fast on a CPU, and everywhere else the library's own.

XLA's CPU backend runs the forward pass of a convolution near the speed of a matrix product, but its weight gradient at
a fraction of that, and the input gradient of a strided convolution with three multiplications out of four by zero. Both
are plain matrix products or plain convolutions in disguise. Which form is taken is decided when a program is lowered
for its platform, so one traced function serves all of them. `docs/benchmarks.md` has the measurements.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

_FEW_CHANNELS = 16  # of the input: taps of a row go into one product
_ENOUGH_CHANNELS = 64  # of the output: with fewer, products are too narrow to gain anything


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolution with size // 2 zeros around the picture.

    Args:
      x: [B, H, W, C].
      kernel: [size, size, C, D] of the same type, size odd.
      stride: of both directions.

    Returns:
      [B, ceil(H/stride), ceil(W/stride), D]. Differentiable in reverse mode only.
    """
    if kernel.shape[0] == 1:
        # Exact on every platform: a dense layer at every position that is looked at.
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return _spatial(x, kernel, stride)


def _library(x: Array, kernel: Array, stride: int) -> Array:
    padding = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _spatial(x: Array, kernel: Array, stride: int) -> Array:
    return _library(x, kernel, stride)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _library(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    input_gradient: Callable[..., Array] = functools.partial(_library_gradient, stride, 0)
    weight_gradient: Callable[..., Array] = functools.partial(_library_gradient, stride, 1)
    on_cpu_input, on_cpu_weight = input_gradient, weight_gradient
    if kernel.shape[0] == 3 and stride == 2:
        on_cpu_input = _input_gradient_by_phases
    if kernel.shape[3] >= _ENOUGH_CHANNELS:
        on_cpu_weight = functools.partial(_weight_gradient_by_products, stride)
    # Two choices, not one of a pair: a gradient that nobody reads, as that of the pictures, then disappears.
    return (
        lax.platform_dependent(x, kernel, g, cpu=on_cpu_input, default=input_gradient),
        lax.platform_dependent(x, kernel, g, cpu=on_cpu_weight, default=weight_gradient),
    )


_spatial.defvjp(_forward, _backward)


def _library_gradient(stride: int, argument: int, x: Array, kernel: Array, g: Array) -> Array:
    return jax.vjp(lambda x, kernel: _library(x, kernel, stride), x, kernel)[1](g)[argument]


def _weight_gradient_by_products(stride: int, x: Array, kernel: Array, g: Array) -> Array:
    """Shifted products: for each tap of the kernel, what it saw of the input times g, summed over [B H W].

    With few channels (the stem's three) the taps of a row lie side by side in one product.
    """
    size, _, channels, _ = kernel.shape
    height, width = ((n - 1) * stride + 1 for n in g.shape[1:3])
    padding = size // 2
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    if channels < _FEW_CHANNELS:
        taps = [jnp.concatenate(taps[i : i + size], axis=-1) for i in range(0, size * size, size)]

    def rows(y: Array) -> Array:
        # Two axes: a sum over three would make XLA transpose its operands first.
        return y.reshape(-1, y.shape[-1])

    products = [
        lax.dot_general(rows(tap), rows(g), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        for tap in taps
    ]
    return jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)


def _input_gradient_by_phases(x: Array, kernel: Array, g: Array) -> Array:
    """Of a 3x3 convolution with stride 2: four small convolutions, for even and odd rows and columns of the input.

    Input row 2i meets output row i through the middle row of the kernel alone, input row 2i + 1 output row i through
    the last and output row i + 1 through the first.
    """
    swapped = kernel.swapaxes(2, 3)
    batch, height, width, channels = x.shape
    padded = jnp.pad(g, ((0, 0), (0, 1), (0, 1), (0, 0)))
    even, odd = slice(1, 2), slice(None, None, -2)

    def phase(row: slice, column: slice) -> Array:
        rows, columns = (n + (taps is odd) for n, taps in zip(g.shape[1:3], (row, column), strict=True))
        return lax.conv_general_dilated(
            padded[:, :rows, :columns],
            swapped[row, column],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    rows = [jnp.stack([phase(row, even), phase(row, odd)], axis=3) for row in (even, odd)]
    woven = jnp.stack(rows, axis=2).reshape(batch, 2 * g.shape[1], 2 * g.shape[2], channels)
    return woven[:, :height, :width]

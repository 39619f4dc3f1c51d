"""Convolutions whose weight gradient is fast on a CPU, and everywhere else the library's own.

XLA's CPU backend runs the forward pass and the input gradient of a convolution near the speed of a matrix product, but
the weight gradient at a fraction of that. It is a few matrix products in disguise: 1.4 to 2.3 times as fast for 3x3 and
7x7, 4 to 17 times for 1x1, on a CPU with AVX2. With AVX-512 1x1 still gains, and most of 3x3 and 7x7 lose (`python -m
benchmarks.convolution`, `docs/benchmarks.md`). Which form is taken is decided
when a program is lowered for its platform, so one traced function serves all of them.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from icre_jax.models.precision import precision_here
from icre_jax.models.recompute import not_before

_FEW_CHANNELS = 16  # of the input: taps of a row go into one product
_ENOUGH_WORK = 2**25  # multiplications of one product: small ones, as the demo's, gain nothing


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolution with size // 2 zeros around the image.

    Args:
      x: [B, H, W, C].
      kernel: [size, size, C, D] of the same type, size odd.
      stride: of both directions.

    Returns:
      [B, ceil(H/stride), ceil(W/stride), D]. Differentiable in reverse mode only.
    """
    if kernel.shape[0] == 1:
        # Exact on every platform: a dense layer at every position that is looked at.
        seen = x[:, ::stride, ::stride]
        # Two axes, as in `rows` below: for a product with four, XLA transposes what the weight gradient is made of.
        return (seen.reshape(-1, seen.shape[-1]) @ kernel[0, 0]).reshape(*seen.shape[:3], -1)
    return _spatial(x, kernel, stride, precision_here())


def _library(x: Array, kernel: Array, stride: int, precision: str | None = None) -> Array:
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _spatial(x: Array, kernel: Array, stride: int, precision: str | None) -> Array:
    return _library(x, kernel, stride, precision)


def _forward(x: Array, kernel: Array, stride: int, precision: str | None) -> tuple[Array, tuple[Array, Array]]:
    return _library(x, kernel, stride, precision), (x, kernel)


def _backward(stride: int, precision: str | None, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (input_gradient,) = jax.vjp(lambda x: _library(x, kernel, stride, precision), x)[1](g)
    library = functools.partial(_weight_gradient_of_the_library, stride, precision)
    if g.size * x.shape[3] * _taps_per_product(kernel) < _ENOUGH_WORK:
        return input_gradient, library(x, kernel, g)
    by_products = functools.partial(_weight_gradient_by_products, stride, precision)
    return input_gradient, lax.platform_dependent(x, kernel, g, cpu=by_products, default=library)


_spatial.defvjp(_forward, _backward)


def _weight_gradient_of_the_library(stride: int, precision: str | None, x: Array, kernel: Array, g: Array) -> Array:
    return jax.vjp(lambda kernel: _library(x, kernel, stride, precision), kernel)[1](g)[0]


def _taps_per_product(kernel: Array) -> int:
    return kernel.shape[1] if kernel.shape[2] < _FEW_CHANNELS else 1


def _weight_gradient_by_products(stride: int, precision: str | None, x: Array, kernel: Array, g: Array) -> Array:
    """Shifted products: for each tap of the kernel, what it saw of the input times g, summed over [B H W].

    With few channels (the stem's three) the taps of a row lie side by side in one product.
    """
    size, together = kernel.shape[0], _taps_per_product(kernel)
    height, width = ((n - 1) * stride + 1 for n in g.shape[1:3])
    padding = size // 2
    # Else XLA makes the taps of all layers as soon as it has x, in the forward pass, and keeps them until here.
    padded = jnp.pad(not_before(g, x), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    taps = [jnp.concatenate(taps[i : i + together], axis=-1) for i in range(0, size * size, together)]

    def rows(y: Array) -> Array:
        # Two axes: a sum over three would make XLA transpose its operands first.
        return y.reshape(-1, y.shape[-1])

    multiply = functools.partial(
        lax.dot_general,
        dimension_numbers=(((0,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    products = [multiply(rows(tap), rows(g)) for tap in taps]
    return jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)

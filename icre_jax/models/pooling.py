"""The stem's max-pool and the means of blocks, each in the form that a platform is good at.

Max-pool's gradient is fast on a CPU and repeatable on a GPU, and on a TPU the library's own. XLA's CPU backend takes
the gradient of a maximum over windows through index arrays, a fifth of the work of the demo's training step. On a GPU
it is a sum of atomic additions (select-and-scatter), whose order differs from run to run; XLA has no other form of it
there and refuses to compile it with `--xla_gpu_deterministic_ops=true`. Nine slices and their maximum need none of it.
As in `convolution.py` the choice is made at lowering, and only in programs that train: without a gradient the library's
maximum stays.

The mean of a block is one sum over rows and columns, before which XLA's TPU compiler writes the whole map down twice,
in float32 and with its blocks apart. Where the rows are added up first, a quarter of it is left to be written, or less.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

TAPS = [(i, j) for i in range(3) for j in range(3)]


@jax.custom_vjp
def max_pool(x: Array) -> Array:
    """3x3 maximum, stride 2, one row and column of padding: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    Where several numbers of a window are its maximum the first of them, row by row, takes the whole gradient, on every
    platform.
    """
    return _library(x)


def _library(x: Array) -> Array:
    return nn.max_pool(_pad(x), window_shape=(3, 3), strides=(2, 2), padding="VALID")


def _pad(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)


def _library_gradient(x: Array, y: Array, g: Array) -> Array:
    del y
    return jax.vjp(_library, x)[1](g)[0]


def _slices(x: Array) -> list[Array]:
    """What each tap sees, [B, ceil(H/2), ceil(W/2), C]; row by row."""
    padded = _pad(x)
    height, width = ((n - 1) // 2 * 2 + 1 for n in x.shape[1:3])
    return [padded[:, i : i + height : 2, j : j + width : 2] for i, j in TAPS]


def _maximum_of_slices(x: Array) -> Array:
    first, *others = _slices(x)
    for other in others:
        first = jnp.maximum(first, other)
    return first


def _gradient_by_slices(x: Array, y: Array, g: Array) -> Array:
    first = jnp.full(y.shape, -1, jnp.int8)
    for number, seen in reversed(list(enumerate(_slices(x)))):
        first = jnp.where(seen == y, jnp.int8(number), first)
    # Written down as one byte: else XLA looks for it anew in each of the windows that a pixel belongs to.
    first = lax.optimization_barrier(first)
    # A row and a column more at either end: what an even row of the padded input gets, it gets from two windows.
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    shares = {tap: jnp.pad(jnp.where(first == number, g, 0), edges) for number, tap in enumerate(TAPS)}

    def phase(row: int, column: int) -> Array:
        """Rows 2 i + row and columns 2 j + column of the padded input."""
        return sum(
            (
                shares[i, j][:, 1 - i // 2 :, 1 - j // 2 :][:, : y.shape[1] + 1, : y.shape[2] + 1]
                for i in range(row, 3, 2)
                for j in range(column, 3, 2)
            ),
            jnp.zeros((), g.dtype),
        )

    rows = [jnp.stack([phase(row, 0), phase(row, 1)], axis=3) for row in (0, 1)]
    woven = jnp.stack(rows, axis=2)
    batch, height, _, width, _, channels = woven.shape
    return woven.reshape(batch, 2 * height, 2 * width, channels)[:, 1 : x.shape[1] + 1, 1 : x.shape[2] + 1]


def _forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    y = lax.platform_dependent(x, cpu=_maximum_of_slices, default=_library)
    return y, (x, y)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array]:
    slices = dict.fromkeys(("cpu", "cuda", "rocm"), _gradient_by_slices)
    return (lax.platform_dependent(*saved, g, **slices, default=_library_gradient),)


max_pool.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def block_means(x: Array, size: tuple[int, int]) -> Array:
    """Means of plain blocks: [B, H, W, C] -> [B, h, w, C], where H and W are multiples of h and w.

    Added up in float32, on every platform; on a TPU, in programs that train, by rows and then by columns.
    """
    return _means_of_the_library(size, x)


def _means_of_the_library(size: tuple[int, int], x: Array) -> Array:
    blocks = x.reshape(x.shape[0], size[0], x.shape[1] // size[0], size[1], x.shape[2] // size[1], x.shape[3])
    return blocks.mean(axis=(2, 4))


def _means_by_rows(size: tuple[int, int], x: Array) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = height // size[0], width // size[1]
    blocks = x.reshape(batch, size[0], rows, width, channels)
    # As additions: of two sums the compiler would make the one sum of the library again.
    total = sum((blocks[:, :, i].astype(jnp.float32) for i in range(rows)), jnp.zeros((), jnp.float32))
    blocks = total.reshape(batch, *size, columns, channels)
    total = sum((blocks[:, :, :, i] for i in range(columns)), jnp.zeros((), jnp.float32))
    return (total / (rows * columns)).astype(x.dtype)


def _means_forward(x: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    by_rows, library = (functools.partial(form, size) for form in (_means_by_rows, _means_of_the_library))
    return lax.platform_dependent(x, tpu=by_rows, default=library), x


def _means_backward(size: tuple[int, int], x: Array, g: Array) -> tuple[Array]:
    # Linear: nothing of x is read but its shape.
    return jax.vjp(functools.partial(_means_of_the_library, size), x)[1](g)


block_means.defvjp(_means_forward, _means_backward)

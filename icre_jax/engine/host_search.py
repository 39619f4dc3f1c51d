"""Exact search by the host's own cores, with products that XLA has compiled.

NumPy turns float16 numbers into float32 by steps of its own; XLA uses the instruction that CPUs have for it, and
multiplies what it has just converted. Which rows are found, and their similarities, are those of
`icre_jax.retrieval.search` without it, bit for bit.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, R rows at a time.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from icre_jax.evals.ranks import Float32Array
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.products import Products
from icre_jax.retrieval.rows import LONGEST
from icre_jax.retrieval.search import Found, search

_CACHED_ELEMENTS = 2**19  # of the gallery in float32, that a core holds in its cache: 2 MiB
_VERY_FEW = 8
_TOGETHER = 32  # times as many in one call, which takes a while to start; much more would be copied


def search_on_host(
    queries: npt.NDArray[np.floating],
    gallery: npt.NDArray[np.floating],
    *,
    top: int = 10,
    longest: float | None = None,
) -> Found:
    """What `icre_jax.retrieval.search.search` finds, sooner in a large gallery.

    Args:
      queries: [Q, D] floats.
      gallery: [N, D] floats, in memory or memory-mapped.
      top: k at most.
      longest: length that no row of the gallery exceeds, where that is known.

    Raises:
      InputError: as `search`.
    """
    products = _compiled(gallery.shape[-1]) if gallery.size else None
    return search(queries, gallery, top=top, products=products, longest=longest)


def search_index(queries: npt.NDArray[np.floating], index: GalleryIndex, *, top: int = 10) -> Found:
    """`search_on_host` in an index, whose rows are of length 1."""
    return search_on_host(queries, index.embeddings, top=top, longest=LONGEST)


def _compiled(size: int) -> Products | None:
    """For embeddings of this size; None where JAX has been told to leave the CPU alone."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    block = max(1, _CACHED_ELEMENTS // size)

    def multiply(queries: Float32Array, rows: npt.NDArray[np.float16]) -> Float32Array:
        # A power of two, so that few programs are compiled however many queries come.
        filled = np.zeros((1 << (len(queries) - 1).bit_length(), size), np.float32)
        filled[: len(queries)] = queries
        with jax.default_device(cpu):
            return np.asarray(_multiply(filled, rows, block=block))[: len(queries)]

    return Products(block * _TOGETHER, multiply)


@functools.partial(jax.jit, static_argnames="block")
def _multiply(queries: Any, rows: Any, *, block: int) -> jax.Array:
    """[Q, D] x [R, D] -> [Q, R], a block of rows at a time."""

    def of_block(some: jax.Array) -> jax.Array:
        some = some.astype(jnp.float32)
        if len(queries) <= _VERY_FEW:
            return jnp.stack([jnp.matmul(some, query, precision="highest") for query in queries])
        return jnp.matmul(queries, some.T, precision="highest")

    parts = jax.lax.map(of_block, rows.reshape(-1, block, rows.shape[1]))
    return jnp.swapaxes(parts, 0, 1).reshape(len(queries), -1)

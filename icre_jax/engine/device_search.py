"""Exact search by the devices of one host: each holds a share of the gallery's rows, and gives its best candidates.

Devices say which rows can be among the best, in float32; NumPy scores those again (`icre_jax.retrieval.similarity`), so
that the result is that of `icre_jax.retrieval.search`, bit for bit. More candidates are taken than are asked for; where
rounding could still hide a row, which takes more near-equal ones than that, NumPy searches for that query alone.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, S devices, R rows of each, K candidates.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from icre_jax.errors import InputError
from icre_jax.evals.ranks import Float32Array
from icre_jax.retrieval.merging import merge
from icre_jax.retrieval.search import Found, check_queries, search
from icre_jax.retrieval.similarity import rounding_bound, score_pairs, sizes_by_largest

_AXIS = "shard"
_SHARE_ELEMENTS = 2**26  # of the gallery on a device at a time: 256 MiB in float32, and as much for its products
_BLOCK_QUERIES = 256
_MORE = 16  # candidates of a device beyond those asked for


def search_on_devices(
    queries: npt.NDArray[np.floating],
    gallery: npt.NDArray[np.floating],
    *,
    top: int = 10,
    devices: Sequence[Any] | None = None,
) -> Found:
    """What `icre_jax.retrieval.search.search` finds, by devices.

    Args:
      queries: [Q, D] floats.
      gallery: [N, D] floats, in memory or memory-mapped; it passes through the devices in rounds.
      top: k at most.
      devices: None for all of this process.

    Raises:
      InputError: as `search`.
    """
    queries = check_queries(queries, gallery, top)
    devices = jax.local_devices() if devices is None else devices
    mesh = jax.make_mesh((len(devices),), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    k = min(top, len(gallery))
    share = min(-(-len(gallery) // len(devices)), max(1, _SHARE_ELEMENTS // max(queries.shape[1], _BLOCK_QUERIES)))
    count = min(k + _MORE, share)
    best: list[Found] = []
    # For every query the most that a row can have that no device named.
    hidden = np.full(len(queries), -np.inf)
    for start in range(0, len(gallery), share * len(devices)):
        chunk = gallery[start : start + share * len(devices)]
        filled = np.zeros(
            (share * len(devices), chunk.shape[1]), np.float16 if chunk.dtype == np.float16 else np.float32
        )
        filled[: len(chunk)] = chunk
        rows = jax.device_put(filled, NamedSharding(mesh, PartitionSpec(_AXIS)))
        parts = []
        for first in range(0, len(queries), _BLOCK_QUERIES):
            part, bound = _search_chunk(queries[first : first + _BLOCK_QUERIES], chunk, rows, mesh, count)
            parts.append(part)
            hidden[first : first + len(bound)] = np.maximum(hidden[first : first + len(bound)], bound)
        indices = np.concatenate([part.indices for part in parts]) + start
        best = [merge([*best, Found(indices, np.concatenate([part.similarities for part in parts]))], top=k)]
    found = best[0]
    unsure = np.flatnonzero(found.similarities[:, -1] <= hidden)
    if unsure.size:
        again = search(queries[unsure], gallery, top=top)
        found.indices[unsure], found.similarities[unsure] = again.indices, again.similarities
    return found


def _search_chunk(
    queries: Float32Array, chunk: npt.NDArray[np.floating], rows: jax.Array, mesh: Mesh, count: int
) -> tuple[Found, npt.NDArray[np.float64]]:
    """Candidates of all devices with their similarities (-inf for what fills up), and what the rest has at most."""
    # A power of two, so that few programs are compiled however many queries come.
    filled = np.zeros((1 << (len(queries) - 1).bit_length(), queries.shape[1]), np.float32)
    filled[: len(queries)] = queries
    answer = _candidates(filled, rows, np.int32(len(chunk)), mesh=mesh, count=count)
    values, columns, sizes = (np.asarray(part) for part in answer)
    largest, largest_product = sizes.max(axis=0)  # NaN if one of them is
    if not np.isfinite(largest):
        raise InputError("The gallery holds numbers that are not finite (NaN or infinite). Embed its images again.")
    if not np.isfinite(largest_product):
        raise InputError(
            "A similarity is not finite: the numbers of queries and gallery are too large. Normalize them."
        )
    # [S, Q, K] -> [Q, S K]
    values = np.swapaxes(values[:, : len(queries)], 0, 1)
    columns = np.swapaxes(columns[:, : len(queries)], 0, 1).reshape(len(queries), -1).astype(np.int64)
    # A device that named all its rows hides none; one that named fewer than it has hides none above its last.
    last = values[:, :, -1].max(axis=1) if count * len(mesh.devices) < len(rows) else np.full(len(queries), -np.inf)
    real = np.isfinite(values.reshape(columns.shape))
    similarities = np.full(columns.shape, -np.inf, np.float32)
    similarities[real] = score_pairs(queries, chunk, np.nonzero(real)[0], columns[real])
    return Found(columns, similarities), last + rounding_bound(
        queries.shape[1], sizes_by_largest(queries, float(largest))
    )


@functools.partial(jax.jit, static_argnames=("mesh", "count"))
def _candidates(
    queries: jax.Array, rows: jax.Array, num_rows: jax.Array, *, mesh: Mesh, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[S, Q, K] products and columns of the largest, and [S, 2] the largest number of rows and of products."""

    def of_a_device(queries: jax.Array, rows: jax.Array, num_rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        rows = rows.astype(jnp.float32)
        # By default products are in TF32 on GPUs and in bfloat16 on TPUs, whose errors are beyond the bound.
        products = jnp.matmul(queries, rows.T, precision="highest")
        sizes = jnp.stack([jnp.abs(rows).max(), jnp.abs(products).max()])
        columns = jax.lax.axis_index(_AXIS) * len(rows) + jnp.arange(len(rows))
        values, order = jax.lax.top_k(jnp.where(columns < num_rows, products, -jnp.inf), count)
        return values[None], columns[order][None], sizes[None]

    apart, everywhere = PartitionSpec(_AXIS), PartitionSpec()
    mapped = jax.shard_map(of_a_device, mesh=mesh, in_specs=(everywhere, apart, everywhere), out_specs=apart)
    return mapped(queries, rows, num_rows)

"""A search in an index by several processes: each has a contiguous share of its rows, what they find is merged."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError
from icre_jax.fleet.cluster import Cluster, open_cluster, wait_for_places
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.merging import divide, merge
from icre_jax.retrieval.search import Found, check_queries, search
from icre_jax.retrieval.storage import Header, compare_embeddings, open_embeddings


class _Shard:
    """A share of the rows, in a process of its own; what is wrong with them is said in words, not raised."""

    def ready(self) -> None:
        """Return once this process has its place."""

    def open(self, folder: Path, header: Header, rows: range) -> str:
        try:
            embeddings = open_embeddings(folder, header)
            compare_embeddings(folder, header, embeddings, rows)
        except FileNotFoundError as error:
            return f"{error.filename} is missing: every machine has to see the index at the same path"
        except InputError as error:
            return str(error)
        self._rows, self._start = embeddings[rows.start : rows.stop], rows.start
        return ""

    def search(self, queries: npt.NDArray[np.float32], top: int) -> Found | str:
        try:
            found = search(queries, self._rows, top=top)
        except InputError as error:
            return str(error)
        return Found(found.indices + self._start, found.similarities)


def search_shards(queries: npt.NDArray[np.floating], index: GalleryIndex, top: int, *, cluster: Cluster) -> Found:
    """What `icre_jax.retrieval.search.search` finds in the rows of an index, bit for bit.

    Args:
      queries: [Q, D] floats.
      index: all machines see its folder at the same path.
      top: k at most.
      cluster: where the processes are started.

    Raises:
      InputError: as `search`; there is no such cluster; or a machine that cannot read the index.
      HostError: a process was lost.
    """
    queries = check_queries(queries, index.embeddings, top)
    with open_cluster(cluster, use_gpus=False) as place:
        import ray

        shares = divide(len(index), place.num_workers)
        remote: Any = ray.remote(_Shard)
        shards = [remote.options(**place.resources, scheduling_strategy="SPREAD").remote() for _ in shares]
        wait_for_places(ray, [shard.ready.remote() for shard in shards])
        opened = [
            shard.open.remote(index.folder, index.header, rows) for shard, rows in zip(shards, shares, strict=True)
        ]
        for finding in ray.get(opened):  # however long it takes to read and compare them
            if finding:
                raise InputError(f"A worker cannot use the index {index.folder}: {finding}.")
        shared = ray.put(queries)
        parts = ray.get([shard.search.remote(shared, top) for shard in shards])
    for part in parts:
        if isinstance(part, str):
            raise InputError(part)
    return merge(parts, top=top)

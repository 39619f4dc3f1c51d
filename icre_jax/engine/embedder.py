"""Images to vectors: one pass over records, on one device or shared by all."""

import contextlib
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from icre_jax.data.pipeline import RecordSource, evaluation_batches
from icre_jax.datasets import Modality
from icre_jax.engine.forward import embed_step
from icre_jax.engine.parallel import gather, local_rows, spread
from icre_jax.evals.ranking import Embedded, average_directions
from icre_jax.models.network import ReIDNetwork
from icre_jax.settings.fields import Data


def embed_records(
    network: ReIDNetwork,
    variables: Any,
    source: RecordSource,
    modality: Modality,
    *,
    data: Data,
    batch_size: int,
    feature: str = "embeddings",
    flip: bool = False,
    mesh: Mesh | None = None,
) -> Embedded:
    """Every record of `source` by the stem of `modality`, in the order of its index.

    Args:
      network, variables: what embeds.
      source: records of this modality alone.
      modality: of all of them.
      data: how they are read.
      batch_size: images at a time, on all devices together.
      feature: which output of the network, see `icre_jax.engine.forward.embed_step`.
      flip: average in the mirrored image.
      mesh: devices that share the work, of all processes, which all call this; None for the one that holds the
        variables.
    """
    step = functools.partial(embed_step, variables, network=network, modality=modality, feature=feature)
    mesh, ours = (mesh if mesh is not None and mesh.size > 1 else None), None
    if mesh is not None:
        batch_size = -(-batch_size // mesh.size) * mesh.size
        ours = local_rows(mesh, batch_size)

    def embed(images: np.ndarray) -> np.ndarray:
        with jax.transfer_guard("disallow"):  # images to the devices and vectors back, and nothing else
            if mesh is None:
                return jax.device_get(step(jax.device_put(images)))
            return gather(step(spread(mesh, images)))

    batches = evaluation_batches(source, data=data, batch_size=batch_size, rows=ours)
    rows = []
    with contextlib.closing(batches):
        for batch in batches:
            vectors = embed(batch["image"])
            if flip:
                vectors = average_directions(vectors, embed(batch["image"][:, :, ::-1]))
            mask = batch["mask"] if mesh is None else gather(spread(mesh, batch["mask"]))
            rows.append(vectors[mask])
    index = source.index
    return Embedded(np.concatenate(rows), pid=index.pid, camid=index.camid, path=index.path, split=source.split)

"""Image files to a file of embeddings, with the labels and names they came with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from icre_jax.data.collection import Collection, collect
from icre_jax.data.listener import Listener
from icre_jax.datasets import Modality
from icre_jax.engine.loaded import LoadedNetwork, load
from icre_jax.evals.features import require_features_file, write_features


def embed_files(
    network: str | Path,
    images: Path,
    out: Path,
    *,
    modality: Modality,
    listener: Listener,
    step: int | None = None,
    split: str | None = None,
    batch_size: int = 64,
    flip: bool = False,
    max_pixels: int | None = None,
    embed: Callable[..., np.ndarray] = LoadedNetwork.embed,
) -> tuple[LoadedNetwork, Collection]:
    """Embed images of one modality and write `out`.

    Args:
      network: as of `icre_jax.load`.
      images: a folder, a list or a manifest, see `icre_jax.data.collection`.
      out: a new .npz (or .parquet) with `features` [N, D] float32 of length 1, `path` [N] as the list or the folder
        names it, in normal form ("x/a.png" for "./x//a.png"), of a manifest `pid` and `camid` [N], and beside them
        `modality` and `network_sha256`.
      modality: of the images.
      listener: who is told how it goes.
      step: which checkpoint of a workdir; None for the latest.
      split: of a manifest, take only this one.
      batch_size, flip: see `LoadedNetwork.embed`.
      max_pixels: as of `icre_jax.load`.
      embed: who embeds, as that does.

    Returns:
      The network and the images.

    Raises:
      InputError: there is no such network or image, naming all images that cannot be used; or `out` exists or cannot be
        written. Nothing is written then.
    """
    require_features_file(out, "--out")
    collection = collect(images, modality, split)
    net = load(network, step=step, max_pixels=max_pixels)
    features = embed(
        net,
        collection.files,
        modality=modality,
        batch_size=batch_size,
        flip=flip,
        progress=lambda done, total: listener.advance("embedding", done, total),
    )
    labels = {"pid": collection.pid, "camid": collection.camid}
    columns = {name: column for name, column in labels.items() if column is not None}
    facts = {"modality": modality, "network_sha256": net.model_hash}
    write_features(out, {"features": np.asarray(features), "path": collection.path, **columns}, facts)
    return net, collection

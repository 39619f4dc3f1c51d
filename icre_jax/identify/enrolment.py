"""A gallery of images to an index, and changes to it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import icre_jax
from icre_jax.data.labelled import Source, list_labelled
from icre_jax.data.listener import Listener
from icre_jax.datasets import Modality
from icre_jax.engine.loaded import LoadedNetwork
from icre_jax.errors import InputError, UnusableImagesError
from icre_jax.machine.lock import lock_folder
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.storage import Entry

_TOGETHER = 256  # images that are embedded before their vectors are written


def make_index(
    folder: Path,
    source: Source,
    modality: Modality,
    *,
    network: str,
    flip: bool = False,
    max_pixels: int | None = None,
    listener: Listener,
) -> GalleryIndex:
    """Embed a gallery and write the index of it.

    Args:
      folder: a new one for the index.
      source: the images.
      modality: of the images.
      network: what `icre_jax.load` takes.
      flip: average in the mirrored images, also of what will be searched for.
      max_pixels: as of `icre_jax.load`.
      listener: who is told how it goes.

    Raises:
      InputError: something is at `folder`, there is no such network, or an image cannot be used.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--index {folder} exists already. Name a new folder, or say --add to add to that index.")
    entries = _entries(source, modality)
    net = icre_jax.load(network, max_pixels=max_pixels)
    return GalleryIndex.create(
        folder,
        _embed(net, entries, modality, flip, listener),
        entries,
        model_hash=net.model_hash,
        origin=net.place,
        preprocessing={"image_size": list(net.image_size), "flip": flip},
    )


def add_to_index(
    folder: Path,
    source: Source,
    modality: Modality,
    *,
    network: str | None = None,
    max_pixels: int | None = None,
    listener: Listener,
) -> GalleryIndex:
    """Embed more images as those of an index were, and add them to it.

    Args:
      folder: of the index.
      source, modality, max_pixels, listener: as of `make_index`.
      network: None for the place where the index says its network is.

    Raises:
      InputError: no index there, another network, an image that cannot be used or that is in the index already.
    """
    GalleryIndex.open(folder)  # before a lock creates the folder
    with lock_folder(folder, flag="--index"):
        index = GalleryIndex.open(folder)
        entries = _entries(source, modality)
        net = load_network(index, network, max_pixels=max_pixels)
        flip = bool(index.header.preprocessing.get("flip"))
        return index.add(_embed(net, entries, modality, flip, listener), entries)


def delete_from_index(folder: Path, *, persons: Sequence[str], paths: Sequence[str]) -> tuple[GalleryIndex, int]:
    """Delete persons and images from an index, see `GalleryIndex.delete`.

    Returns:
      The index without them, and how many images were deleted.

    Raises:
      InputError: no index there, or nothing of that name in it.
    """
    GalleryIndex.open(folder)
    with lock_folder(folder, flag="--index"):
        index = GalleryIndex.open(folder)
        smaller = index.delete(persons=persons, paths=paths)
        return smaller, len(index) - len(smaller)


def load_network(index: GalleryIndex, network: str | None, *, max_pixels: int | None = None) -> LoadedNetwork:
    """The network that made an index; `max_pixels` as of `icre_jax.load`.

    Raises:
      InputError: it is not at `network` (None: where the index says), or another one is.
    """
    try:
        net = icre_jax.load(network or index.header.origin, max_pixels=max_pixels)
    except InputError as error:
        if network is not None:
            raise
        raise InputError(
            f"The network of the index {index.folder} is not at {index.header.origin} any more; say where it is with "
            f"--network. {error}"
        ) from error
    index.require_model(net.model_hash, net.origin)
    return net


def _entries(source: Source, modality: Modality) -> list[Entry]:
    root, images = list_labelled(source, modality)
    place = str(root.expanduser().resolve())
    return [Entry(image.path, image.person, image.camid, modality, place) for image in images]


def _embed(
    net: LoadedNetwork, entries: Sequence[Entry], modality: Modality, flip: bool, listener: Listener
) -> Iterator[np.ndarray]:
    findings: list[str] = []
    for start in range(0, len(entries), _TOGETHER):
        files = [entry.file for entry in entries[start : start + _TOGETHER]]
        try:
            vectors = net.embed(files, modality=modality, flip=flip)
        except UnusableImagesError as error:  # nothing will be written; the others are looked at to be named as well
            findings += error.findings
        else:
            yield vectors
        listener.advance("embedding images", start + len(files), len(entries))
    if findings:
        raise UnusableImagesError(findings, len(entries))

"""A trained network in the hands of a program: images in, vectors or the most alike out. What `icre_jax.load` gives."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.data.reading import ImageLike, read_batches
from icre_jax.datasets import MODALITIES, Modality
from icre_jax.engine.forward import embed_step
from icre_jax.engine.host_search import search_index, search_on_host
from icre_jax.engine.saliency import Explanation, explain_pairs
from icre_jax.engine.stored import Stored, hash_network, read_stored
from icre_jax.errors import InputError
from icre_jax.evals.ranking import average_directions, normalize
from icre_jax.files.images import MAX_PIXELS, require_max_pixels
from icre_jax.models.network import ReIDNetwork
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.search import Found
from icre_jax.settings import IN_THE_BOX
from icre_jax.settings.fields import Settings

_MOST_IMAGES = 4096  # at a time


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LoadedNetwork:
    """A trained network, ready to embed images. `icre_jax.load` makes one.

    It is a Flax module and its arrays, and stays so: `net.network.apply(net.variables, ...)` is the network, see
    docs/network.md. Nothing of it changes, so that threads may share it.

    Attributes:
      settings: of the run that trained it.
      network, variables: what `network.apply` takes, float32 on the first device of this process.
      step: of its checkpoint.
      origin: where it was loaded from, as given.
      class_pids: class -> identity of the training data; a number of that data, of nobody else's.
      provenance: what is known of how it was made, see `icre_jax.engine.provenance.describe_run`.
      max_pixels: of an image file; one of more is refused.

    Example:
      >>> import icre_jax
      >>> net = icre_jax.load("synthetic")
      >>> net.image_size, net.size
      ((128, 64), 128)
      >>> net.provenance["data"]
      'synthetic people'
    """

    settings: Settings
    network: ReIDNetwork
    variables: dict[str, Any]
    step: int
    origin: str
    class_pids: list[int]
    provenance: dict[str, Any]
    max_pixels: int = MAX_PIXELS

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<LoadedNetwork {self.origin!r}: step {self.step}, images {height}x{width} -> {self.size} numbers>"

    @property
    def place(self) -> str:
        """`origin` as it holds from other folders as well: a whole path, or the name of a network in the box."""
        return self.origin if self.origin in IN_THE_BOX else str(Path(self.origin).expanduser().resolve())

    @property
    def size(self) -> int:
        """D, the numbers of an embedding."""
        return self.variables["params"]["head"]["neck"]["scale"].shape[-1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that images are resized to."""
        return self.settings.data.image_size

    @functools.cached_property
    def model_hash(self) -> str:
        """sha256, as hex, of all that decides an embedding; vectors may be compared where it is equal.

        Equal for a run and for what was exported of it, as long as no bit of an array changed: float16 storage gives
        another network with a hash of its own.

        Example:
          >>> import icre_jax
          >>> len(icre_jax.load("synthetic").model_hash)
          64
        """
        return hash_network(self.settings, self.variables)

    def embed(
        self,
        images: Sequence[ImageLike] | np.ndarray,
        *,
        modality: Modality,
        batch_size: int = 64,
        flip: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Images of one modality to vectors of length 1, whose inner products are cosine similarities.

        Args:
          images: paths of JPEG, PNG or BMP files, and pixels, uint8 [H, W, 3] of any size, in any order; or one uint8
            array [N, H, W, 3]. RGB from 0 to 255; of infrared images all three channels are the same. Each shows one
            person, cropped and upright.
          modality: "visible" or "infrared": which stem they pass.
          batch_size: images at a time. A smaller last batch is filled up, so that few programs are compiled.
          flip: average in the mirrored image, which takes twice as long.
          progress: called with (images done, images in all).

        Returns:
          [N, D] float32, rows in the order of `images`.

        Raises:
          InputError: another modality; or images that cannot be used, all of which are named. Nothing is left out.

        Example:
          >>> import icre_jax, numpy as np
          >>> net = icre_jax.load("synthetic")
          >>> images = np.random.default_rng(0).integers(0, 256, (3, 128, 64, 3), np.uint8)
          >>> vectors = net.embed(images, modality="infrared")
          >>> vectors.shape, bool(np.allclose(np.linalg.norm(vectors, axis=1), 1))
          ((3, 128), True)
        """
        _require_modality(modality)
        if type(batch_size) is not int or not 1 <= batch_size <= _MOST_IMAGES:
            raise InputError(f"batch_size is {batch_size!r}; a whole number from 1 to {_MOST_IMAGES:,} is needed.")
        if isinstance(images, str | Path) or not hasattr(images, "__len__"):
            raise InputError(f"images is {images!r}; give a list, of one path for one image.")
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise InputError(f"images is one array {list(images.shape)}; give a list of arrays, or [N, H, W, 3].")
        vectors = np.empty((len(images), self.size), np.float32)
        done = 0
        for pixels in read_batches(images, self.image_size, batch_size, max_pixels=self.max_pixels):
            vectors[done : done + len(pixels)] = self._embed_batch(pixels, modality, batch_size, flip=flip)
            done += len(pixels)
            if progress is not None:
                progress(done, len(images))
        return vectors

    def search(
        self,
        queries: Sequence[ImageLike] | np.ndarray,
        gallery: GalleryIndex | str | Path | np.ndarray,
        *,
        modality: Modality,
        top: int = 10,
    ) -> Found:
        """The images of a gallery that are most alike to each query, exactly.

        Args:
          queries: images as of `embed`, or their embeddings [Q, D] as floats.
          gallery: an index (`python -m icre_jax.index`), its folder, or embeddings [N, D] of length 1 as floats.
          modality: of the queries.
          top: images of the gallery for each query at most.

        Returns:
          `indices` [Q, k] of rows of the gallery, best first, and their `similarities` [Q, k], cosines. The most alike
          need not show the same person: a person has to look.

        Raises:
          InputError: as `embed`; there is no such index, or another network made it; or sizes that differ.

        Example:
          >>> import icre_jax, numpy as np
          >>> net = icre_jax.load("synthetic")
          >>> images = np.random.default_rng(0).integers(0, 256, (3, 96, 48, 3), np.uint8)
          >>> gallery = net.embed(images, modality="visible")
          >>> net.search(images[1:], gallery, modality="visible", top=1).indices.tolist()
          [[1], [2]]
        """
        _require_modality(modality)
        flip = False
        if isinstance(gallery, str | Path):
            gallery = GalleryIndex.open(Path(gallery))
        if isinstance(gallery, GalleryIndex):
            gallery.require_model(self.model_hash, self.origin)
            flip = bool(gallery.header.preprocessing.get("flip"))
        if not (isinstance(queries, np.ndarray) and queries.dtype.kind == "f"):
            queries = self.embed(queries, modality=modality, flip=flip)
        if isinstance(gallery, GalleryIndex):
            return search_index(queries, gallery, top=top)
        return search_on_host(queries, gallery, top=top)

    def explain(
        self,
        first: ImageLike,
        second: ImageLike,
        *,
        modalities: tuple[Modality, Modality] = ("infrared", "visible"),
    ) -> Explanation:
        """Where in two images their similarity comes from: Grad-CAM, see `icre_jax.engine.saliency`.

        Args:
          first, second: images as of `embed`.
          modalities: of `first` and of `second`; both may be of one.

        Raises:
          InputError: as `embed`.

        Example:
          >>> import icre_jax, numpy as np
          >>> from icre_jax.figures.heat import lay_over
          >>> net = icre_jax.load("synthetic")
          >>> query, candidate = np.random.default_rng(0).integers(0, 256, (2, 128, 64, 3), np.uint8)
          >>> seen = net.explain(query, candidate, modalities=("infrared", "visible"))
          >>> seen.heat.shape, lay_over(seen.images[0], seen.heat[0]).shape
          ((2, 8, 4), (128, 64, 3))
        """
        if not isinstance(modalities, tuple | list) or len(modalities) != 2:
            raise InputError(f"modalities is {modalities!r}; one for each of the two images is needed.")
        for modality in modalities:
            _require_modality(modality)
        batches = read_batches([first, second], self.image_size, 2, max_pixels=self.max_pixels)
        a, b = np.concatenate([*batches])[:, None]
        return explain_pairs(self.variables, a, b, network=self.network, modalities=(modalities[0], modalities[1]))[0]

    def _embed_batch(self, pixels: np.ndarray, modality: Modality, batch_size: int, *, flip: bool) -> np.ndarray:
        # A power of two, so that few programs are compiled however many images come.
        rows = min(batch_size, 1 << (len(pixels) - 1).bit_length())
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], rows - len(pixels), axis=0)])

        def run(batch: np.ndarray) -> np.ndarray:
            return np.asarray(embed_step(self.variables, batch, network=self.network, modality=modality))[: len(pixels)]

        vectors = run(filled)
        return average_directions(vectors, run(filled[:, :, ::-1])) if flip else normalize(vectors)


def _require_modality(modality: str) -> None:
    if modality not in MODALITIES:
        raise InputError(f"modality is {modality!r}; allowed are {', '.join(map(repr, MODALITIES))}.")


def load(path: str | Path, *, step: int | None = None, max_pixels: int | None = None) -> LoadedNetwork:
    """What `icre_jax.load` does, which says it."""
    limit = require_max_pixels(MAX_PIXELS if max_pixels is None else max_pixels, "max_pixels")
    # A folder may be called like a network in the box, which its name as a string would be.
    origin = str(path.resolve() if isinstance(path, Path) and str(path) in IN_THE_BOX else path)
    return dataclasses.replace(from_stored(read_stored(path, step=step), origin), max_pixels=limit)


def from_stored(stored: Stored, origin: str) -> LoadedNetwork:
    """The network of `stored`, which came from `origin`."""
    return LoadedNetwork(
        settings=stored.settings,
        network=stored.network,
        variables=stored.variables,
        step=stored.step,
        origin=origin,
        class_pids=list(stored.class_pids),
        provenance=stored.about,
    )

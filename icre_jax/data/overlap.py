"""Whether data that is to be tested on holds what a network was trained on."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import PreparedDataset
from icre_jax.datasets import RENDERED_MARK
from icre_jax.errors import UnreadableError
from icre_jax.files.json_files import read_json_object
from icre_jax.settings.fields import Data


def rendered_seed(data: Data) -> int | None:
    """The seed of rendered people, on which alone it depends who they are: the config's, or the one the tree names.

    None where it is not known, or the people are real.
    """
    if data.synthetic is not None:
        return data.synthetic.seed
    try:
        seed = read_json_object(Path(data.data_dir).expanduser() / RENDERED_MARK).get("seed")
    except UnreadableError:
        return None
    return seed if type(seed) is int else None


def equal_images(
    trained: PreparedDataset,
    train_splits: Sequence[str],
    tested: PreparedDataset,
    test_splits: Sequence[str],
    *,
    image_size: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Paths of the test images that have, as the network sees them, the very pixels of a training image.

    Copies under another name and in another lossless format are found; images that were compressed anew or cropped in
    another way are not.

    Args:
      trained, train_splits: the images that were trained on.
      tested, test_splits: those to look for; splits that the data does not have are left out.
      image_size: (height, width) that both are resized to.
      progress: called with (images looked at, images in all).
    """
    sources = [
        RecordSource(prepared, tuple(split for split in splits if split in prepared.index))
        for prepared, splits in ((trained, train_splits), (tested, test_splits))
    ]
    total, done = sum(len(source.index) for source in sources), 0

    def digest(item: tuple[RecordSource, int]) -> bytes:
        pixels = np.ascontiguousarray(decode(item[0].image_bytes(item[1]), image_size))
        return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()

    digests: list[list[bytes]] = []
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter lock while it decodes
        for source in sources:
            digests.append([])
            for found in pool.map(digest, ((source, row) for row in range(len(source.index)))):
                digests[-1].append(found)
                done += 1
                if progress:
                    progress(done, total)
    known = set(digests[0])
    return [path for path, found in zip(sources[1].index.path.tolist(), digests[1], strict=True) if found in known]

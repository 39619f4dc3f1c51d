"""Whether data that is to be tested on holds what a network was trained on."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import PreparedDataset


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

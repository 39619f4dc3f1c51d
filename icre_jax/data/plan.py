"""Which images make up which batch: P identities x K images x two modalities, fixed by (seed, batch index).

A plan is a sequence of slots. Slot i belongs to batch i // B at row i % B, B = 2PK; rows come in pairs, an even row is
a visible image and the odd row after it an infrared one of the same identity ("batch order"). Nothing is drawn from
a stream: element i can be asked for alone, in any process, which is what makes resuming and workers exact.
"""

import dataclasses

import numpy as np

from icre_jax.data.records import SplitIndex
from icre_jax.data.tracks import choose_frames
from icre_jax.datasets import MODALITIES
from icre_jax.errors import InputError

# Names the random streams apart that share a seed.
_IDENTITY_STREAM = 1
_IMAGE_STREAM = 2


@dataclasses.dataclass(frozen=True)
class Slot:
    """One row of one batch.

    Attributes:
      position: number of the slot since the start of training; the seed of its augmentation.
      record: row of the split index.
      label: class of the identity, 0 .. num_classes - 1.
    """

    position: int
    record: int
    label: int


class BalancedPlan:
    """Balanced sampling of both modalities.

    Identities: one permutation of all identities after the other, so that each comes exactly once per pass ("epoch of
    identities") and no batch holds one twice. Images: K of an identity and modality, without replacement where it has
    K; where it has fewer, each is used once before any is used again.
    """

    def __init__(
        self, index: SplitIndex, *, num_ids_per_batch: int, num_images_per_id: int, num_batches: int, seed: int
    ):
        """Fix the identities of all batches.

        Args:
          index: the training images.
          num_ids_per_batch: P, identities of a batch.
          num_images_per_id: K, per modality.
          num_batches: length of the plan in batches.
          seed: of the whole run.

        Raises:
          InputError: fewer identities than P, or an identity without images of one modality.
        """
        self.class_pids = np.unique(index.pid)
        if num_ids_per_batch > len(self.class_pids):
            raise InputError(
                f"num_ids_per_batch (P) is {num_ids_per_batch}, but the training data has {len(self.class_pids)} "
                f"identities; P may be 1 .. {len(self.class_pids)}."
            )
        self._seed = seed
        self._num_images_per_id = num_images_per_id
        self._batch_size = 2 * num_ids_per_batch * num_images_per_id
        self._images = [
            [np.flatnonzero((index.pid == pid) & (index.modality == m)) for m in range(len(MODALITIES))]
            for pid in self.class_pids
        ]
        for m, modality in enumerate(MODALITIES):
            missing = [int(p) for p, images in zip(self.class_pids, self._images, strict=True) if not len(images[m])]
            if missing:
                raise InputError(
                    f"Balanced sampling needs both modalities of every identity; without {modality} ones: {missing}. "
                    "Take them out of the training lists."
                )
        self._labels = _identity_order(len(self.class_pids), num_ids_per_batch, num_batches, seed)

    @property
    def num_classes(self) -> int:
        """Number of identities."""
        return len(self.class_pids)

    @property
    def batch_size(self) -> int:
        """B = 2PK rows."""
        return self._batch_size

    @property
    def num_batches(self) -> int:
        """Length in batches."""
        return len(self._labels)

    def batch(self, number: int) -> list[Slot]:
        """The B slots of one batch, 0 .. num_batches - 1, in batch order."""
        slots: list[Slot] = []
        for which, label in enumerate(self._labels[number].tolist()):
            drawn = [self._draw(number, which, pool) for pool in enumerate(self._images[label])]
            for pair in zip(*drawn, strict=True):
                slots += [Slot(number * self._batch_size + len(slots) + m, pair[m], label) for m in (0, 1)]
        return slots

    def _draw(self, batch: int, which: int, pool: tuple[int, np.ndarray]) -> list[int]:
        """K records of one identity and (modality, its images)."""
        modality, images = pool
        rng = np.random.default_rng((self._seed, _IMAGE_STREAM, batch, which, modality))
        repeats = -(-self._num_images_per_id // len(images))
        return np.concatenate([rng.permutation(images) for _ in range(repeats)])[: self._num_images_per_id].tolist()


def num_batches_per_epoch(
    index: SplitIndex, *, num_ids_per_batch: int, num_images_per_id: int, frames_per_track: int | None = None
) -> int:
    """Batches after which the larger modality has been seen once on average: ceil(images / (P K)).

    Of tracks an epoch counts `frames_per_track` images each (fewer where a track is shorter): successive frames are
    nearly one image. Which of its frames these are is drawn among all.
    """
    modality = index.modality if index.track is None else index.modality[choose_frames(index.track, frames_per_track)]
    larger = max(int(np.sum(modality == m)) for m in range(len(MODALITIES)))
    return -(-larger // (num_ids_per_batch * num_images_per_id))


def _identity_order(num_ids: int, num_ids_per_batch: int, num_batches: int, seed: int) -> np.ndarray:
    """[num_batches, P] class labels: permutations laid end to end, with no identity twice in a batch.

    P need not divide the number of identities. The batch across a seam takes its rest from the next permutation, whose
    first members are then those not yet in that batch; the rest keep their order.
    """
    order: list[np.ndarray] = []
    filled = 0
    while filled < num_batches * num_ids_per_batch:
        permutation = np.random.default_rng((seed, _IDENTITY_STREAM, len(order))).permutation(num_ids)
        num_open = filled % num_ids_per_batch
        if num_open:
            in_batch = np.isin(permutation, order[-1][-num_open:])
            head = permutation[~in_batch][: num_ids_per_batch - num_open]
            permutation = np.concatenate([head, permutation[~np.isin(permutation, head)]])
        order.append(permutation)
        filled += num_ids
    labels = np.concatenate(order)[: num_batches * num_ids_per_batch]
    return labels.reshape(num_batches, num_ids_per_batch).astype(np.int32)

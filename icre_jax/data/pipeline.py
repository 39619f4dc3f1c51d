"""From records to batches, with grain.

    plan (slots) -> decode and augment -> batch -> prefetch

Every random decision is seeded by the position of its slot, and batches are formed before work is spread over
processes, so the sequence of batches does not depend on workers, threads or where it was started.
"""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from icre_jax.data import augment
from icre_jax.data.images import decode
from icre_jax.data.plan import BalancedPlan, Slot
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.records import MODALITIES, VISIBLE, SplitIndex
from icre_jax.settings import Augment, Data

_AUGMENT_STREAM = 3

Batch = dict[str, Any]  # of arrays, or of NumPy scalars before rows are batched


class RecordSource:
    """Records of several splits laid end to end.

    Attributes:
      index: of the N records.
      split: [N] str, the split each is of.
    """

    def __init__(self, prepared: PreparedDataset, splits: tuple[str, ...], modality: str | None = None):
        """Open the splits.

        Args:
          prepared: the data set.
          splits: names of the splits, in order.
          modality: take only the records of this one; None for both.
        """
        index = SplitIndex.concatenate([prepared.index[split] for split in splits])
        chosen = np.full(len(index), True) if modality is None else index.modality == MODALITIES.index(modality)
        self._rows = np.flatnonzero(chosen)
        self.index = index.select(self._rows)
        self.split = np.repeat(np.array(splits), [len(prepared.index[split]) for split in splits])[self._rows]
        self._sources = [prepared.source(split) for split in splits]
        self._starts = np.cumsum([0] + [len(prepared.index[split]) for split in splits])
        self._arguments = (prepared, splits, modality)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the files for itself; open ones (and TFDS builders) do not travel.
        return RecordSource, self._arguments

    def image_bytes(self, record: int) -> bytes:
        """The picture's file as it was stored."""
        row = self._rows[record]
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._sources[part][int(row - self._starts[part])]["image"]


class _LoadTraining(grain.transforms.Map):
    """Slot -> one augmented row of a training batch."""

    def __init__(self, source: RecordSource, image_size: tuple[int, int], settings: Augment, seed: int):
        self._source = source
        self._image_size = image_size
        self._settings = settings
        self._seed = seed

    def map(self, slot: Slot) -> Batch:
        settings = self._settings
        rng = np.random.default_rng((self._seed, _AUGMENT_STREAM, slot.position))
        modality = int(self._source.index.modality[slot.record])
        image = decode(self._source.image_bytes(slot.record), self._image_size)
        image = augment.pad_and_crop(image, rng, pad=settings.pad)
        image = augment.flip(image, rng, probability=settings.flip_probability)
        if MODALITIES[modality] == VISIBLE:
            image = augment.exchange_channels(image, rng, probability=settings.channel_probability)
        image = augment.erase(
            image,
            rng,
            probability=settings.erasing_probability,
            area=settings.erasing_area,
            aspect=settings.erasing_aspect,
        )
        return {
            "image": np.ascontiguousarray(image),
            "label": np.int32(slot.label),
            "modality": np.int32(modality),
        }


class _LoadEvaluation(grain.transforms.Map):
    """(record, is it real) -> one row of an evaluation batch."""

    def __init__(self, source: RecordSource, image_size: tuple[int, int]):
        self._source = source
        self._image_size = image_size

    def map(self, item: tuple[int, bool]) -> Batch:
        record, real = item
        return {"image": decode(self._source.image_bytes(record), self._image_size), "mask": np.bool_(real)}


class _Share:
    """Some rows of every batch of a sequence, which are all that one host loads."""

    def __init__(self, items: Any, batch_size: int, rows: Sequence[int]):
        self._items = items
        self._batch_size = batch_size
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._items) // self._batch_size * len(self._rows)

    def __getitem__(self, position: int) -> Any:
        batch, row = divmod(position, len(self._rows))
        return self._items[batch * self._batch_size + self._rows[row]]


def training_batches(
    source: RecordSource,
    plan: BalancedPlan,
    *,
    data: Data,
    settings: Augment,
    seed: int,
    start: int = 0,
    rows: Sequence[int] | None = None,
) -> Generator[Batch, None, None]:
    """Batches `start` .. `plan.num_batches - 1`.

    Args:
      source: the records.
      plan: which of them make up each batch.
      data, settings: how they are read and augmented.
      seed: of the augmentation.
      start: the first batch.
      rows: those of each batch that this host loads; None for all. Augmentation goes by the place in the whole batch.

    Returns:
      An iterator (close it with `contextlib.closing`) over "image" [B, H, W, 3] uint8, "label" [B] int32 and
      "modality" [B] int32 (0 visible, 1 infrared), in batch order: even rows visible, odd rows infrared; of B rows
      only `rows`.
    """
    share = plan if rows is None else _Share(plan, plan.batch_size, rows)
    slots = grain.MapDataset.source(share).map(_LoadTraining(source, data.image_size, settings, seed))
    return _iterate(slots.batch(plan.batch_size if rows is None else len(rows))[start:], data)


def evaluation_batches(
    source: RecordSource, *, data: Data, batch_size: int, rows: Sequence[int] | None = None
) -> Generator[Batch, None, None]:
    """Every record once and in order, in batches of one fixed shape.

    Args:
      source: the records.
      data: how they are read.
      batch_size: of the whole batch.
      rows: those of each batch that this host loads; None for all.

    Returns:
      An iterator over "image" [batch_size, H, W, 3] uint8 and "mask" [batch_size] bool, of batch_size rows only
      `rows`. Rows whose mask is False pad the last batch and repeat the last record.
    """
    num_records = len(source.index)
    num_padded = -(-num_records // batch_size) * batch_size
    items = [(min(i, num_records - 1), i < num_records) for i in range(num_padded)]
    share = items if rows is None else _Share(items, batch_size, rows)
    pictures = grain.MapDataset.source(share).map(_LoadEvaluation(source, data.image_size))
    return _iterate(pictures.batch(batch_size if rows is None else len(rows)), data)


def _iterate(batches: Any, data: Data) -> Generator[Batch, None, None]:
    options = grain.ReadOptions(num_threads=data.num_threads, prefetch_buffer_size=max(2, data.num_threads))
    iterable = batches.to_iter_dataset(options)
    if data.num_workers:
        # grain asks absl for flags that only an absl program has parsed; notebooks, tests and our commands are none.
        flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.num_workers))
    iterator = iter(iterable)
    try:
        yield from iterator
    finally:
        with contextlib.suppress(AttributeError):
            iterator.close()

"""From records to batches, with grain.

    numbers of batches -> plan (slots), decode, augment -> prefetch

Every random decision is seeded by the position of its slot, and what is spread over threads and processes are whole
batches, so their sequence does not depend on workers, threads or where it was started.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from icre_jax.data import augment
from icre_jax.data.images import decode
from icre_jax.data.plan import BalancedPlan, Slot
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.records import SplitIndex
from icre_jax.datasets import MODALITIES, VISIBLE
from icre_jax.settings.fields import Augment, Data

_AUGMENT_STREAM = 3

Batch = dict[str, np.ndarray]


class RecordSource:
    """Records of several splits laid end to end.

    Attributes:
      index: of the N records.
      split: [N] str, the split each is of.
    """

    def __init__(
        self,
        prepared: PreparedDataset,
        splits: tuple[str, ...],
        modality: str | None = None,
        rows: np.ndarray | None = None,
    ):
        """Open the splits.

        Args:
          prepared: the data set.
          splits: names of the splits, in order.
          modality: take only the records of this one; None for both.
          rows: take only these of what is left, in this order; None for all.
        """
        index = SplitIndex.concatenate([prepared.index[split] for split in splits])
        chosen = np.full(len(index), True) if modality is None else index.modality == MODALITIES.index(modality)
        self._rows = np.flatnonzero(chosen) if rows is None else np.flatnonzero(chosen)[rows]
        self.index = index.select(self._rows)
        self.split = np.repeat(np.array(splits), [len(prepared.index[split]) for split in splits])[self._rows]
        self._sources = [prepared.source(split) for split in splits]
        self._starts = np.cumsum([0] + [len(prepared.index[split]) for split in splits])
        self._arguments = (prepared, splits, modality, rows)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the files for itself; open ones (and TFDS builders) do not travel.
        return RecordSource, self._arguments

    def select(self, rows: np.ndarray) -> "RecordSource":
        """The records at `rows` [M], in that order."""
        prepared, splits, modality, before = self._arguments
        return RecordSource(prepared, splits, modality, rows if before is None else before[rows])

    def image_bytes(self, record: int) -> bytes:
        """The image's file as it was stored."""
        row = self._rows[record]
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._sources[part][int(row - self._starts[part])]["image"]


class _LoadTraining(grain.transforms.Map):
    """Number of a batch -> its rows, augmented.

    A whole batch at a time: one image is read in less time than it takes grain to hand it on.
    """

    def __init__(
        self,
        source: RecordSource,
        plan: BalancedPlan,
        rows: Sequence[int] | None,
        image_size: tuple[int, int],
        settings: Augment,
        seed: int,
    ):
        self._source = source
        self._plan = plan
        self._rows = range(plan.batch_size) if rows is None else rows
        self._image_size = image_size
        self._settings = settings
        self._seed = seed

    def map(self, number: int) -> Batch:
        slots = self._plan.batch(number)
        slots = [slots[row] for row in self._rows]
        modality = self._source.index.modality[[slot.record for slot in slots]].astype(np.int32)
        images = np.empty((len(slots), *self._image_size, 3), np.uint8)
        for row, slot in enumerate(slots):
            images[row] = self._load(slot, MODALITIES[modality[row]])
        return {"image": images, "label": np.array([slot.label for slot in slots], np.int32), "modality": modality}

    def _load(self, slot: Slot, modality: str) -> np.ndarray:
        settings = self._settings
        rng = np.random.default_rng((self._seed, _AUGMENT_STREAM, slot.position))
        image = decode(self._source.image_bytes(slot.record), self._image_size)
        image = augment.pad_and_crop(image, rng, pad=settings.pad)
        image = augment.flip(image, rng, probability=settings.flip_probability)
        if modality == VISIBLE:
            image = augment.exchange_channels(image, rng, probability=settings.channel_probability)
        return augment.erase(
            image,
            rng,
            probability=settings.erasing_probability,
            area=settings.erasing_area,
            aspect=settings.erasing_aspect,
        )


class _LoadEvaluation(grain.transforms.Map):
    """Number of a batch -> its rows of all records in order; what is missing at the end repeats the last record."""

    def __init__(self, source: RecordSource, batch_size: int, rows: Sequence[int] | None, image_size: tuple[int, int]):
        self._source = source
        self._batch_size = batch_size
        self._rows = range(batch_size) if rows is None else rows
        self._image_size = image_size

    def map(self, number: int) -> Batch:
        records = number * self._batch_size + np.array(self._rows)
        last = len(self._source.index) - 1
        images = np.empty((len(records), *self._image_size, 3), np.uint8)
        for row, record in enumerate(records.tolist()):
            # Padding is not decoded again where the row before it was the last record too.
            again = row > 0 and records[row - 1] >= last
            images[row] = (
                images[row - 1] if again else decode(self._source.image_bytes(min(record, last)), self._image_size)
            )
        return {"image": images, "mask": records <= last}


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
    load = _LoadTraining(source, plan, rows, data.image_size, settings, seed)
    return _iterate(grain.MapDataset.range(start, plan.num_batches).map(load), data)


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
    num_batches = -(-len(source.index) // batch_size)
    return _iterate(
        grain.MapDataset.range(num_batches).map(_LoadEvaluation(source, batch_size, rows, data.image_size)), data
    )


def _iterate(batches: Any, data: Data) -> Generator[Batch, None, None]:
    threads = grain.ReadOptions(num_threads=data.num_threads, prefetch_buffer_size=max(2, data.num_threads))
    iterable = batches.to_iter_dataset(threads)
    if data.num_workers:
        # grain asks absl for flags that only an absl program has parsed; notebooks, tests and our commands are none.
        flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=data.num_workers)
        iterable = iterable.mp_prefetch(options, worker_init_fn=_end_with_the_parent)
    iterator = iter(iterable)
    try:
        yield from iterator
    finally:
        with contextlib.suppress(AttributeError):
            iterator.close()


def _end_with_the_parent(worker: int, num_workers: int) -> None:
    """Called in each worker process, which a parent that is killed (kill -9, out of memory) would leave behind.

    A signal to all processes of a terminal or a job asks the parent to stop, which still wants its next batch.
    """
    del worker, num_workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

"""TFDS builders: one per data set, all storing the same features in ArrayRecord files. No TensorFlow is needed.

A builder stores the original bytes of every image, or the image at the size that the network takes; decoding is the
pipeline's. Use `icre_jax.data.prepared`, which checks the images first and keeps the index beside the records.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from icre_jax.data.compared import sum_of
from icre_jax.data.images import store_resized
from icre_jax.data.layouts import hitsz_vcm, llcm, manifest, regdb, sysu_mm01
from icre_jax.data.records import Record
from icre_jax.datasets import HITSZ_VCM, LLCM, MANIFEST, MODALITIES, REGDB, SYSU_MM01, Card
from icre_jax.errors import InputError
from icre_jax.files.images import read_image

_AT_A_TIME = 256  # images that are resized together


class ReIDBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the builders share: features, order and the way from `Record` to a stored example.

    Attributes:
      sums: split name -> `sum_of` every image as it was stored, in stored order; filled while records are written.
    """

    VERSION = tfds.core.Version("1.0.0")
    card: ClassVar[Card]
    # (data_dir), or (data_dir, trial) where there are trials -> split name -> its images, in stored order.
    scan: ClassVar[Callable[..., dict[str, list[Record]]]]

    @classmethod
    def check_trial(cls, trial: int | None) -> None:
        """Raise `InputError` unless `trial` is one of the data set's, or None where it has none."""
        if trial not in (cls.card.trials or (None,)):
            raise InputError(f"data.trial is {trial!r}; allowed for {cls.card.title}: {cls.card.describe_trials()}.")

    @classmethod
    def list_images(cls, data_dir: Path, trial: int | None) -> dict[str, list[Record]]:
        """What `scan` finds of one trial, or of the data set where it has none."""
        return cls.scan(data_dir) if trial is None else cls.scan(data_dir, trial)

    @classmethod
    def folder(cls, prepared_dir: Path, trial: int | None) -> Path:
        """Where TFDS puts the records below its `data_dir`: each trial has a folder of its own."""
        division = [] if trial is None else [f"trial_{trial}"]
        return prepared_dir.joinpath(cls.name, *division, str(cls.VERSION))

    def __init__(
        self,
        *,
        prepared_dir: Path,
        trial: int | None,
        data_dir: Path,
        splits: dict[str, list[Record]],
        metadata: dict[str, Any],
        stored_size: tuple[int, int] | None,
    ):
        """Get ready to write the records. (To read them: `PreparedDataset.source`.)

        Args:
          prepared_dir: where the records go.
          trial: one of the data set's; None if it has none.
          data_dir: root of the data set as it was delivered.
          splits: what `scan` found there.
          metadata: JSON-able facts stored with the records.
          stored_size: (height, width) that the images are stored at; None for the files' own bytes.
        """
        self._stored_size = stored_size
        self._source_dir = data_dir
        self._source_splits = splits
        self._source_metadata = metadata
        self.sums: dict[str, list[int]] = {name: [] for name in splits}
        config = None if trial is None else f"trial_{trial}"
        super().__init__(data_dir=prepared_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "path": tfds.features.Text(),
                "pid": np.int64,
                "camid": np.int64,
                "modality": tfds.features.ClassLabel(names=list(MODALITIES)),
            }
        )
        metadata = tfds.core.MetadataDict(self._source_metadata)
        # The order on disk is the order of the lists, so that record i is row i of the index.
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=features, disable_shuffling=True, metadata=metadata
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # licence-gated data is never downloaded
        return {name: self._generate_examples(name, records) for name, records in self._source_splits.items()}

    def _images(self, records: list[Record]) -> Iterator[bytes]:
        """What TFDS stores as it is, without TensorFlow."""
        files = [self._source_dir / record.path for record in records]
        size = self._stored_size
        if size is None:
            yield from map(read_image, files)
            return
        with ThreadPoolExecutor() as pool:
            # A few at a time: all of them would not fit into memory.
            for first in range(0, len(files), _AT_A_TIME):
                some = files[first : first + _AT_A_TIME]
                yield from pool.map(lambda file: store_resized(read_image(file), size), some)

    def _generate_examples(self, split: str, records: list[Record]) -> Iterator[tuple[int, dict[str, Any]]]:
        for position, (record, image) in enumerate(zip(records, self._images(records), strict=True)):
            self.sums[split].append(sum_of(image))
            yield (
                position,
                {
                    "image": image,
                    "path": record.path,
                    "pid": record.pid,
                    "camid": record.camid,
                    "modality": record.modality,
                },
            )


class SysuMm01(ReIDBuilder, skip_registration=True):  # type: ignore[call-arg]
    """SYSU-MM01: visible cameras 1, 2, 4, 5 and infrared cameras 3, 6; splits train, val, query, gallery."""

    card = SYSU_MM01
    name = card.name
    scan = staticmethod(sysu_mm01.scan)


class Llcm(ReIDBuilder, skip_registration=True):  # type: ignore[call-arg]
    """LLCM: nine cameras, each visible and near-infrared; splits train, query (infrared), gallery (visible)."""

    card = LLCM
    name = card.name
    scan = staticmethod(llcm.scan)


class RegDb(ReIDBuilder, skip_registration=True):  # type: ignore[call-arg]
    """RegDB, one of ten trials: visible and thermal; splits train, query (visible), gallery (thermal)."""

    card = REGDB
    name = card.name
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=f"trial_{trial}") for trial in REGDB.trials]
    scan = staticmethod(regdb.scan)


class HitszVcm(ReIDBuilder, skip_registration=True):  # type: ignore[call-arg]
    """HITSZ-VCM: frames of tracks of twelve cameras; splits train, query (infrared), gallery (visible)."""

    card = HITSZ_VCM
    name = card.name
    scan = staticmethod(hitsz_vcm.scan)


class Manifest(ReIDBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A user's own images, named by manifest.csv; splits train, query, gallery."""

    card = MANIFEST
    name = card.name
    scan = staticmethod(manifest.scan)


BUILDERS: dict[str, type[ReIDBuilder]] = {
    builder.name: builder for builder in (SysuMm01, Llcm, RegDb, HitszVcm, Manifest)
}

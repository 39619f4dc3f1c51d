"""TFDS builders: one per data set, all storing the same features in ArrayRecord files. No TensorFlow is needed.

A builder stores the original bytes of every picture; decoding is the pipeline's. Use `icre_jax.data.prepared`, which
checks the pictures first and keeps the index beside the records.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from icre_jax.data.layouts import sysu_mm01
from icre_jax.data.records import MODALITIES, Record


class ReIDBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the builders share: features, order and the way from `Record` to a stored example."""

    VERSION = tfds.core.Version("1.0.0")

    @staticmethod
    def scan(data_dir: Path) -> dict[str, list[Record]]:
        """Split name -> its pictures, in the order they are stored; `InputError` if the tree cannot be used."""
        raise TypeError("A builder of one data set says how its tree is read.")

    def __init__(self, *, prepared_dir: Path, data_dir: Path | None = None, metadata: dict[str, Any] | None = None):
        """Open (or, with `data_dir` and `metadata`, get ready to write) the records in `prepared_dir`.

        Args:
          prepared_dir: where the records are.
          data_dir: root of the data set as it was delivered; needed to write only.
          metadata: JSON-able facts stored with the records.
        """
        self._source_dir = data_dir
        self._source_metadata = metadata
        super().__init__(data_dir=prepared_dir, file_format="array_record")

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
        metadata = tfds.core.MetadataDict(self._source_metadata or {})
        # The order on disk is the order of the lists, so that record i is row i of the index.
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=features, disable_shuffling=True, metadata=metadata
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # licence-gated data is never downloaded
        assert self._source_dir is not None
        splits = type(self).scan(self._source_dir)
        return {name: self._generate_examples(records) for name, records in splits.items()}

    def _generate_examples(self, records: list[Record]) -> Iterator[tuple[int, dict[str, Any]]]:
        assert self._source_dir is not None
        for position, record in enumerate(records):
            yield (
                position,
                {
                    # A path, not an array: TFDS then stores the file's own bytes and needs no TensorFlow to encode.
                    "image": str(self._source_dir / record.path),
                    "path": record.path,
                    "pid": record.pid,
                    "camid": record.camid,
                    "modality": record.modality,
                },
            )


class SysuMm01(ReIDBuilder, skip_registration=True):  # type: ignore[call-arg]
    """SYSU-MM01: visible cameras 1, 2, 4, 5 and infrared cameras 3, 6; splits train, val, query, gallery."""

    name = "sysu_mm01"
    scan = staticmethod(sysu_mm01.scan)


BUILDERS: dict[str, type[ReIDBuilder]] = {"sysu_mm01": SysuMm01}

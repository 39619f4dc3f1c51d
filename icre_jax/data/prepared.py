"""Prepared data sets: checked images in ArrayRecord files, an index beside them, a fingerprint over everything.

prepared_dir/<dataset>/1.0.0/*.array_record   the images' own bytes (written by TFDS)
prepared_dir/<dataset>/1.0.0/index.npz        path, pid, camid, modality, CRC-32 of every record, per split; its track
prepared_dir/sysu_mm01/1.0.0/gallery_permutations.json   the official gallery draws, if the tree holds them
prepared_dir/<dataset>/1.0.0/metadata.json    fingerprint, and the listing the records were made from
prepared_dir/<dataset>/1.0.0/SHA256SUMS       of all these files; where it is, the records are complete
prepared_dir/regdb/trial_<k>/1.0.0/...        the same for each trial of RegDB
prepared_dir/384x144/<dataset>/1.0.0/...      the same with all images at that height and width

Whenever they are opened, the files are compared with their sums, those of the images by size; each image is compared
when it is read (`icre_jax.data.compared`).
"""

import contextlib
import dataclasses
import hashlib
import io
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from icre_jax.data.builders import BUILDERS, ReIDBuilder
from icre_jax.data.compared import ComparedRecords, damaged
from icre_jax.data.images import find_defect
from icre_jax.data.permutations import SOURCE, STORED, keep_permutations
from icre_jax.data.records import Record, SplitIndex
from icre_jax.datasets import CARDS, RENDERED_MARK
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files.arrays import open_archive
from icre_jax.files.images import MAX_PIXELS, read_image
from icre_jax.files.json_files import read_json_object
from icre_jax.files.turns import one_at_a_time
from icre_jax.sums import SUMS, find_damage, write_sums

Progress = Callable[[int, int], None]
_INDEX, _SUM = "index.npz", "crc32"


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedDataset:
    """A data set that is ready to be read.

    Attributes:
      dataset: a key of `BUILDERS`, e.g. "sysu_mm01".
      trial: which division of the identities into training and test; None where there is only one.
      folder: where its records are.
      fingerprint: sha256 over the trial and every path, label and image; equal fingerprints mean equal data.
      synthetic: whether the people were rendered; told by the tree itself, so that no config can call them real.
      index: split name -> `SplitIndex`.
      sums: split name -> [N] uint32, CRC-32 of every image as it is stored.
      made_from: the folder of the tree at that time.
    """

    dataset: str
    trial: int | None
    folder: Path
    fingerprint: str
    synthetic: bool
    index: dict[str, SplitIndex]
    sums: dict[str, np.ndarray]
    made_from: str

    def source(self, split: str) -> ComparedRecords:
        """The records of a split: `source[i]["image"]` is the bytes of image i."""
        return ComparedRecords(self.folder, split, self.index[split].path, self.sums[split])


def records_folder(
    dataset: str, prepared_dir: Path, *, trial: int | None = None, stored_size: tuple[int, int] | None = None
) -> Path:
    """Where the records of a data set are, or go; see `open_or_prepare`."""
    return BUILDERS[dataset].folder(_root(prepared_dir, stored_size), trial)


def is_prepared(folder: Path) -> bool:
    """Whether there are complete records in a `records_folder`."""
    return (folder / SUMS).is_file()


def _root(prepared_dir: Path, stored_size: tuple[int, int] | None) -> Path:
    return prepared_dir if stored_size is None else prepared_dir / "{}x{}".format(*stored_size)


def open_or_prepare(
    dataset: str,
    data_dir: Path,
    prepared_dir: Path,
    *,
    trial: int | None = None,
    stored_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> PreparedDataset:
    """The prepared data set; prepared first if it is not there yet.

    Args:
      dataset: a key of `BUILDERS`.
      data_dir: root of the data set as it was delivered. May be absent once the records exist; of own images it must
        then be the name of the folder they were made from, as nothing else tells whose images they are.
      prepared_dir: where the records are, or go.
      trial: which division of a data set that has several.
      stored_size: (height, width) that the records hold all images at; None for the files as they are. Decoded to
        that size, both give the same pixels.
      max_pixels: of an image; one of more is as bad as a broken one.
      progress: called with (images checked, images in all) while preparing.

    Raises:
      InputError: nothing to read, a broken image or list, a trial that the data set does not have, or records that
        were made from other files than those which lie in `data_dir` now.
    """
    if dataset not in BUILDERS:
        raise InputError(f"Unknown data set {dataset!r}; allowed are {', '.join(sorted(BUILDERS))}.")
    builder_class = BUILDERS[dataset]
    builder_class.check_trial(trial)
    folder = records_folder(dataset, prepared_dir, trial=trial, stored_size=stored_size)
    if not is_prepared(folder):
        root = _root(prepared_dir, stored_size)
        prepared = _prepare(builder_class, data_dir, root, trial, stored_size, max_pixels, progress)
        if prepared is not None:
            keep_permutations(data_dir, folder)
            return prepared
    # What the tree has is kept anew below.
    prepared, metadata = _open(builder_class, folder, leave_out=(STORED,) if (data_dir / SOURCE).is_file() else ())
    if data_dir.is_dir():
        splits = builder_class.list_images(data_dir, trial)
        if _listing_digest(data_dir, splits) != metadata["listing"] or not _has_labels_of(prepared, splits):
            raise InputError(
                f"The records in {folder} were made from other files or labels than those in {data_dir} now. "
                f"Delete {folder} to prepare them anew, or name another prepared_dir."
            )
        # It may have been fetched after the records were made.
        keep_permutations(data_dir, folder)
    elif CARDS[dataset].own_images and prepared.made_from != str(data_dir):
        raise InputError(
            f"There is no folder {data_dir}, and the records in {folder} were made from {prepared.made_from}. Correct "
            f"data_dir, or say --config.data.data_dir={prepared.made_from} to use these records."
        )
    return prepared


def _has_labels_of(prepared: PreparedDataset, splits: dict[str, list[Record]]) -> bool:
    """Whether identities, cameras and modalities are those of the tree: a list may change where no image does."""
    return all(
        np.array_equal(getattr(prepared.index[name], column), getattr(SplitIndex.from_records(records), column))
        for name, records in splits.items()
        for column in ("pid", "camid", "modality", "track")
    )


def _prepare(
    builder_class: type[ReIDBuilder],
    data_dir: Path,
    prepared_dir: Path,
    trial: int | None,
    stored_size: tuple[int, int] | None,
    max_pixels: int,
    progress: Progress | None,
) -> PreparedDataset | None:
    """Check the images and write the records; None if another process has written them meanwhile."""
    folder = builder_class.folder(prepared_dir, trial)
    if not data_dir.is_dir() and (folder / _INDEX).is_file():
        raise InputError(
            f"The prepared records in {folder} have no {SUMS}, as those of an older version or of an interrupted call, "
            f"and {data_dir} is not there to prepare them anew. Restore it, or take another copy of the records."
        )
    splits = builder_class.list_images(data_dir, trial)
    metadata = {
        "trial": trial,
        "fingerprint": _check_images(data_dir, splits, trial, max_pixels, progress),
        "listing": _listing_digest(data_dir, splits),
        "synthetic": (data_dir / RENDERED_MARK).is_file(),
        "data_dir": str(data_dir),
    }
    tfds.disable_progress_bar()
    try:
        with one_at_a_time(prepared_dir):
            if is_prepared(folder):
                return None
            # Without sums they are what an interrupted call or an older version left, which TFDS would take as it is.
            shutil.rmtree(folder, ignore_errors=True)
            builder = builder_class(
                prepared_dir=prepared_dir,
                trial=trial,
                data_dir=data_dir,
                splits=splits,
                metadata=metadata,
                stored_size=stored_size,
            )
            # MANUAL downloads only, so nothing is fetched; a folder of their own keeps TFDS out of the user's home.
            config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download that there is not
                builder.download_and_prepare(download_config=config, download_dir=str(prepared_dir / "downloads"))
            columns = {
                f"{name}/{field.name}": column
                for name, records in splits.items()
                for field in dataclasses.fields(SplitIndex)
                if (column := getattr(SplitIndex.from_records(records), field.name)) is not None
            }
            for name, sums in builder.sums.items():
                columns[f"{name}/{_SUM}"] = np.array(sums, np.uint32)
            np.savez(folder / _INDEX, **columns)
            # Last, and under their final name at once: where they are, the records are complete.
            write_sums(folder)
    except OSError as error:
        raise InputError(
            f"Cannot write the prepared records to {prepared_dir}: {error}. Free space, or name another prepared_dir."
        ) from error
    return _open(builder_class, folder)[0]


def _open(
    builder_class: type[ReIDBuilder], folder: Path, *, leave_out: Collection[str] = ()
) -> tuple[PreparedDataset, dict[str, Any]]:
    # Of a process that was killed while it wrote, of file managers and of network file systems: no record is hidden.
    left_out = {*leave_out, *(path.name for path in folder.glob(".*"))}
    if findings := find_damage(folder, leave_out=left_out, by_size=lambda name: ".array_record" in name):
        raise damaged(folder, findings[0])
    try:
        metadata = read_json_object(folder / "metadata.json")
        with open_archive(folder / _INDEX) as columns:
            names = dict.fromkeys(key.split("/")[0] for key in columns.names)
            fields = [field.name for field in dataclasses.fields(SplitIndex)]
            index = {
                name: SplitIndex(
                    # Only data sets of tracks have that column.
                    **{f: columns[f"{name}/{f}"] for f in fields if f != "track" or f"{name}/{f}" in columns.names}
                )
                for name in names
            }
            sums = {name: columns[f"{name}/{_SUM}"] for name in names}
        prepared = PreparedDataset(
            dataset=builder_class.name,
            trial=metadata["trial"],
            folder=folder,
            fingerprint=metadata["fingerprint"],
            synthetic=metadata["synthetic"],
            index=index,
            sums=sums,
            made_from=metadata["data_dir"],
        )
    except (UnreadableError, KeyError, TypeError, ValueError) as error:
        raise damaged(folder, str(error).removesuffix(".")) from error
    return prepared, metadata


def _check_images(
    data_dir: Path,
    splits: dict[str, list[Record]],
    trial: int | None,
    max_pixels: int,
    progress: Progress | None,
) -> str:
    """Decode every image once; the fingerprint, or an error that names all broken files."""
    records = [(name, record) for name, split in splits.items() for record in split]

    def inspect(item: tuple[str, Record]) -> tuple[bytes, str | None]:
        try:
            data = read_image(data_dir / item[1].path)
        except UnreadableError as error:
            return b"", error.reason
        return hashlib.sha256(data).digest(), find_defect(data, max_pixels=max_pixels)

    fingerprint = hashlib.sha256(b"" if trial is None else f"trial {trial}|".encode())
    findings = []
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter lock while it decodes
        for done, ((name, record), (digest, defect)) in enumerate(
            zip(records, pool.map(inspect, records), strict=True)
        ):
            track = "" if record.track is None else f"track {record.track}|"
            labels = f"{name}|{record.path}|{record.pid}|{record.camid}|{record.modality}|{track}"
            fingerprint.update(labels.encode() + digest)
            if defect:
                findings.append(f"{record.path}: {defect}")
            if progress:
                progress(done + 1, len(records))
    if findings:
        raise InputError(
            f"{len(findings)} of {len(records)} images in {data_dir} cannot be used:\n{join_findings(findings)}\n"
            "Restore these files from the original archive. (An image that is whole and of more pixels: train and "
            "prepare allow it with --config.data.max_pixels=N.)"
        )
    return fingerprint.hexdigest()


def _listing_digest(data_dir: Path, splits: dict[str, list[Record]]) -> str:
    """Cheap stand-in for the fingerprint: paths and sizes only, so that 46,000 files take about a second."""
    lines = (f"{name}|{r.path}|{(data_dir / r.path).stat().st_size}" for name, split in splits.items() for r in split)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

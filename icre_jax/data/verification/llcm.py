"""LLCM: the published counts, lists against folders, and its empty near-infrared test camera."""

from pathlib import Path, PurePosixPath

from icre_jax.data.layouts import llcm
from icre_jax.data.records import Record
from icre_jax.data.verification.lists import check_folder, check_labels, check_partners, note_unlisted
from icre_jax.data.verification.report import Report
from icre_jax.datasets import LLCM

EMPTY_CAMERA = 3  # of the near-infrared test images
FOLDERS = {"train_vis": "vis", "train_nir": "nir", "test_vis": "test_vis", "test_nir": "test_nir"}


def check(data_dir: Path, trial: int | None, report: Report, *, published: bool) -> list[Record]:
    """Everything but the pixels; the images."""
    del trial
    splits, findings = llcm.survey(data_dir)
    report.errors += findings
    test = splits["query"] + splits["gallery"]
    for name, records in (("train", splits["train"]), ("test", test)):
        report.count_part(name, records, LLCM.counts[name] if published else None)
    in_empty = [record.path for record in splits["query"] if record.camid == EMPTY_CAMERA]
    report.count(f"test, infrared, camera {EMPTY_CAMERA}", "images", len(in_empty), 0)
    pids = {}
    for name, (split, modality) in llcm.LISTS.items():
        records = [record for record in splits[split] if record.modality == modality]
        check_folder(f"idx/{name}.txt", records, FOLDERS[name], report)
        pids[name] = {record.pid for record in records}
        if split == "train":
            check_labels(f"idx/{name}.txt", ((record.path, record.pid) for record in records), report)
    check_partners("idx/train_vis.txt", "idx/train_nir.txt", (pids["train_vis"], pids["train_nir"]), report)
    check_partners("idx/test_vis.txt", "idx/test_nir.txt", (pids["test_vis"], pids["test_nir"]), report)
    _check_overlap(splits["train"], test, report)
    images = splits["train"] + test
    note_unlisted(data_dir, FOLDERS.values(), (record.path for record in images), report)
    return images


def _check_overlap(train: list[Record], test: list[Record], report: Report) -> None:
    """Nothing says that folders count people alike in training and test: equal numbers are odd, equal files wrong."""
    folders = {PurePosixPath(record.path).parent.name for record in train}
    both = sorted({int(name) for name in folders if name.isdecimal()} & {record.pid for record in test})
    if both:
        report.warnings.append(
            f"identities with a folder in training and in the test: {both}; are they the same people?"
        )
    listed_twice = sorted({record.path for record in train} & {record.path for record in test})
    report.errors += [f"{path} is in a train and in a test list" for path in listed_twice]

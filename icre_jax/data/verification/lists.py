"""What data sets share whose images are named by lists."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from icre_jax.data.images import SUFFIXES
from icre_jax.data.records import Record
from icre_jax.data.verification.report import Report


def check_folder(name: str, records: list[Record], folder: str, report: Report) -> None:
    """Every image of the list lies below the folder of its modality."""
    for record in records:
        if PurePosixPath(record.path).parts[0] != folder:
            report.errors.append(f"{name} names {record.path}, which is not in {folder}/")


def check_labels(name: str, labels: Iterable[tuple[str, int]], report: Report) -> None:
    """One label for each person's folder, and one folder for each label.

    Args:
      name: of the list.
      labels: (path, label) of its lines.
      report: to add to.
    """
    by_folder: defaultdict[str, set[int]] = defaultdict(set)
    by_label: defaultdict[int, set[str]] = defaultdict(set)
    for path, label in labels:
        folder = PurePosixPath(path).parent.name
        by_folder[folder].add(label)
        by_label[label].add(folder)
    for folder, found in sorted(by_folder.items()):
        if len(found) > 1:
            report.errors.append(f"{name} gives the folder {folder} several labels: {sorted(found)}")
    for label, folders in sorted(by_label.items()):
        if len(folders) > 1:
            report.errors.append(f"{name} gives the label {label} to several folders: {', '.join(sorted(folders))}")


def check_partners(first: str, second: str, ids: tuple[set, set], report: Report) -> None:
    """Both lists show the same people."""
    for name, other, alone in ((first, second, ids[0] - ids[1]), (second, first, ids[1] - ids[0])):
        if alone:
            shown = ", ".join(map(str, sorted(alone)))
            report.errors.append(f"{name} names identities that {other} does not: {shown}")


def note_unlisted(data_dir: Path, folders: Iterable[str], paths: Iterable[str], report: Report) -> None:
    """Say how many images are not among `paths`, which the lists name; the lists decide, so they are never read."""
    listed = {*paths}
    for folder in folders:
        files = (file for file in (data_dir / folder).rglob("*") if file.suffix.lower() in SUFFIXES)
        unlisted = sorted({file.relative_to(data_dir).as_posix() for file in files} - listed)
        if unlisted:
            report.notes.append(f"{len(unlisted):,} images in {folder}/ are in no list, first {unlisted[0]}")

"""RegDB: the published counts and, for every trial, the four lists against each other and against the folders."""

from pathlib import Path, PurePosixPath

from icre_jax.data.layouts import regdb
from icre_jax.data.records import Record
from icre_jax.data.verification.lists import check_folder, check_labels, check_partners, note_unlisted
from icre_jax.data.verification.report import Report
from icre_jax.datasets import INFRARED, REGDB, VISIBLE

NUM_IDS = sum(half.identities for half in REGDB.counts.values())
FOLDERS = {VISIBLE: "Visible", INFRARED: "Thermal"}


def check(data_dir: Path, trial: int | None, report: Report, *, published: bool) -> list[Record]:
    """Everything but the pixels, of one trial or of all ten; the images, each once."""
    images: dict[str, Record] = {}
    trials_of: dict[frozenset[str], list[int]] = {}
    for number in REGDB.trials if trial is None else (trial,):
        splits, findings = regdb.survey(data_dir, number)
        report.errors += findings
        train = _check_trial(number, splits, report, published=published)
        trials_of.setdefault(train, []).append(number)
        images |= {record.path: record for records in splits.values() for record in records}
    # Every trial of a broken tree says again what is missing.
    report.errors[:] = dict.fromkeys(report.errors)
    for train, same in trials_of.items():
        if len(same) > 1 and train:
            report.errors.append(f"trials {', '.join(map(str, same))} train on the same identities; each needs its own")
    persons = {PurePosixPath(path).parent.name for path in images}
    report.count("all", "identities", len(persons), NUM_IDS if published else None)
    note_unlisted(data_dir, FOLDERS.values(), images, report)
    return list(images.values())


def _check_trial(trial: int, splits: dict[str, list[Record]], report: Report, *, published: bool) -> frozenset[str]:
    """The folders of the training identities."""
    labels: dict[str, dict[str, int]] = {}
    for name, (split, modality) in regdb.LISTS.items():
        records = [record for record in splits[split] if record.modality == modality]
        file = f"idx/{name}_{trial}.txt"
        half = REGDB.counts["train" if split == "train" else "test"]
        report.count(file, "lines", len(records), half.of(modality) if published else None)
        check_folder(file, records, FOLDERS[modality], report)
        check_labels(file, ((record.path, record.pid) for record in records), report)
        labels[name] = {PurePosixPath(record.path).parent.name: record.pid for record in records}
        report.count(file, "identities", len(labels[name]), half.identities if published else None)
    for part in ("train", "test"):
        names = (f"{part}_visible", f"{part}_thermal")
        visible, thermal = (labels[name] for name in names)
        files = [f"idx/{name}_{trial}.txt" for name in names]
        check_partners(files[0], files[1], ({*visible}, {*thermal}), report)
        report.errors += [
            f"{files[0]} gives the folder {folder} the label {visible[folder]}, {files[1]} {thermal[folder]}"
            for folder in sorted(visible.keys() & thermal.keys())
            if visible[folder] != thermal[folder]
        ]
    return frozenset(labels["train_visible"])

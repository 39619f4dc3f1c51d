"""A user's own images: the list, and what it counts; nothing is published about them."""

from pathlib import Path

from icre_jax.data.layouts import manifest
from icre_jax.data.records import Record
from icre_jax.data.verification.report import Report
from icre_jax.datasets import MODALITIES


def check(data_dir: Path, trial: int | None, report: Report, *, published: bool) -> list[Record]:
    """Everything but the pixels; the images."""
    del trial, published
    splits, findings = manifest.survey(data_dir)
    if findings == [manifest.NO_TRAINING]:
        report.notes.append(f"{manifest.NO_TRAINING}: the list is for testing only.")
    else:
        report.errors += findings
    for split, records in splits.items():
        for modality in MODALITIES:
            chosen = [record for record in records if record.modality == modality]
            if chosen:
                report.count(f"{split}, {modality}", "identities", len({record.pid for record in chosen}))
                report.count(f"{split}, {modality}", "images", len(chosen))
    return [record for records in splits.values() for record in records]

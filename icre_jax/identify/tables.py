"""Answers and calibrations for the terminal, and answers as a page."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table
from rich.text import Text

from icre_jax.data.reading import ANY_SIZE, read_batches
from icre_jax.errors import InputError, printable
from icre_jax.identify.searching import CAUTION, Answers, describe_rate
from icre_jax.report.found import FoundImage, FoundList, render_found
from icre_jax.retrieval.calibration import Calibration
from icre_jax.retrieval.det import curve_table, framed_table
from icre_jax.retrieval.open_set import Operating

_THUMBNAIL = (144, 72)  # pixels; shown at two thirds of that, sharp on dense screens


def answers_table(answers: Answers) -> Table:
    """A row for every candidate of every search."""
    view = framed_table(
        printable(f"{answers.modality} images searched for in {answers.index.folder}"),
        f"{CAUTION} {describe_rate(answers)}",
    )
    for header, justify in (("Image", "left"), ("Rank", "right"), ("Similarity", "right"), ("Person", "left"),
                          ("Camera", "right"), ("Found", "left")):  # fmt: skip
        view.add_column(header, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for answer in answers.answers:
        name = Text(printable(str(answer.file)))
        for candidate in answer.candidates:
            entry = candidate.entry
            camera = "-" if entry.camid is None else str(entry.camid)
            row = (str(candidate.rank), f"{candidate.similarity:.4f}", Text(printable(entry.person or "-")), camera)
            view.add_row(name, *row, Text(printable(entry.path)))
            name = Text("")
        if not answer.candidates:
            view.add_row(name, "-", f"({answer.best:.4f})", Text(answer.words.upper()), "-", "-")
    return view


def calibration_table(known: Calibration) -> Table:
    """The chosen threshold, and the curve below it, with whom it was measured on."""
    title = (
        f"{known.query_modality} images searched for in galleries of {known.num_enrolled} persons "
        f"({known.num_images:.0f} {known.gallery_modality} images); {known.num_strangers} strangers at a time, "
        f"{known.num_draws} draws of {known.num_held_out} held-out persons"
    )
    chosen = Operating(known.target, known.threshold, known.fpir, known.fnir, known.fnir_first)
    return curve_table([chosen, *known.curve], title)


def answers_page(answers: Answers) -> str:
    """One HTML file: every image, its candidates as small images, and what the answers rest on."""
    lists = [
        FoundList(
            query=FoundImage(_thumbnail(answer.file), str(answer.file), "", ""),
            answer=answer.words,
            note=f"best similarity {answer.best:.4f}",
            candidates=[
                FoundImage(
                    _thumbnail(candidate.entry.file),
                    candidate.entry.path,
                    candidate.entry.person,
                    f"{candidate.rank}: {candidate.similarity:.4f}",
                )
                for candidate in answer.candidates
            ],
        )
        for answer in answers.answers
    ]
    facts = {
        "Index": f"{answers.index.folder}: {answers.index.num_persons} persons, {len(answers.index)} images",
        "Network": f"{answers.network} ({answers.index.header.model_hash[:12]})",
        "Images": answers.modality,
        "Rates": describe_rate(answers),
    }
    return render_found(lists, facts=facts, caution=CAUTION)


def _thumbnail(file: Path) -> str | None:
    """A JPEG data URI; None where the image is not to be had any more."""
    try:
        pixels: np.ndarray = next(read_batches([file], _THUMBNAIL, 1, max_pixels=ANY_SIZE))[0]
    except (InputError, StopIteration):
        return None
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

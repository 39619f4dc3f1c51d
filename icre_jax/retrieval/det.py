"""The DET curve of a data set's test identities: FNIR at several FPIR, for everyone who asks in its protocol."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from icre_jax.datasets import OTHER, Modality
from icre_jax.errors import InputError
from icre_jax.evals.protocol import Protocol, query_rows
from icre_jax.evals.ranking import Embedded
from icre_jax.retrieval.open_set import CONFIDENCE, RATES, Operating, Rate, Searches, det_curve, run_searches


@dataclasses.dataclass(frozen=True, eq=False)
class OpenSet:
    """The open-set scores of one direction.

    Attributes:
      direction: e.g. "infrared->visible", query first.
      left_out: gallery images that a query does not see, in words.
      searches: on whom it was measured.
      curve: points of the DET curve, FPIR downwards.
    """

    direction: str
    left_out: str
    searches: Searches
    curve: Sequence[Operating]


def measure_open_set(protocol: Protocol, sides: Mapping[Modality, Embedded], *, seed: int = 0) -> list[OpenSet]:
    """Divide the test identities into enrolled and strangers, and search for all of them (`run_searches`).

    Every direction of the protocol is measured once, by the rule of its first setting for what a query may not see. All
    gallery images of who is enrolled are in the gallery: the protocol's own draws of it are not made.

    Args:
      protocol: of the data set.
      sides: every test image of each modality.
      seed: of the draws.

    Raises:
      InputError: too few identities.
    """
    measured: dict[Modality, OpenSet] = {}
    for setting in protocol.settings:
        if setting.query in measured or setting.transposed:
            continue
        query, gallery = sides[setting.query], sides[OTHER[setting.query]]
        query = query.subset(query_rows(setting, query))
        if setting.by_split:
            assert gallery.split is not None
            gallery = gallery.subset(np.flatnonzero(gallery.split == "gallery"))
        searches = run_searches(query, gallery, excluded=setting.excluded, seed=seed)
        curve = det_curve(searches)
        if not curve:
            raise InputError(
                f"With {searches.num_strangers} strangers no FPIR of at most {RATES[0]:g} can be measured."
            )
        measured[setting.query] = OpenSet(setting.direction, setting.excluded.words, searches, curve)
    return [*measured.values()]


def to_document(measured: Sequence[OpenSet], *, dataset: str, seed: int = 0) -> dict[str, Any]:
    """The content of open_set.json: fractions."""
    return {
        "dataset": dataset,
        "standard": "ISO/IEC 19795-1",
        "confidence": CONFIDENCE,
        "seed": seed,
        "directions": [
            {
                "direction": found.direction,
                "left_out": found.left_out,
                "enrolled_persons": found.searches.num_enrolled,
                "gallery_images": found.searches.num_images,
                "searched_enrolled_persons": found.searches.num_mated,
                "strangers": found.searches.num_strangers,
                "draws": found.searches.num_draws,
                "curve": [dataclasses.asdict(point) for point in found.curve],
            }
            for found in measured
        ],
    }


def det_table(found: OpenSet, *, dataset: str) -> Table:
    """The curve in percent, with what it was measured on."""
    searches = found.searches
    title = (
        f"{dataset}, {found.direction}, {found.left_out}\n{searches.num_draws} draws: {searches.num_enrolled} persons "
        f"enrolled ({searches.num_images:.0f} images), {searches.num_mated} of whom stand behind FNIR, and "
        f"{searches.num_strangers} strangers"
    )
    return curve_table(found.curve, title)


def curve_table(curve: Sequence[Operating], title: str) -> Table:
    """Points of a DET curve in percent."""
    view = framed_table(
        title,
        f"In percent, with intervals of {100 * CONFIDENCE:.0f} % over persons of one draw (ISO/IEC 19795-1). FPIR: "
        "searches for strangers that give a candidate. FNIR: searches for enrolled persons that miss them.",
    )
    for name in ("FPIR", "Threshold", "FNIR", "FNIR at rank 1"):
        view.add_column(name, justify="right", overflow="fold")
    for point in curve:
        view.add_row(_percent(point.fpir), f"{point.threshold:.4f}", _percent(point.fnir), _percent(point.fnir_first))
    return view


def framed_table(title: str, caption: str) -> Table:
    """A table without rows, between a title and a caption as wide as it is."""
    # Text, because rich would read square brackets in a name as markup.
    return Table(
        title=Text(title),
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.2f} ({100 * rate.low:.2f} to {100 * rate.high:.2f})"

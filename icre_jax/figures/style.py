"""How figures look, and how they become files."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from icre_jax.figures.colors import GRID, INK, MUTED

_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    # Opaque, so that a figure can be read on a dark page too.
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # letters, not outlines of letters: they can be searched, and edited
}
_LETTERS_PER_INCH, _LETTERS_OF_A_HANDLE = 13, 6


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """One style, whatever the user's own is."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def to_png(figure: Figure) -> bytes:
    """The file's bytes; without the version of matplotlib in it, so that the same numbers give the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def to_pdf(figure: Figure) -> bytes:
    """The file's bytes, without versions and the time; images in it at 300 dots per inch."""
    stream = io.BytesIO()
    metadata = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(stream, format="pdf", dpi=300, metadata=metadata)
    return stream.getvalue()


def add_legend(block: SubFigure | Figure, panels: Sequence[Axes]) -> None:
    """One legend below the panels of a block, with every label once."""
    named: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    width = block.bbox.width / block.figure.dpi
    block.legend(
        handles=[*named.values()],
        labels=[*named],
        loc="outside lower center",
        ncols=_columns(named, width),
        frameon=False,
    )


def _columns(labels: Iterable[str], width: float) -> int:
    """As many columns of a legend as fit into `width` inches, at most four."""
    lengths = [len(label) + _LETTERS_OF_A_HANDLE for label in labels]
    for columns in range(min(4, len(lengths)), 1, -1):
        # The legend has its entries column by column.
        if sum(max(part) for part in np.array_split(lengths, columns)) <= _LETTERS_PER_INCH * width:
            return columns
    return 1

"""How the images of an experiment look, and how they become files."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from icre_jax.report.figure import GRID, INK, MUTED

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
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """One style, whatever the user's own is."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def to_png(figure: Figure) -> bytes:
    """The file's bytes; without the version of matplotlib in it, so that the same scores give the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def add_legend(block: SubFigure, panels: Sequence[Axes]) -> None:
    """One legend below the panels of a block, with every label once."""
    named: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    block.legend(
        handles=[*named.values()], labels=[*named], loc="outside lower center", ncols=min(4, len(named)), frameon=False
    )

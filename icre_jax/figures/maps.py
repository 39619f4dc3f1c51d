"""Images in rows, what a network made of them beside: heat maps, masks, attention."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from icre_jax.figures.colors import COLORS
from icre_jax.figures.heat import HEAT_COLORS, lay_over

_PANEL_WIDTH = 1.15  # inches; a person is about twice as high
_NARROWEST = 4.2
_GAP = 0.09
_LINE = 0.14  # of small text
_LETTERS_PER_INCH = 12.5  # of a title


@dataclass(frozen=True, eq=False)
class Cell:
    """One image of a figure.

    Attributes:
      image: [H, W, 3] uint8.
      heat: [h, w] to be laid over it; None for the image as it is.
      high: the value of the brightest colour; None for the largest of `heat`.
      smooth: between the places of `heat`; otherwise each is a tile.
      title, note: above and below; "" for none.
      box: (top, left, height, width) as shares of the image, to be outlined; None for none.
      frame: a colour around it; None for none.
    """

    image: np.ndarray
    heat: np.ndarray | None = None
    high: float | None = None
    smooth: bool = False
    title: str = ""
    note: str = ""
    box: tuple[float, float, float, float] | None = None
    frame: str | None = None


def draw_cells(
    rows: Sequence[Sequence[Cell]], title: str, *, scale: str = "", top: float | None = None, note: str = ""
) -> Figure:
    """A figure of images.

    Args:
      rows: of cells, each row as long as the others.
      title: one line.
      scale: what the colours mean; "" for no scale beside the images.
      top: the value at the end of that scale; None writes "high".
      note: a line below.
    """
    # Placed in inches: a layout engine leaves gaps of its own around images of fixed shape.
    image_height = _PANEL_WIDTH * rows[0][0].image.shape[0] / rows[0][0].image.shape[1]
    above, below = (
        max(_LINE * len(text.splitlines()) for row in rows for cell in row for text in (getattr(cell, name),)) + _GAP
        for name in ("title", "note")
    )
    width = max(_NARROWEST, _GAP + (_PANEL_WIDTH + _GAP) * len(rows[0]))
    title = textwrap.fill(title, int(_LETTERS_PER_INCH * width))
    note = textwrap.fill(note, int(_LETTERS_PER_INCH * 1.15 * width))
    header = 0.2 * len(title.splitlines()) + 0.1
    footer = (0.68 if scale else 0.0) + _LINE * len(note.splitlines()) + _GAP
    height = header + len(rows) * (above + image_height + below) + footer

    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.07 / height, title, fontsize=10, ha="center", va="top")
    left = (width - (_PANEL_WIDTH + _GAP) * len(rows[0]) + _GAP) / 2
    for i, row in enumerate(rows):
        bottom = height - header - i * (above + image_height + below) - above - image_height
        for j, cell in enumerate(row):
            x = left + j * (_PANEL_WIDTH + _GAP)
            _draw(figure.add_axes(_share(figure, x, bottom, _PANEL_WIDTH, image_height)), cell)
    if scale:
        bar = figure.add_axes(_share(figure, 0.2 * width, footer - 0.2, 0.6 * width, 0.1))
        colors = ScalarMappable(Normalize(0, 1 if top is None else top), matplotlib.colormaps[HEAT_COLORS])
        figure.colorbar(colors, cax=bar, orientation="horizontal", ticks=[0, 1] if top is None else None)
        bar.spines[:].set_visible(False)
        if top is None:
            bar.set_xticks([0, 1], labels=["0", "high"])
        bar.tick_params(labelsize=8.5)
        bar.set_xlabel(scale, fontsize=8.5, labelpad=3)
    figure.text(0.5, 0.06 / height, note, fontsize=8.5, ha="center", va="bottom")
    return figure


def _share(figure: Figure, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """A place given in inches as shares of the figure."""
    whole_width, whole_height = figure.get_size_inches()
    return x / whole_width, y / whole_height, width / whole_width, height / whole_height


def _draw(panel: Axes, cell: Cell) -> None:
    shown = cell.image if cell.heat is None else lay_over(cell.image, cell.heat, high=cell.high, smooth=cell.smooth)
    height, width = shown.shape[:2]
    panel.imshow(shown, interpolation="nearest", extent=(0, width, height, 0))
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(cell.frame is not None)
    if cell.frame is not None:
        panel.spines[:].set(color=cell.frame, linewidth=3)
    panel.set_title(cell.title, fontsize=8.5, pad=3)
    panel.set_xlabel(cell.note, fontsize=8, labelpad=3)
    if cell.box is not None:
        top, left, rows, columns = cell.box
        corner = (left * width, top * height)
        # Twice, so that it is seen on bright and on dark places.
        for color, thickness in (("black", 3.2), (COLORS[1], 1.8)):
            box = Rectangle(corner, columns * width, rows * height, fill=False, edgecolor=color, linewidth=thickness)
            panel.add_patch(box)

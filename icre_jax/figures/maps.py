"""Images in rows, what a network made of them beside: heat maps, masks, attention."""

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


@dataclass(frozen=True, eq=False)
class Cell:
    """One image of a figure.

    Attributes:
      image: [H, W, 3] uint8.
      heat: [h, w] to be laid over it; None for the image as it is.
      high: the value of the brightest colour; None for the largest of `heat`.
      title, note: above and below; "" for none.
      box: (top, left, height, width) as shares of the image, to be outlined; None for none.
      frame: a colour around it; None for none.
    """

    image: np.ndarray
    heat: np.ndarray | None = None
    high: float | None = None
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
    height, width = rows[0][0].image.shape[:2]
    lines = max(cell.title.count("\n") + cell.note.count("\n") + 1.6 for row in rows for cell in row)
    cell_height = _PANEL_WIDTH * height / width + 0.17 * lines
    size = (max(4.4, (_PANEL_WIDTH + 0.12) * len(rows[0]) + (0.9 if scale else 0.2)), cell_height * len(rows) + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for row, panels in zip(rows, axes, strict=True):
        for cell, panel in zip(row, panels, strict=True):
            _draw(panel, cell)
    if scale:
        colors = ScalarMappable(Normalize(0, 1 if top is None else top), matplotlib.colormaps[HEAT_COLORS])
        bar = figure.colorbar(colors, ax=axes, shrink=0.5, aspect=25)
        bar.outline.set_visible(False)
        bar.set_label(scale)
        if top is None:
            bar.set_ticks([0, 1], labels=["0", "high"])
    if note:
        figure.supxlabel(note, fontsize=8.5)
    return figure


def _draw(panel: Axes, cell: Cell) -> None:
    shown = cell.image if cell.heat is None else lay_over(cell.image, cell.heat, high=cell.high)
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

"""Lines to inline SVG: follows the colours of the page (light, dark, print), same input, same bytes."""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from markupsafe import Markup

from icre_jax.figures.colors import COLORS, GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In the SVG each colour becomes a CSS variable of the template, with this value as the fallback.
# Black and white are what an outline or a halo stands out by, on paper and on a dark page.
_VARIABLES = {
    INK: "--plot-ink",
    GRID: "--plot-grid",
    MUTED: "--plot-muted",
    "#000000": "--ink",
    "#ffffff": "--card",
} | {color: f"--plot-{i}" for i, color in enumerate(COLORS)}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: small, sharp, selectable
    "svg.hashsalt": "icre_jax",  # element ids depend on the content only
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.4,
    "lines.solid_capstyle": "round",
    "axes.formatter.limits": (-3, 5),  # beyond, a power of ten above the axis, as the margin is fixed
}
# Inches of 72 points, the units of the viewBox; small, so that letters of 9 points can be read on a phone.
_SIZE = (4.6, 2.75)
# Fixed margins (shares of the figure): plots side by side line up, and no layout has to be solved.
_LEFT, _RIGHT, _BOTTOM, _TOP, _LEGEND_ROW = 0.14, 0.985, 0.17, 0.94, 0.074
_LEGEND_LETTERS = 52  # fit into one row
_MAX_POINTS = 1000  # about one per two pixels
_MAX_MARKERS = 12  # more would be a caterpillar


Kind = Literal["line", "dashed", "faint", "point", "level"]


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a plot.

    Attributes:
      label: for the legend; "" for none.
      x, y: [N]; what is not finite leaves a gap.
      color: one of COLORS or MUTED.
      kind: "line", "dashed", "faint" (behind the others), "point" (a diamond), "level" (horizontal at y[0]).
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    color: str
    kind: Kind = "line"


def draw(
    lines: Sequence[Line],
    *,
    name: str,
    description: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    log_x: bool = False,
    from_zero: bool = False,
    highest: float | None = None,
) -> Markup | None:
    """An `<svg>` element, or None if no line has a finite value (on a log axis: a positive one).

    Args:
      lines: drawn in this order.
      name: prefix of element ids, unique in the page.
      description: for people who do not see the plot.
      x_label, y_label: with units.
      log: logarithmic y axis.
      log_x: logarithmic x axis.
      from_zero: the y axis starts at 0.
      highest: the y axis never goes beyond.
    """
    lines = [line for line in lines if np.any(_visible(line, log))]
    if not lines:
        return None
    # Here, not above: it takes half a second, and every start of a training run would wait for it.
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_subplot()
        if log:
            axes.set_yscale("log", nonpositive="mask")
        for line in lines:
            _add(axes, line, log)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.yaxis.set_label_coords(-0.12, 0.5)
        axes.margins(x=0.02)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        _set_limits(axes, lines, log=log, from_zero=from_zero, highest=highest)
        labels = [line.label for line in lines if line.label]
        rows = math.ceil(sum(len(label) + 5 for label in labels) / _LEGEND_LETTERS)
        if rows:
            columns = math.ceil(len(labels) / rows)
            figure.legend(loc="upper left", bbox_to_anchor=(_LEFT - 0.01, 1), ncols=columns)
            rows = math.ceil(len(labels) / columns)
        figure.subplots_adjust(left=_LEFT, right=_RIGHT, bottom=_BOTTOM, top=_TOP - rows * _LEGEND_ROW)
        return _to_markup(figure, name, description)


def draw_figure(make: "Callable[[], Figure]", *, name: str, description: str) -> Markup:
    """A figure of `icre_jax.figures`, drawn by `make`, in the page's look; the rest as of `draw`."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE, {"axes.grid": False, "axes.spines.left": False}]):
        return _to_markup(make(), name, description)


def _to_markup(figure: "Figure", name: str, description: str) -> Markup:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # Safe: matplotlib escapes the texts it draws, `_inline` the description.
    return Markup(_inline(stream.getvalue(), name, description))


def every_nth(num_points: int) -> int:
    """Lines with more points than the plot has pixels show every n-th only; 1 for all."""
    return max(1, math.ceil(num_points / _MAX_POINTS))


def _visible(line: Line, log: bool) -> np.ndarray:
    """[N] bool."""
    shown = np.isfinite(line.x) & np.isfinite(line.y)
    return shown & (line.y > 0) if log else shown


def _add(axes: "Axes", line: Line, log: bool) -> None:
    # Matplotlib takes a leading "_" for no label at all and "$" for mathematics.
    label = f" {line.label}".replace("$", r"\$") if line.label else "_"
    if line.kind == "level":
        axes.axhline(float(line.y[0]), color=line.color, linestyle=":", linewidth=1.3, label=label)
        return
    if line.kind == "point":
        axes.plot(line.x, line.y, "D", color=line.color, markersize=5, label=label)
        return
    shown = _visible(line, log)
    keep = np.union1d(np.arange(0, len(line.x), every_nth(len(line.x))), [len(line.x) - 1])
    # A value between two gaps would be invisible without a mark.
    alone = shown & ~np.append(False, shown[:-1]) & ~np.append(shown[1:], False)
    marked = np.full_like(shown, line.kind != "faint") if shown.sum() <= _MAX_MARKERS else alone
    axes.plot(
        line.x[keep],
        np.where(shown, line.y, np.nan)[keep],
        color=line.color,
        linestyle="--" if line.kind == "dashed" else "-",
        linewidth=0.8 if line.kind == "faint" else 1.8,
        alpha=0.35 if line.kind == "faint" else 1.0,
        marker="o" if marked.any() else "",
        markevery=marked[keep].tolist(),
        markersize=3.2,
        label=label,
    )


def _set_limits(axes: "Axes", lines: Sequence[Line], *, log: bool, from_zero: bool, highest: float | None) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    xs = np.concatenate([line.x[_visible(line, log)] for line in lines if line.kind != "level"] or [np.zeros(1)])
    if len(np.unique(xs)) == 1:
        axes.set_xticks([xs[0]])
    elif axes.get_xscale() == "linear" and xs.size and float(np.max(xs)).is_integer() and np.max(xs) > 3:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    if log:
        axes.yaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_ylim()
        if high / low < 10:  # otherwise perhaps no power of ten is inside to put a number at
            axes.set_ylim(low / 3, high * 3)
        return
    if from_zero:
        top = max(float(np.max(line.y[_visible(line, log)])) for line in lines) * 1.06
        axes.set_ylim(0, min(top, highest) if highest else top or 1)
        if top <= 0:
            axes.set_ylim(0, 1)


def _inline(text: str, name: str, description: str) -> str:
    """Matplotlib's SVG file as an element of a page: no prologue, unique ids, the page's colours and size."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None
    root = f'<svg class="plot" role="img" aria-label="{Markup.escape(description)}" {view_box[0]}>'
    text = root + text[text.index(">") + 1 :]
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable}, {color})")
    return re.sub(r"\n\s*", "\n", text).strip()

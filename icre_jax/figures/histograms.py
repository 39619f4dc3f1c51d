"""Histograms in panels: distances between the modalities (the paper's Fig. 4 a-c), moves of features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icre_jax.figures.colors import COLORS
from icre_jax.figures.style import add_legend

_LINES = ("-", "--", ":")


@dataclass(frozen=True, eq=False)
class Histogram:
    """One histogram of a panel.

    Attributes:
      label: for the legend.
      edges: [bins + 1], of all histograms of a panel the same.
      counts: [bins], not all 0.
      mark: a value to be marked, e.g. the mean.
      mark_name: what it is.
    """

    label: str
    edges: np.ndarray
    counts: np.ndarray
    mark: float
    mark_name: str = "mean"


def draw_histograms(panels: Mapping[str, Sequence[Histogram]], title: str, *, x_label: str, y_label: str) -> Figure:
    """Panels side by side, each on its own scale; every histogram in percent of its own counts.

    Args:
      panels: title of a panel -> at most three histograms, of the same labels in the same order in all panels.
      title: one line.
      x_label, y_label: of all panels.
    """
    figure = Figure(figsize=(max(5.2, 3.7 * len(panels)), 3.7), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, len(panels), squeeze=False)[0].tolist()
    for panel, (name, histograms) in zip(axes, panels.items(), strict=True):
        panel.set_title(name, fontsize=10)
        panel.set_xlabel(x_label)
        panel.set_xlim(histograms[0].edges[0], histograms[0].edges[-1])
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.grid(axis="y", linewidth=0.7)
        for shown, color, line in zip(histograms, COLORS, _LINES, strict=False):
            share = 100 * shown.counts / shown.counts.sum()
            panel.stairs(share, shown.edges, fill=True, color=color, alpha=0.3)
            panel.stairs(share, shown.edges, color=color, linewidth=1.0, label=shown.label)
            name = f"{shown.mark_name}, {shown.label}"
            panel.axvline(shown.mark, color=color, linewidth=2.0, linestyle=line, label=name)
    axes[0].set_ylabel(y_label)
    add_legend(figure, axes)
    return figure

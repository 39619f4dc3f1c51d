"""How far the enhancement moves the features."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from icre_jax.figures.colors import COLORS
from icre_jax.figures.style import add_legend

_BINS = 40
_LINES = ("-", "--")


def draw_enhancement(panels: Mapping[str, Mapping[str, np.ndarray]], title: str) -> Figure:
    """A panel for each thing that is taken out, a histogram for each modality, medians marked.

    Args:
      panels: what is taken out -> modality -> [N], |f_with - f_without| / |f_without| of its images.
      title: one line.
    """
    figure = Figure(figsize=(max(5.2, 4.4 * len(panels)), 3.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (name, moved) in zip(axes, panels.items(), strict=True):
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("|f with \N{MINUS SIGN} f without| / |f without|")
        panel.grid(axis="y", linewidth=0.7)
        top = max(float(values.max()) for values in moved.values())
        edges = np.linspace(0, 1.05 * top or 1.0, _BINS + 1)
        for (modality, values), color, line in zip(moved.items(), COLORS, _LINES, strict=False):
            share = 100 * np.histogram(values, edges)[0] / len(values)
            panel.stairs(share, edges, fill=True, color=color, alpha=0.3)
            panel.stairs(share, edges, color=color, linewidth=1.4, linestyle=line, label=modality)
            panel.axvline(
                float(np.median(values)), color=color, linewidth=1.8, linestyle=line, label=f"median, {modality}"
            )
    axes[0].set_ylabel("share of the images (%)")
    add_legend(figure, axes)
    return figure

"""Histograms of the distances between the modalities, of one person and of two (the paper's Fig. 4 a-c)."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icre_jax.evals.distances import EDGES, PairDistances
from icre_jax.figures.colors import COLORS, INK
from icre_jax.figures.style import add_legend

_INTRA, _INTER = COLORS[0], COLORS[1]


def draw_distances(panels: Mapping[str, PairDistances], title: str) -> Figure:
    """A panel for each network, on one scale; shares in percent of the pairs of each kind.

    Args:
      panels: name of a network -> its distances.
      title: one line.
    """
    figure = Figure(figsize=(max(5.2, 3.6 * len(panels)), 3.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    used = [np.flatnonzero(found.intra + found.inter) for found in panels.values()]
    low, high = EDGES[min(bins[0] for bins in used)], EDGES[max(bins[-1] for bins in used) + 1]
    for panel, (name, found) in zip(axes, panels.items(), strict=True):
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("cosine distance")
        panel.set_xlim(low, high)
        panel.grid(axis="y", linewidth=0.7)
        _add(panel, found.intra, found.intra_mean, _INTRA, "one identity", "-")
        _add(panel, found.inter, found.inter_mean, _INTER, "two identities", "--")
        gap = found.inter_mean - found.intra_mean
        panel.annotate(
            f"means {gap:.3f} apart", (0.03, 0.97), xycoords="axes fraction", va="top", ha="left", fontsize=9, color=INK
        )
    axes[0].set_ylabel("share of the pairs (%)")
    axes[0].set_ylim(0, axes[0].get_ylim()[1] * 1.12)  # room for the words
    add_legend(figure, axes)
    return figure


def _add(panel: Axes, counts: np.ndarray, mean: float, color: str, name: str, line: str) -> None:
    share = 100 * counts / counts.sum()
    panel.stairs(share, EDGES, fill=True, color=color, alpha=0.3)
    panel.stairs(share, EDGES, color=color, linewidth=1.4, linestyle=line, label=name)
    panel.axvline(mean, color=color, linewidth=1.8, linestyle=line, label=f"mean, {name}")

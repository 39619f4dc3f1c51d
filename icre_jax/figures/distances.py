"""Histograms of the distances between the modalities, of one person and of two (the paper's Fig. 4 a-c)."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icre_jax.evals.distances import PairDistances
from icre_jax.figures.colors import COLORS
from icre_jax.figures.style import add_legend


def draw_distances(panels: Mapping[str, PairDistances], title: str) -> Figure:
    """A panel for each network, each on its own scale; shares in percent of the pairs of each kind.

    Args:
      panels: name of a network -> its distances.
      title: one line.
    """
    figure = Figure(figsize=(max(5.2, 3.7 * len(panels)), 3.7), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, len(panels), squeeze=False)[0].tolist()
    for panel, (name, found) in zip(axes, panels.items(), strict=True):
        gap = found.inter_mean - found.intra_mean
        panel.set_title(f"{name}\nmeans {gap:.2g} apart", fontsize=10)
        panel.set_xlabel("cosine distance")
        panel.set_xlim(found.edges[0], found.edges[-1])
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.grid(axis="y", linewidth=0.7)
        for counts, mean, color, words, line in (
            (found.intra, found.intra_mean, COLORS[0], "one identity", "-"),
            (found.inter, found.inter_mean, COLORS[1], "two identities", "--"),
        ):
            share = 100 * counts / counts.sum()
            panel.stairs(share, found.edges, fill=True, color=color, alpha=0.3)
            panel.stairs(share, found.edges, color=color, linewidth=1.0, label=words)
            panel.axvline(mean, color=color, linewidth=2.0, linestyle=line, label=f"mean, {words}")
    axes[0].set_ylabel("share of the pairs (%)")
    add_legend(figure, axes)
    return figure

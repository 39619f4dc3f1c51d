"""Features of some identities in two dimensions (the paper's Fig. 4 d-f)."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icre_jax.figures.colors import INK, TEN
from icre_jax.figures.style import add_legend

_SHAPES = {"visible": "o", "infrared": "^"}
MOST_IDENTITIES = len(TEN)


@dataclass(frozen=True, eq=False)
class Layout:
    """Images as points.

    Attributes:
      points: [N, 2].
      pid: [N], of at most `MOST_IDENTITIES`.
      modality: [N] str, "visible" or "infrared".
      confused: [N] bool, to be outlined.
    """

    points: np.ndarray
    pid: np.ndarray
    modality: np.ndarray
    confused: np.ndarray


def draw_features(panels: Mapping[str, Layout], title: str) -> Figure:
    """A panel for each network: identities by colour and by their number, modalities by shape, confusions outlined.

    Args:
      panels: name of a network -> the same images as it sees them. The axes have no unit.
      title: one line.
    """
    figure = Figure(figsize=(max(5.2, 4.1 * len(panels)), 4.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, layout) in zip(axes, panels.items(), strict=True):
        panel.set_title(f"{name}: {layout.confused.sum()} of {len(layout.pid)} confused", fontsize=10)
        _draw(panel, layout)
    add_legend(figure, axes)
    return figure


def _draw(panel: Axes, layout: Layout) -> None:
    panel.set(xticks=[], yticks=[])
    panel.set_aspect("equal", adjustable="datalim")
    panel.spines[:].set_visible(True)
    panel.margins(0.08)
    for confused in (False, True):  # outlined ones above the others
        for number, pid in enumerate(np.unique(layout.pid)):
            for modality, shape in _SHAPES.items():
                chosen = (layout.pid == pid) & (layout.modality == modality) & (layout.confused == confused)
                x, y = layout.points[chosen].T
                panel.scatter(
                    x,
                    y,
                    marker=shape,
                    s=38,
                    color=TEN[number],
                    edgecolors="black" if confused else "white",
                    linewidths=1.6 if confused else 0.4,
                    zorder=4 if confused else 3,
                )
    for modality, shape in _SHAPES.items():
        panel.scatter([], [], marker=shape, s=38, color=INK, label=modality)
    panel.scatter(
        [],
        [],
        marker="s",
        s=38,
        color="white",
        edgecolors="black",
        linewidths=1.6,
        label="nearest image of the other modality is of another identity",
    )
    halo = [matplotlib.patheffects.withStroke(linewidth=2.5, foreground="white")]
    for pid in np.unique(layout.pid):
        x, y = np.median(layout.points[layout.pid == pid], axis=0)
        panel.annotate(
            str(pid), (x, y), ha="center", va="center", fontsize=8, color="black", path_effects=halo, zorder=5
        )

"""CMC of several networks together."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from icre_jax.figures.colors import COLORS, MUTED
from icre_jax.figures.style import add_legend

_LINES = ("-", "--", "-.", ":")
_MARKS = ("o", "s", "^", "D", "v", "P")


def draw_cmc(networks: Mapping[str, Mapping[str, Sequence[float]]], chance: Mapping[str, float], title: str) -> Figure:
    """A panel for each setting of the protocol, a line for each network, and the Rank-1 of chance.

    Args:
      networks: name -> setting -> shares of the queries matched by rank 1, 2, ..., in fractions; all of the same
        settings.
      chance: setting -> the Rank-1 to expect of a random ranking.
      title: one line.
    """
    settings = [*chance]
    columns = min(2, len(settings))
    rows = math.ceil(len(settings) / columns)
    figure = Figure(figsize=(max(5.2, 4.3 * columns), 3.1 * rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for panel in panels[len(settings) :]:
        panel.set_visible(False)
    for i, panel in enumerate(panels[: len(settings)]):
        panel.set_title(settings[i], fontsize=10)
        panel.grid(linewidth=0.7)
        for number, (name, curves) in enumerate(networks.items()):
            cmc = 100 * np.array(curves[settings[i]])
            panel.plot(
                np.arange(1, len(cmc) + 1),
                cmc,
                color=COLORS[number % len(COLORS)],
                linestyle=_LINES[number % len(_LINES)],
                marker=_MARKS[number % len(_MARKS)],
                markersize=3.5,
                linewidth=1.6,
                label=name,
            )
        # Only the first rank: what a random ranking reaches later does not follow from it.
        panel.plot([1], [100 * chance[settings[i]]], "X", color=MUTED, markersize=7, label="chance, Rank-1")
        panel.set_xticks([1, *range(5, len(cmc) + 1, 5)])
    panels[0].set_ylim(0, 102)
    for i, panel in enumerate(panels[: len(settings)]):
        if i + columns >= len(settings):
            panel.set_xlabel("rank k")
            panel.tick_params(labelbottom=True)
        if i % columns == 0:
            panel.set_ylabel("queries matched (%)")
    add_legend(figure, panels[: len(settings)])
    return figure

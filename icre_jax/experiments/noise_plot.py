"""The noise of a config as an image: a dot per run, and each group's mean and standard deviation with its interval."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.spread import deviation
from icre_jax.experiments.summary import IN_TABLES
from icre_jax.figures.colors import COLORS, MUTED
from icre_jax.figures.style import add_legend, styled, to_png

_INCHES_PER_GROUP = 0.7


def draw_png(groups: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> bytes:
    """Groups from top to bottom, Rank-1 on the left and mAP on the right, in percent; the file's bytes.

    Args:
      groups: label -> metric of `IN_TABLES` -> scores of its runs, in fractions, at least one.
      title: one line.
    """
    with styled():
        figure = Figure(figsize=(10.5, 1.6 + _INCHES_PER_GROUP * len(groups)), layout="constrained")
        figure.suptitle(title, fontsize=10)
        block = figure.subfigures(1, 1, squeeze=False)[0, 0]
        panels = block.subplots(1, len(IN_TABLES), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, IN_TABLES, strict=True):
            _draw(panel, metric, [scores[metric] for scores in groups.values()])
        panels[0].set_yticks(range(len(groups)), list(groups))
        panels[0].set_ylim(len(groups) - 0.4, -0.5)  # the first one on top
        add_legend(block, panels)
        return to_png(figure)


def _draw(panel: Axes, metric: str, groups: Sequence[Sequence[float]]) -> None:
    panel.grid(axis="y", linewidth=0.7)
    panel.set_xlabel(f"{METRIC_NAMES[metric]} (%)")
    for i, scores in enumerate(groups):
        values = [100 * score for score in scores]
        mean, made = sum(values) / len(values), deviation(values)
        if not math.isnan(made.value):
            # The true standard deviation may be as large as the thin line says.
            for spread, width, color, label in (
                (made.high, 1.0, MUTED, "mean ± upper 95 % limit of the standard deviation"),
                (made.value, 2.5, COLORS[0], "mean ± standard deviation"),
            ):
                panel.errorbar(
                    [mean], [i], xerr=[spread], fmt="none", ecolor=color, elinewidth=width, capsize=3, label=label
                )
        panel.plot([mean], [i], "|", color=COLORS[0], markersize=13, markeredgewidth=2)
        panel.scatter(
            values,
            [i + 0.25] * len(values),  # below the bar, or it would hide them
            s=22,
            color=COLORS[1],
            alpha=0.8,
            linewidths=0,
            zorder=3,
            label="one run",
        )

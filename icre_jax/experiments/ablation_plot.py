"""The ablation as an image: scores of each row above, differences with their confidence intervals below."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.comparisons import Comparison
from icre_jax.experiments.rows import BASELINE
from icre_jax.experiments.summary import IN_TABLES, Summary
from icre_jax.experiments.table import MINUS
from icre_jax.figures.colors import COLORS, GRID, MUTED
from icre_jax.figures.style import add_legend, styled, to_png

_INCHES_PER_LINE = 0.36


def draw_png(summaries: Sequence[Summary], compared: Sequence[Comparison], title: str, *, margin: float) -> bytes:
    """Rows from top to bottom, Rank-1 on the left and mAP on the right, in percent; the file's bytes.

    Args:
      summaries: the rows.
      compared: what is compared, perhaps nothing.
      title: one line.
      margin: of the verdicts, in percentage points.
    """
    heights = [lines for lines in (len(summaries), len(compared)) if lines]
    with styled():
        size = (10.5, 1.6 * len(heights) + _INCHES_PER_LINE * sum(heights))
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, fontsize=10)
        # Each with a legend of its own.
        ratios = [1.4 + _INCHES_PER_LINE * lines for lines in heights]
        top, *below = figure.subfigures(len(heights), squeeze=False, height_ratios=ratios)[:, 0]
        panels = top.subplots(1, len(IN_TABLES), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, IN_TABLES, strict=True):
            _draw_scores(panel, metric, summaries)
        _name_lines(panels[0], [summary.row.label for summary in summaries])
        add_legend(top, panels)
        for block in below:
            panels = block.subplots(1, len(IN_TABLES), sharey=True, squeeze=False)[0]
            for panel, metric in zip(panels, IN_TABLES, strict=True):
                _draw_differences(panel, metric, compared, margin)
            _name_lines(panels[0], [f"{pair.row.label} {MINUS} {pair.label}" for pair in compared])
            add_legend(block, panels)
        return to_png(figure)


def _draw_scores(panel: Axes, metric: str, summaries: Sequence[Summary]) -> None:
    panel.grid(axis="y", linewidth=0.7)
    panel.set_xlabel(f"{METRIC_NAMES[metric]} (%)")
    for i, summary in enumerate(summaries):
        mean, std = 100 * summary.scores[metric].value, 100 * summary.scores[metric].spread
        if summary.row.name == BASELINE:
            panel.axvline(mean, color=MUTED, linestyle="--", linewidth=1, zorder=0.5, label="mean of the baseline")
        panel.errorbar(
            [mean],
            [i],
            xerr=None if math.isnan(std) else [std],
            fmt="|",
            color=COLORS[0],
            markersize=13,
            markeredgewidth=2,
            capsize=3,
            label="mean ± standard deviation" if i == 0 else None,
        )
        values = [100 * value for value in summary.values(metric)]
        panel.scatter(
            values,
            [i + 0.25] * len(values),  # below the bar, or it would hide them
            s=22,
            color=COLORS[1],
            alpha=0.8,
            linewidths=0,
            zorder=3,
            label="one seed" if i == 0 else None,
        )


def _draw_differences(panel: Axes, metric: str, compared: Sequence[Comparison], margin: float) -> None:
    panel.grid(axis="y", linewidth=0.7)
    panel.set_xlabel(f"{METRIC_NAMES[metric]}, first {MINUS} second (points)")
    panel.axvspan(-margin, margin, color=GRID, alpha=0.6, linewidth=0, zorder=0, label=f"±{margin} points")
    panel.axvline(0, color=MUTED, linestyle="--", linewidth=1, zorder=0.5)
    drawn = set()
    for i, pair in enumerate(compared):
        made = pair.metrics[metric]
        difference, low, high = (100 * number for number in (made.test.difference, made.test.low, made.test.high))
        resolved = made.words.startswith("resolved")
        label = "resolved, 95 % interval" if resolved else "not resolved, 95 % interval"
        panel.errorbar(
            [difference],
            [i],
            xerr=None if math.isnan(low) else [[difference - low], [high - difference]],
            fmt="o",
            color=COLORS[0],
            markersize=7,
            markerfacecolor=COLORS[0] if resolved else "white",
            markeredgewidth=1.5,
            capsize=3,
            label=None if label in drawn else label,
        )
        drawn.add(label)


def _name_lines(panel: Axes, names: Sequence[str]) -> None:
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)  # the first one on top

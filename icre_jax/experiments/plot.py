"""The ablation as an image: a dot for each seed, mean and spread of each row."""

import io
import math
from collections.abc import Sequence

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.rows import BASELINE
from icre_jax.experiments.runs import RunScore
from icre_jax.experiments.summary import Summary
from icre_jax.report.figure import COLORS, GRID, INK, MUTED

_PANELS = ("rank1", "mAP")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
}


def draw_png(summaries: Sequence[Summary], scores: Sequence[RunScore], title: str) -> bytes:
    """Rows from top to bottom, one panel for Rank-1 and one for mAP, in percent; the file's bytes.

    Args:
      summaries: the rows.
      scores: of their runs.
      title: one line.
    """
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(9.5, 1.6 + 0.36 * len(summaries)), layout="constrained")
        panels = figure.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, _PANELS, strict=True):
            _draw(panel, metric, summaries, scores)
        panels[0].set_yticks(range(len(summaries)), [summary.row.label for summary in summaries])
        panels[0].set_ylim(len(summaries) - 0.5, -0.5)  # the first row on top
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(title, fontsize=10)
        stream = io.BytesIO()
        # Without the version of matplotlib: the same scores give the same bytes.
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _draw(panel: Axes, metric: str, summaries: Sequence[Summary], scores: Sequence[RunScore]) -> None:
    panel.grid(axis="y", linewidth=0.7)
    panel.set_xlabel(f"{METRIC_NAMES[metric]} (%)")
    for i, summary in enumerate(summaries):
        values = [100 * score.result.mean[metric] for score in scores if score.row == summary.row.name]
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

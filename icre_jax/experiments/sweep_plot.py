"""A sweep as an image: for each field a panel of Rank-1 and one of mAP, a line for each choice of the other fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.points import rank
from icre_jax.experiments.summary import IN_TABLES, Summary
from icre_jax.figures.colors import COLORS, MUTED
from icre_jax.figures.style import add_legend, styled, to_png
from icre_jax.settings import flatten

_MOST_NAMED = 8  # lines; more would fill the image with their names
_SPREAD = "mean ± standard deviation"
_DODGE = 0.012  # of the width, so that error bars stand side by side


def draw_png(summaries: Sequence[Summary], own: Mapping[str, Any], title: str) -> bytes:
    """One row of panels per field, in percent; the file's bytes.

    Args:
      summaries: the points, in the order of their values.
      own: field -> the config's own value.
      title: one line.
    """
    with styled():
        figure = Figure(figsize=(10.5, 0.5 + 3.4 * len(own)), layout="constrained")
        figure.suptitle(f"{title}, {_SPREAD}", fontsize=10)
        blocks = figure.subfigures(len(own), squeeze=False)[:, 0]
        for block, field in zip(blocks, own, strict=True):
            panels = block.subplots(1, len(IN_TABLES))
            lines = _lines(summaries, own, field)
            for panel, metric in zip(panels, IN_TABLES, strict=True):
                _draw(panel, field, metric, lines, own)
            add_legend(block, panels)
        return to_png(figure)


def _lines(summaries: Sequence[Summary], own: Mapping[str, Any], field: str) -> dict[str, list[Summary]]:
    """Choice of the other fields, in words -> points that share it; first the config's own, perhaps without a point.

    A point that no other one shares its choice with is no line, unless the choice is the config's own.
    """
    own_choice = ", ".join(f"{name} = {value}" for name, value in own.items() if name != field)
    lines: dict[str, list[Summary]] = {own_choice: []}
    for summary in summaries:
        values = flatten(summary.row.settings)
        choice = ", ".join(f"{name} = {values[name]}" for name in own if name != field)
        lines.setdefault(choice, []).append(summary)
    return {choice: points for choice, points in lines.items() if len(points) > 1 or choice == own_choice}


def _draw(panel: Axes, field: str, metric: str, lines: Mapping[str, Sequence[Summary]], own: Mapping[str, Any]) -> None:
    panel.grid(linewidth=0.7)
    panel.set_xlabel(field)
    panel.set_ylabel(f"{METRIC_NAMES[metric]} (%)")
    # As far from each other whatever they are: numbers of a sweep often grow by factors.
    values = {_value(point, field) for points in lines.values() for point in points}
    places = {value: float(i) for i, value in enumerate(sorted({*values, own[field]}, key=rank))}
    panel.set_xticks(list(places.values()), [str(value) for value in places])
    panel.axvline(places[own[field]], color=MUTED, linestyle="--", linewidth=1, zorder=0.5, label="the config's own")
    colors = [COLORS[0], *matplotlib.colormaps["viridis"](np.linspace(0, 1, max(1, len(lines) - 1)))]
    for i, (choice, points) in enumerate(lines.items()):
        if not points:
            continue
        shift = _DODGE * len(places) * (i - (len(lines) - 1) / 2)
        x = [places[_value(point, field)] + shift for point in points]
        panel.errorbar(
            x,
            [100 * point.scores[metric].value for point in points],
            yerr=[100 * point.scores[metric].spread for point in points],  # NaN, of a single run, draws none
            fmt="o-",
            color=colors[i],
            markersize=4.5,
            linewidth=1.2 if i else 1.8,
            capsize=3,
            label=choice if 1 < len(lines) <= _MOST_NAMED else _SPREAD,
        )
        if len(lines) == 1:
            beside = _DODGE * len(places)  # or the bar would hide them
            for j, point in enumerate(points):
                seeds = [100 * value for value in point.values(metric)]
                panel.scatter(
                    [x[j] + beside] * len(seeds),
                    seeds,
                    s=18,
                    color=COLORS[1],
                    alpha=0.8,
                    linewidths=0,
                    label="one seed",
                )


def _value(summary: Summary, field: str) -> Any:
    return flatten(summary.row.settings)[field]

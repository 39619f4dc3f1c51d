"""Which plots a report has: scores, losses, learning rates, whatever else was logged, speed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from icre_jax.evals.results import CMC_LENGTH, METRIC_NAMES, METRICS
from icre_jax.figures.colors import COLORS, MUTED
from icre_jax.report.figure import Kind, Line, draw, every_nth
from icre_jax.report.records import Evaluation

# Ranks 5 to 20 would crowd the plot; they are in the table below it.
_DRAWN_METRICS = ("rank1", "mAP", "mINP")
_LABEL_STYLES: dict[str, tuple[str, Kind]] = {
    "last": (COLORS[0], "line"),
    "last and best": (COLORS[0], "line"),
    "best": (COLORS[1], "dashed"),
    "untrained": (MUTED, "line"),
}


@dataclass(frozen=True)
class Plot:
    """A drawing with its title and one sentence on how to read it ("" for none)."""

    title: str
    svg: Markup
    caption: str = ""


def series(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """[N] float64: the values of `key`, NaN where it is missing or infinite."""
    values = np.array([float(row.get(key, np.nan)) for row in rows], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the numbers in the rows, as they first appear, without "step" and "epoch"."""
    names = {name: None for row in rows for name, value in row.items() if isinstance(value, (int, float, np.number))}
    return [name for name in names if name not in ("step", "epoch")]


def plot_cmc(evaluations: Sequence[Evaluation]) -> list[Plot]:
    """One plot per setting: the share of queries with a match among the first k, k = 1 to 20."""
    ranks = np.arange(1, CMC_LENGTH + 1, dtype=np.float64)
    plots = []
    for setting in dict.fromkeys(result.setting for item in evaluations for result in item.results):
        lines = []
        chance = np.nan
        for i, item in enumerate(evaluations):
            # Other conditions (re-ranking, another gallery) are in the table; one line per state is what can be read.
            result = next((result for result in item.results if result.setting == setting), None)
            if result is not None:
                color, kind = _LABEL_STYLES.get(item.label, (COLORS[2 + i % (len(COLORS) - 2)], "line"))
                lines.append(Line(item.label, ranks, 100 * np.array(result.cmc), color, kind))
                chance = result.chance
        # Only the first rank: what a random ranking reaches later does not follow from it.
        lines.append(Line("chance, Rank-1", np.ones(1), np.array([100 * chance]), MUTED, "point"))
        svg = draw(
            lines,
            name=f"cmc-{_slug(setting)}",
            description=f"CMC of {setting}: matching queries in percent by rank, for "
            f"{', '.join(line.label for line in lines)}. The numbers are in the table below.",
            x_label="rank k",
            y_label="queries matched (%)",
            from_zero=True,
            highest=102,
        )
        if svg is not None:
            plots.append(Plot(setting, svg))
    return plots


def plot_scores(score_curve: Sequence[Mapping[str, Any]], evaluations: Sequence[Evaluation]) -> list[Plot]:
    """One plot per setting: Rank-1, mAP, mINP over training, and the Rank-1 of chance."""
    epochs = series(score_curve, "epoch")
    chances = {result.setting: result.chance for item in evaluations for result in item.results}
    groups: dict[str, list[str]] = {}
    for key in keys(score_curve):
        groups.setdefault(key.rpartition("/")[0], []).append(key.rpartition("/")[2])
    plots = []
    for setting, metrics in groups.items():
        drawn = [metric for metric in metrics if metric in _DRAWN_METRICS or metric not in METRICS]
        lines = []
        for i, metric in enumerate(sorted(drawn, key=lambda m: METRICS.index(m) if m in METRICS else len(METRICS))):
            values = 100 * series(score_curve, f"{setting}/{metric}" if setting else metric)
            lines.append(Line(METRIC_NAMES.get(metric, metric), epochs, values, COLORS[i % len(COLORS)]))
        if setting in chances:
            lines.append(Line("chance, Rank-1", np.zeros(1), np.array([100 * chances[setting]]), MUTED, "level"))
        if not any(np.isfinite(line.y).any() for line in lines if line.kind == "line"):
            continue
        svg = draw(
            lines,
            name=f"scores-{_slug(setting)}",
            description=f"Scores of {setting} in percent by epoch: {', '.join(line.label for line in lines)}. "
            "The numbers are in the table below.",
            x_label="epoch",
            y_label="score (%)",
            from_zero=True,
            highest=102,
        )
        if svg is not None:
            plots.append(Plot(setting or "scores", svg))
    return plots


def plot_losses(steps: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """The loss and each of its parts in one plot, smoothed, with the logged values faint behind."""
    names = [name for name in keys(steps) if name == "loss" or name.startswith("loss/")]
    return _plot_curves(steps, names, title="Loss", name="loss", y_label="loss", smooth=True)


def plot_learning_rates(rates: Mapping[str, np.ndarray], steps_per_epoch: int) -> list[Plot]:
    """The schedule itself, one line per parameter group on a logarithmic axis.

    Args:
      rates: parameter group -> [num_steps], the rate of each step.
      steps_per_epoch: of the run.
    """
    lines = []
    for i, (group, values) in enumerate(rates.items()):
        # A rate holds for its step, so the line is a stair: with few steps too its corners are where they belong.
        ends = np.arange(len(values) + 1) / steps_per_epoch
        # Two groups may have the same rate; dashes let the line below show.
        kind: Kind = "dashed" if i else "line"
        lines.append(Line(group, np.repeat(ends, 2)[1:-1], np.repeat(values, 2), COLORS[i % len(COLORS)], kind))
    svg = draw(
        lines,
        name="rates",
        description=f"Learning rate by epoch, as scheduled: {', '.join(rates)}. Logged rates are in the table of all "
        "curves.",
        x_label="epoch",
        y_label="learning rate",
        log=True,
    )
    return [Plot("Learning rate", svg)] if svg is not None else []


def plot_others(steps: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """One plot for each logged number that is neither loss nor learning rate."""
    plots = []
    for name in keys(steps):
        if name != "loss" and not name.startswith(("loss/", "learning_rate/")):
            title = _title(name)
            plots += _plot_curves(steps, [name], title=title, name=_slug(name), y_label="", smooth=True)
    return plots


def plot_speed(timings: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Images per second, and the share of time spent waiting for data."""
    steps = series(timings, "step")
    plots = []
    for key, title, y_label, scale, highest in (
        ("images_per_second", "Throughput", "images per second", 1, None),
        ("data_wait", "Waiting for data", "share of the time (%)", 100, 102),
    ):
        svg = draw(
            [Line("", steps, scale * series(timings, key), COLORS[0])],
            name=_slug(key),
            description=f"{title}: {y_label} by step.",
            x_label="step",
            y_label=y_label,
            from_zero=True,
            highest=highest,
        )
        if svg is not None:
            plots.append(Plot(title, svg))
    return plots


def smooth_values(values: np.ndarray, window: int) -> np.ndarray:
    """[N]: centred mean over `window` (odd) values, fewer at the ends and around gaps; NaN stays NaN."""
    known = np.isfinite(values)
    kernel = np.ones(window)
    half = window // 2

    def spread(array: np.ndarray) -> np.ndarray:
        return np.convolve(array, kernel)[half : half + len(array)]

    counts = spread(known.astype(np.float64))
    return np.where(known, spread(np.where(known, values, 0)) / np.maximum(counts, 1), np.nan)


def _plot_curves(
    steps: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    title: str,
    name: str,
    y_label: str,
    smooth: bool = False,
) -> list[Plot]:
    epochs = series(steps, "epoch")
    window = len(steps) // 25 * 2 + 1 if smooth else 1
    faint, lines = [], []
    for i, key in enumerate(names):
        values = series(steps, key)
        color = COLORS[i % len(COLORS)]
        if window > 1:
            faint.append(Line("", epochs, values, color, "faint"))
        label = key.removeprefix("loss/") if len(names) > 1 else ""
        lines.append(Line(label, epochs, smooth_values(values, window), color))
    svg = draw(
        faint + lines,
        name=name,
        description=f"{title} by epoch: {', '.join(names)}. First and last values are in the table of all curves.",
        x_label="epoch",
        y_label=y_label,
    )
    every = every_nth(len(steps))
    faintly = "as logged" if every == 1 else f"as logged, one step in {every}"
    caption = f"Bold: mean over {window} logged steps. Faint: {faintly}." if window > 1 else ""
    return [Plot(title, svg, caption)] if svg is not None else []


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "plot"

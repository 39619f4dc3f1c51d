"""What a sweep says: a table for each field, one of all points where several were changed at once, and the files."""

from collections.abc import Sequence
from typing import Any

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.conditions import require_one_condition
from icre_jax.experiments.points import Space, rank
from icre_jax.experiments.runs import Row, RunScore
from icre_jax.experiments.summary import IN_TABLES, Summary, describe_scores, summarize
from icre_jax.experiments.sweep_plot import draw_png
from icre_jax.experiments.table import (
    Sheet,
    Tables,
    percent,
    run_columns,
    summary_columns,
    to_csv,
    to_latex,
    to_markdown,
)
from icre_jax.settings import flatten


def make_tables(space: Space, fields: Sequence[str], points: Sequence[Row], scores: Sequence[RunScore]) -> Tables:
    """Everything that a sweep leaves beside its work folders.

    Args:
      space: the config.
      fields: that are varied.
      points: of the sweep.
      scores: of the finished runs, at least one.

    Raises:
      InputError: runs that were scored under different conditions.
    """
    # A field of the sweep may be the number of epochs, so not all have to be trained for as many steps.
    require_one_condition(scores, same_length=False)
    own = {field: space.own(field) for field in fields}
    summaries = summarize(_in_order(points, fields), scores)
    sheets = _sheets(summaries, own)
    first = summaries[0].runs[0]
    return Tables(
        files={
            "sweep.csv": to_csv(
                [_point_columns(s, fields) | run_columns(run) for s in summaries for run in s.runs]
            ).encode(),
            "sweep_summary.csv": to_csv([_point_columns(s, fields) | summary_columns(s) for s in summaries]).encode(),
            "sweep.md": to_markdown(sheets).encode(),
            "sweep.tex": to_latex(sheets).encode(),
            "sweep.png": draw_png(summaries, own, f"{first.result.dataset}, {first.setting}, after the last step"),
        },
        sheets=sheets,
    )


def _in_order(points: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    """By their values, the first field first; numbers by size, words as they are."""
    values = {point.name: flatten(point.settings) for point in points}
    return sorted(points, key=lambda point: [rank(values[point.name][field]) for field in fields])


def _point_columns(summary: Summary, fields: Sequence[str]) -> dict[str, Any]:
    values = flatten(summary.row.settings)
    return {"point": summary.row.name, **{field: values[field] for field in fields}}


def _sheets(summaries: Sequence[Summary], own: dict[str, Any]) -> list[Sheet]:
    """For each field the points that change nothing else; and all points, if some of them change several."""
    values = {summary.row.name: flatten(summary.row.settings) for summary in summaries}
    about = describe_scores(summaries)
    sheets = []

    def changed(summary: Summary) -> set[str]:
        return {field for field in own if values[summary.row.name][field] != own[field]}

    for field in own:
        alone = [summary for summary in summaries if changed(summary) <= {field}]
        if any(changed(summary) for summary in alone):
            others = [f"{other} = {value}" for other, value in own.items() if other != field]
            fixed = f", with {', '.join(others)}" if others else ""
            caption = f"{field} varied alone{fixed}. {about} The config's own value is {own[field]}."
            sheets.append(_sheet(f"sweep-{field.replace('.', '-')}", caption, [field], alone))
    if any(len(changed(summary)) > 1 for summary in summaries) or not sheets:
        config = ", ".join(f"{field} = {value}" for field, value in own.items())
        sheets.append(_sheet("sweep", f"All points. {about} The config's own: {config}.", list(own), summaries))
    return sheets


def _sheet(name: str, caption: str, fields: Sequence[str], summaries: Sequence[Summary]) -> Sheet:
    body = []
    for summary in summaries:
        values = flatten(summary.row.settings)
        scores = [percent(summary.scores[metric]) for metric in IN_TABLES]
        body.append([*(str(values[field]) for field in fields), str(len(summary.runs)), *scores])
    return Sheet(name, caption, [*fields, "n", *(METRIC_NAMES[m] for m in IN_TABLES)], body, num_names=len(fields))

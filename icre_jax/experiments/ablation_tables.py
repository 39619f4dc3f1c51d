"""What an ablation says: scores per row, its comparisons, and parts taken out at test time, in all their files."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.ablation_plot import draw_png
from icre_jax.experiments.comparisons import Comparison, Verdict, compare_parts, compare_rows
from icre_jax.experiments.conditions import require_one_condition
from icre_jax.experiments.rows import BASELINE
from icre_jax.experiments.runs import Row, RunScore
from icre_jax.experiments.summary import IN_TABLES, Summary, describe_scores, estimate, summarize
from icre_jax.experiments.table import (
    Sheet,
    Tables,
    percent,
    probability,
    run_columns,
    signed,
    summary_columns,
    to_csv,
    to_latex,
    to_markdown,
)

_REMOVAL_HEADER = ("row", "label", "part", "num_runs")
_TESTED = ("difference", "low", "high", "p", "p_holm", "verdict")


def make_tables(rows: Sequence[Row], scores: Sequence[RunScore], *, margin: float) -> Tables:
    """Everything that an ablation leaves beside its work folders.

    Args:
      rows: of the ablation.
      scores: of the finished runs, at least one.
      margin: percentage points; an effect that is smaller for certain is called none.

    Raises:
      InputError: runs that were scored under different conditions.
    """
    require_one_condition(scores, same_length=True)
    summaries = summarize(rows, scores)
    compared, removed = compare_rows(summaries, margin), compare_parts(summaries, margin)
    sheets = [_score_sheet(summaries)]
    if compared:
        sheets.append(_comparison_sheet(compared, margin))
    if removed:
        sheets.append(_removal_sheet(removed, margin))
    remarks = [
        f"{row.label}: {', '.join(row.reset_fields)} as in the other rows, not as in the variant's own recipe."
        for row in (summary.row for summary in summaries)
        if row.reset_fields
    ]
    first = summaries[0].runs[0]
    title = f"{first.result.dataset}, {first.setting}, after step {first.num_steps:,}"
    return Tables(
        files={
            "ablation.csv": _runs_csv(summaries).encode(),
            "ablation_summary.csv": _summary_csv(summaries, compared).encode(),
            "removal.csv": _removal_csv(summaries, removed).encode(),
            "ablation.md": to_markdown(sheets, remarks).encode(),
            "ablation.tex": to_latex(sheets, remarks).encode(),
            "ablation.png": draw_png(summaries, compared, title, margin=margin),
        },
        sheets=sheets,
        remarks=remarks,
    )


def _runs_csv(summaries: Sequence[Summary]) -> str:
    """One line per finished run."""
    return to_csv(
        [
            {"row": summary.row.name, "label": summary.row.label, **run_columns(run)}
            for summary in summaries
            for run in summary.runs
        ]
    )


def _summary_csv(summaries: Sequence[Summary], compared: Sequence[Comparison]) -> str:
    """One line per row with its comparison with the baseline, and one more for every other comparison (fractions)."""
    by_pair = {(comparison.row.name, comparison.other): comparison for comparison in compared}
    pairs = [(summary.row.name, BASELINE) for summary in summaries]
    pairs += [pair for pair in by_pair if pair not in pairs]
    by_name = {summary.row.name: summary for summary in summaries}
    lines = []
    for name, other in pairs:
        summary, comparison = by_name[name], by_pair.get((name, other))
        line: dict[str, Any] = {"row": name, "label": summary.row.label, **summary_columns(summary)}
        line["compared_with"] = other if comparison else ""
        lines.append(line | _tested(comparison))
    return to_csv(lines)


def _removal_csv(summaries: Sequence[Summary], removed: Sequence[Comparison]) -> str:
    """One line per row and part: means of the whole network and without the part, and the test (fractions)."""
    by_name = {summary.row.name: summary for summary in summaries}
    lines, header = [], list(_REMOVAL_HEADER)
    for metric in IN_TABLES:
        header += [f"{metric}_whole", f"{metric}_without", *(f"{metric}_{name}" for name in _TESTED)]
    for comparison in removed:
        runs = [run for run in by_name[comparison.row.name].runs if comparison.other in run.without]
        line: dict[str, Any] = {"row": comparison.row.name, "label": comparison.row.label, "part": comparison.other}
        line["num_runs"] = len(runs)
        for metric in IN_TABLES:
            line[f"{metric}_whole"] = estimate([run.result.mean[metric] for run in runs]).value
            line[f"{metric}_without"] = estimate([run.without[comparison.other].mean[metric] for run in runs]).value
        lines.append(line | _tested(comparison))
    return to_csv(lines, header)


def _tested(comparison: Comparison | None) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for metric in IN_TABLES:
        made = _plain(comparison.metrics[metric]) if comparison else dict.fromkeys(_TESTED, "")
        columns |= {f"{metric}_{name}": made[name] for name in _TESTED}
    return columns


def _plain(made: Verdict) -> dict[str, Any]:
    return dataclasses.asdict(made.test) | {"p_holm": made.p_holm, "verdict": made.words}


def _score_sheet(summaries: Sequence[Summary]) -> Sheet:
    return Sheet(
        name="ablation",
        caption=describe_scores(summaries),
        header=["Row", "Parameters", "n", *(METRIC_NAMES[metric] for metric in IN_TABLES)],
        body=[
            [
                summary.row.label,
                f"{summary.num_parameters / 1e6:.2f} M",
                str(len(summary.runs)),
                *(percent(summary.scores[metric]) for metric in IN_TABLES),
            ]
            for summary in summaries
        ],
    )


def _comparison_sheet(compared: Sequence[Comparison], margin: float) -> Sheet:
    return Sheet(
        name="ablation-comparisons",
        caption="Comparisons: first minus second, percentage points, with its 95 % confidence interval; n: seeds of "
        f"either, or of the first and of the second. p: Welch's t-test, {_describe_verdicts(margin)}",
        header=["First", "Second", "n", "Metric", "Difference", "95 % interval", "p (Holm)", "Verdict"],
        body=_lines(compared),
        num_names=2,
    )


def _removal_sheet(removed: Sequence[Comparison], margin: float) -> Sheet:
    return Sheet(
        name="ablation-removal",
        caption="Taken out at test time: the whole network minus the same trained network without the part, percentage "
        "points, mean over n seeds with its 95 % confidence interval; better: the whole network is. p: paired t-test, "
        f"{_describe_verdicts(margin)}",
        header=["Row", "Part taken out", "n", "Metric", "Difference", "95 % interval", "p (Holm)", "Verdict"],
        body=_lines(removed),
        num_names=2,
    )


def _describe_verdicts(margin: float) -> str:
    return (
        "two-sided, after Holm's correction over all comparisons of a metric in this table. Resolved: p < 0.05. No "
        f"effect larger than {margin}: not resolved, and the interval, which is not corrected, lies within ±{margin} "
        "points."
    )


def _lines(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Metric by metric, since that is what a correction is over."""
    lines = []
    for metric in IN_TABLES:
        for comparison in comparisons:
            made = comparison.metrics[metric]
            interval = f"{signed(made.test.low)} to {signed(made.test.high)}"
            few, many = sorted(comparison.num_runs)
            lines.append(
                [
                    comparison.row.label,
                    comparison.label,
                    str(few) if few == many else "{}, {}".format(*comparison.num_runs),
                    METRIC_NAMES[metric],
                    signed(made.test.difference),
                    "-" if math.isnan(made.test.low) else interval,
                    probability(made.p_holm),
                    made.words,
                ]
            )
    return lines

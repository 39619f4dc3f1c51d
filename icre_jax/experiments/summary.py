"""The arithmetic of the ablation: per row mean and spread over the seeds, and the difference to the baseline."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from icre_jax.experiments.rows import BASELINE, Row
from icre_jax.experiments.runs import RunScore

SHOWN = ("rank1", "mAP", "mINP")  # of the metrics of a result


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and how far it may be off: a standard deviation or a standard error; NaN where one run is too few."""

    value: float
    spread: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """One row over its seeds.

    Attributes:
      row: which.
      num_parameters: trained numbers of its network.
      seeds: of the runs summarised here.
      scores: metric of `SHOWN` -> mean over the seeds and sample standard deviation (divisor n - 1).
      differences: metric -> mean minus that of the baseline and its standard error; None for the baseline itself and
        without one.
    """

    row: Row
    num_parameters: int
    seeds: tuple[int, ...]
    scores: dict[str, Estimate]
    differences: dict[str, Estimate] | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and sample standard deviation of at least one value."""
    return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)


def difference(a: Estimate, num_a: int, b: Estimate, num_b: int) -> Estimate:
    """Mean a minus mean b with Welch's standard error, sqrt(s_a^2 / n_a + s_b^2 / n_b)."""
    return Estimate(a.value - b.value, math.sqrt(a.spread**2 / num_a + b.spread**2 / num_b))


def summarize(rows: Sequence[Row], scores: Sequence[RunScore]) -> list[Summary]:
    """The rows that have a finished run, in the order given.

    Args:
      rows: of the ablation.
      scores: of the finished runs.
    """
    by_row = {row.name: sorted((s for s in scores if s.row == row.name), key=lambda s: s.seed) for row in rows}
    estimates = {
        name: {metric: estimate([s.result.mean[metric] for s in runs]) for metric in SHOWN}
        for name, runs in by_row.items()
        if runs
    }
    base = estimates.get(BASELINE)
    return [
        Summary(
            row=row,
            num_parameters=by_row[row.name][0].num_parameters,
            seeds=tuple(score.seed for score in by_row[row.name]),
            scores=estimates[row.name],
            differences=None
            if base is None or row.name == BASELINE
            else {
                metric: difference(
                    estimates[row.name][metric], len(by_row[row.name]), base[metric], len(by_row[BASELINE])
                )
                for metric in SHOWN
            },
        )
        for row in rows
        if row.name in estimates
    ]


def caption(summaries: Sequence[Summary], scores: Sequence[RunScore]) -> str:
    """What the numbers are: data, setting, seeds, steps, which checkpoint. `scores` share all of it but the seed."""
    first = scores[0]
    seeds = sorted({seed for summary in summaries for seed in summary.seeds})
    complete = all(len(summary.seeds) == len(seeds) for summary in summaries)
    return (
        f"{first.result.dataset}, {first.setting}, {first.result.direction}; percent. Mean ± sample standard deviation "
        f"over seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        f"{'' if complete else ' as far as they are finished (n)'}, checkpoint 'last': after step "
        f"{first.num_steps:,}, not chosen by score. Difference: to the row Baseline, ± Welch's standard error."
    )


def remarks(summaries: Sequence[Summary]) -> list[str]:
    """Where a variant's own recipe gave way to that of the other rows."""
    return [
        f"{s.row.label}: {', '.join(s.row.reset_fields)} as in the other rows, not as in the variant's own recipe."
        for s in summaries
        if s.row.reset_fields
    ]

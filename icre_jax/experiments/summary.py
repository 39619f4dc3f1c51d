"""The arithmetic of a table of runs: per row mean and spread over the seeds."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from icre_jax.experiments.runs import Row, RunScore

SHOWN = ("rank1", "mAP", "mINP")  # of the metrics of a result
IN_TABLES = ("rank1", "mAP")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and the sample standard deviation (divisor n - 1) of what it is of; NaN where one run is too few."""

    value: float
    spread: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """One row over its seeds.

    Attributes:
      row: which.
      num_parameters: trained numbers of its network.
      runs: the runs summarised here, by seed.
      scores: metric of `SHOWN` -> mean and spread over the seeds.
    """

    row: Row
    num_parameters: int
    runs: tuple[RunScore, ...]
    scores: dict[str, Estimate]

    def values(self, metric: str) -> list[float]:
        """The scores of its runs, by seed."""
        return [run.result.mean[metric] for run in self.runs]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and sample standard deviation of at least one value."""
    return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)


def summarize(rows: Sequence[Row], scores: Sequence[RunScore]) -> list[Summary]:
    """The rows that have a finished run, in the order given.

    Args:
      rows: of the experiment.
      scores: of the finished runs.
    """
    summaries = []
    for row in rows:
        runs = tuple(sorted((score for score in scores if score.row == row.name), key=lambda score: score.seed))
        if runs:
            estimates = {metric: estimate([run.result.mean[metric] for run in runs]) for metric in SHOWN}
            summaries.append(Summary(row, runs[0].num_parameters, runs, estimates))
    return summaries


def describe_scores(summaries: Sequence[Summary]) -> str:
    """What the numbers are: data, setting, seeds, which checkpoint. The runs share all of it but seed and length."""
    first = summaries[0].runs[0]
    seeds = sorted({run.seed for summary in summaries for run in summary.runs})
    complete = all(len(summary.runs) == len(seeds) for summary in summaries)
    lengths = sorted({run.num_steps for summary in summaries for run in summary.runs})
    after = f"step {lengths[0]:,}" if len(lengths) == 1 else f"the last step ({lengths[0]:,} to {lengths[-1]:,})"
    return (
        f"{first.result.dataset}, {first.setting}, {first.result.direction}; percent. Mean ± sample standard deviation "
        f"over {len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
        f"{'' if complete else ' as far as they are finished (n)'}, checkpoint 'last': after {after}, not chosen by "
        "score."
    )

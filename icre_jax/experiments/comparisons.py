"""What an ablation compares: rows with the baseline and with each other, networks with themselves without a part."""

import dataclasses
from collections.abc import Callable, Sequence

from icre_jax.experiments.evidence import Outcome, holm, paired, verdict, welch
from icre_jax.experiments.removal import PARTS
from icre_jax.experiments.rows import BASELINE, FULL, ICG
from icre_jax.experiments.runs import Row
from icre_jax.experiments.summary import IN_TABLES, Summary


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One metric of a comparison.

    Attributes:
      test: first minus second, in fractions.
      p_holm: p after Holm's correction over all comparisons of this metric in the table.
      words: what it shows.
    """

    test: Outcome
    p_holm: float
    words: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A row beside another one, or beside itself without a part.

    Attributes:
      row: the first of the two.
      other: name of the other row, or of the part.
      label: for people: the other row, or the part.
      num_runs: of either side, or pairs.
      metrics: metric of `IN_TABLES` -> difference, test and verdict.
    """

    row: Row
    other: str
    label: str
    num_runs: tuple[int, int]
    metrics: dict[str, Verdict]


# Scores of both sides for a metric.
_Values = Callable[[str], tuple[Sequence[float], Sequence[float]]]


def compare_rows(summaries: Sequence[Summary], margin: float) -> list[Comparison]:
    """Every row with the baseline, and full ICRE with the baseline that has the ICG loss; as far as there are runs.

    Args:
      summaries: the rows.
      margin: percentage points, for `evidence.verdict`.
    """
    by_name = {summary.row.name: summary for summary in summaries}
    pairs = [(name, BASELINE) for name in by_name if name != BASELINE] + [(FULL, ICG)]
    return _judge(
        [
            (by_name[name], other, by_name[other].row.label, _of_rows(by_name[name], by_name[other]))
            for name, other in pairs
            if name in by_name and other in by_name
        ],
        welch,
        margin,
    )


def compare_parts(summaries: Sequence[Summary], margin: float) -> list[Comparison]:
    """Every network with itself without a part, for every row and part that was scored so; arguments as above."""
    return _judge(
        [
            (summary, part, label, _of_part(summary, part))
            for summary in summaries
            for part, label in PARTS.items()
            if any(part in run.without for run in summary.runs)
        ],
        paired,
        margin,
    )


def _of_rows(first: Summary, second: Summary) -> _Values:
    return lambda metric: (first.values(metric), second.values(metric))


def _of_part(summary: Summary, part: str) -> _Values:
    runs = [run for run in summary.runs if part in run.without]
    return lambda metric: (
        [run.result.mean[metric] for run in runs],
        [run.without[part].mean[metric] for run in runs],
    )


def _judge(
    pairs: Sequence[tuple[Summary, str, str, _Values]],
    test: Callable[[Sequence[float], Sequence[float]], Outcome],
    margin: float,
) -> list[Comparison]:
    """Outcome all pairs, and correct over all of them for each metric."""
    numbers = [tuple(map(len, values(IN_TABLES[0]))) for _, _, _, values in pairs]
    columns = {}
    for metric in IN_TABLES:
        tests = [test(*values(metric)) for _, _, _, values in pairs]
        corrected = holm([made.p for made in tests])
        columns[metric] = [
            Verdict(made, p, verdict(made, p, num_runs=min(number), margin=margin))
            for made, p, number in zip(tests, corrected, numbers, strict=True)
        ]
    return [
        Comparison(summary.row, other, label, (number[0], number[1]), {m: columns[m][i] for m in IN_TABLES})
        for i, ((summary, other, label, _), number) in enumerate(zip(pairs, numbers, strict=True))
    ]

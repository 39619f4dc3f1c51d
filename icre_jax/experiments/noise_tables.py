"""What the noise of a config is: both groups of runs, what differences they leave to be seen, and how they compare."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from icre_jax.evals.results import METRIC_NAMES
from icre_jax.experiments.conditions import require_one_condition
from icre_jax.experiments.evidence import SIGNIFICANCE
from icre_jax.experiments.noise_plot import draw_png
from icre_jax.experiments.runs import RunScore
from icre_jax.experiments.spread import Ratio, compare, deviation, smallest_difference
from icre_jax.experiments.summary import IN_TABLES
from icre_jax.experiments.table import (
    Sheet,
    Tables,
    probability,
    run_columns,
    to_csv,
    to_latex,
    to_markdown,
)

NUM_SEEDS = (3, 8, 16)  # per row, for which the smallest difference is said
SEEDS, PERTURBATIONS = "seeds", "perturbations"


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in one thing alone.

    Attributes:
      name: `SEEDS` or `PERTURBATIONS`.
      runs: finished ones; the run of seed 0 without a perturbation is in both groups, and the first of each.
    """

    name: str
    runs: tuple[RunScore, ...]

    def values(self, metric: str) -> list[float]:
        """The scores of its runs, in fractions."""
        return [run.result.mean[metric] for run in self.runs]


def make_tables(numbers: Mapping[str, int], scores: Sequence[RunScore]) -> Tables:
    """Everything that the command leaves beside its work folders.

    Args:
      numbers: name of a row -> its perturbation.
      scores: of the finished runs, at least one.

    Raises:
      InputError: runs that were scored under different conditions.
    """
    require_one_condition(scores, same_length=True)
    groups = _group(numbers, scores)
    sheets = [_spread_sheet(groups)]
    sheets += [_difference_sheet(group) for group in groups if group.name == SEEDS and len(group.runs) > 1]
    if len(groups) > 1:
        sheets.append(_ratio_sheet(*groups))
    first = groups[0].runs[0]
    title = f"{first.result.dataset}, {first.setting}, after step {first.num_steps:,}"
    drawn = {f"{group.name} (n = {len(group.runs)})": {m: group.values(m) for m in IN_TABLES} for group in groups}
    return Tables(
        files={
            "noise.csv": _runs_csv(numbers, scores).encode(),
            "noise_summary.csv": _summary_csv(groups).encode(),
            "noise.md": to_markdown(sheets).encode(),
            "noise.tex": to_latex(sheets).encode(),
            "noise.png": draw_png(drawn, title),
        },
        sheets=sheets,
    )


def _group(numbers: Mapping[str, int], scores: Sequence[RunScore]) -> list[Group]:
    """Both groups, as far as they have runs; seeds and perturbations ascending."""
    ordered = sorted(scores, key=lambda score: (numbers[score.row], score.seed))
    seeds = tuple(score for score in ordered if numbers[score.row] == 0)
    perturbed = tuple(score for score in ordered if score.seed == 0)
    return [Group(name, runs) for name, runs in ((SEEDS, seeds), (PERTURBATIONS, perturbed)) if runs]


def compare_groups(seeds: Group, perturbed: Group, metric: str) -> Ratio:
    """Standard deviation over the perturbations divided by that over the seeds.

    The run of seed 0, which is in both groups, counts as perturbed alone, or the two would depend on each other.
    """
    apart = [run.result.mean[metric] for run in seeds.runs if run.seed != 0]
    return compare(perturbed.values(metric), apart)


def judge(ratio: Ratio) -> str:
    """What the F test shows, in words."""
    if math.isnan(ratio.p):
        return "nothing can be said"
    if ratio.p >= SIGNIFICANCE:
        return "not resolved"
    return f"resolved: perturbations scatter {'more' if ratio.value > 1 else 'less'}"


def _runs_csv(numbers: Mapping[str, int], scores: Sequence[RunScore]) -> str:
    """One line per finished run."""
    lines = []
    for score in sorted(scores, key=lambda score: (numbers[score.row], score.seed)):
        number = numbers[score.row]
        group = PERTURBATIONS if number else SEEDS if score.seed else "both"
        lines.append({"group": group, "perturbation": number, **run_columns(score)})
    return to_csv(lines)


def _summary_csv(groups: Sequence[Group]) -> str:
    """One line per group and metric, in fractions; what compares the groups stands in the line of the perturbations."""
    lines = []
    for group in groups:
        for metric in IN_TABLES:
            values = group.values(metric)
            made = deviation(values)
            line: dict[str, Any] = {"group": group.name, "metric": metric, "num_runs": len(values)}
            line |= {"mean": sum(values) / len(values), "std": made.value, "std_low": made.low, "std_high": made.high}
            resolved = {k: smallest_difference(k) * made.value if group.name == SEEDS else math.nan for k in NUM_SEEDS}
            line |= {f"resolved_by_{k}": difference for k, difference in resolved.items()}
            both = len(groups) > 1 and group.name == PERTURBATIONS
            ratio = compare_groups(groups[0], group, metric) if both else Ratio(*4 * [math.nan])
            line |= {f"ratio_{name}": value for name, value in dataclasses.asdict(ratio).items()}
            lines.append(line | {"verdict": judge(ratio) if both else ""})
    return to_csv(lines)


def _spread_sheet(groups: Sequence[Group]) -> Sheet:
    first = groups[0].runs[0]
    body = []
    for group in groups:
        for metric in IN_TABLES:
            values = group.values(metric)
            made = deviation(values)
            mean = f"{100 * sum(values) / len(values):.2f}"
            spread = [_points(made.value), _interval(made.low, made.high)]
            body.append([group.name, METRIC_NAMES[metric], str(len(values)), mean, *spread])
    return Sheet(
        name="noise",
        caption=f"{first.result.dataset}, {first.setting}, {first.result.direction}; percent, checkpoint 'last': after "
        f"step {first.num_steps:,}, not chosen by score. Seeds: runs that differ in the seed alone. Perturbations: "
        "runs of seed 0 whose first weights differ by a relative 1e-6, and the run of seed 0 itself, which is in both "
        "groups. Sample standard deviation over the n runs, with its 95 % confidence interval (chi-square).",
        header=["Runs differ in", "Metric", "n", "Mean", "Standard deviation", "95 % interval"],
        body=body,
        num_names=2,
    )


def _difference_sheet(seeds: Group) -> Sheet:
    body = []
    for k in NUM_SEEDS:
        factor, cells = smallest_difference(k), list[str]()
        for metric in IN_TABLES:
            made = deviation(seeds.values(metric))
            cells += [_points(factor * made.value), _interval(factor * made.low, factor * made.high)]
        body.append([str(k), f"{factor:.2f}", *cells])
    columns = [column for metric in IN_TABLES for column in (METRIC_NAMES[metric], "95 % interval")]
    return Sheet(
        name="noise-differences",
        caption="The smallest true difference between two rows that Welch's t-test resolves (two-sided at 5 %, a "
        "single comparison) with a power of 80 %, if both scatter like the seeds here: in standard deviations, and in "
        "percentage points with the 95 % interval that follows from that of the standard deviation.",
        header=["Seeds per row", "Standard deviations", *columns],
        body=body,
        num_names=0,
    )


def _ratio_sheet(seeds: Group, perturbed: Group) -> Sheet:
    body = []
    for metric in IN_TABLES:
        ratio = compare_groups(seeds, perturbed, metric)
        cells = ["-", "-"]
        if not math.isnan(ratio.value):
            cells = [f"{ratio.value:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}"]
        body.append([METRIC_NAMES[metric], *cells, probability(ratio.p), judge(ratio)])
    return Sheet(
        name="noise-ratio",
        caption="Standard deviation over the perturbations divided by that over the seeds, its 95 % confidence "
        "interval and p of the two-sided F test. The run of both groups counts as perturbed alone, so that the two are "
        "independent.",
        header=["Metric", "Ratio", "95 % interval", "p", "Verdict"],
        body=body,
    )


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{100 * low:.2f} to {100 * high:.2f}"

"""The tables of the ablation: per row mean and spread over the seeds, and the difference to the baseline.

Fractions in the csv files, percent for people.
"""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from icre_jax.ablation.rows import BASELINE, Row
from icre_jax.ablation.runs import RunScore
from icre_jax.evals.results import METRICS

SHOWN = {"rank1": "Rank-1", "mAP": "mAP", "mINP": "mINP"}
MINUS = "\N{MINUS SIGN}"
_IN_TABLES = ("rank1", "mAP")


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


def summarize(rows: Sequence[Row], scores: Sequence[RunScore], num_parameters: Mapping[str, int]) -> list[Summary]:
    """The rows that have a finished run, in the order given.

    Args:
      rows: of the ablation.
      scores: of the finished runs.
      num_parameters: row -> size of its network.
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
            num_parameters=num_parameters[row.name],
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
        f"{s.row.label}: {', '.join(s.row.leveled)} as in the other rows, not as in the variant's own recipe."
        for s in summaries
        if s.row.leveled
    ]


def to_runs_csv(rows: Sequence[Row], scores: Sequence[RunScore], num_parameters: Mapping[str, int]) -> str:
    """One line per finished run: which, its scores (fractions), its cost, and what it was scored on."""
    labels = {row.name: row.label for row in rows}
    order = list(labels)
    lines = [
        {
            "row": s.row,
            "label": labels[s.row],
            "seed": s.seed,
            **{metric: s.result.mean[metric] for metric in METRICS},
            "num_parameters": num_parameters[s.row],
            "num_steps": s.num_steps,
            "training_seconds": round(s.seconds, 3),
            "dataset": s.result.dataset,
            "setting": s.setting,
            "direction": s.result.direction,
            "chance": s.result.chance,
            "checkpoint": "last",
            "data_fingerprint": s.data_fingerprint,
        }
        for s in sorted(scores, key=lambda s: (order.index(s.row), s.seed))
    ]
    return _to_csv(lines)


def to_summary_csv(summaries: Sequence[Summary]) -> str:
    """One line per row: size, number of runs, and mean, std, difference and its error of each metric (fractions)."""
    lines = []
    for s in summaries:
        line: dict[str, Any] = {"row": s.row.name, "label": s.row.label}
        line |= {"num_parameters": s.num_parameters, "num_runs": len(s.seeds)}
        for metric in SHOWN:
            change = s.differences[metric] if s.differences else Estimate(math.nan, math.nan)
            line |= {
                f"{metric}_mean": s.scores[metric].value,
                f"{metric}_std": s.scores[metric].spread,
                f"{metric}_difference": change.value,
                f"{metric}_difference_error": change.spread,
            }
        lines.append(line)
    return _to_csv(lines)


def to_table(summaries: Sequence[Summary], title: str) -> Table:
    """For the terminal."""
    header, *body = _cells(summaries)
    view = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    for i, name in enumerate(header):
        view.add_column(name, justify="right" if i else "left", overflow="fold")
    for line in body:
        view.add_row(*map(Text, line))
    return view


def to_markdown(summaries: Sequence[Summary], title: str) -> str:
    """The table with its caption, for docs."""
    header, *body = ([cell.replace("|", "\\|") for cell in line] for line in _cells(summaries))
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([title, table, *remarks(summaries)]) + "\n"


def to_latex(summaries: Sequence[Summary], title: str) -> str:
    """A table environment for a paper; needs the package booktabs."""
    header, *body = ([escape_latex(cell) for cell in line] for line in _cells(summaries))
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(' '.join([title, *remarks(summaries)]))}}}",
        r"  \label{tab:ablation}",
        rf"  \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"    \toprule",
        rf"    {' & '.join(header)} \\",
        r"    \midrule",
        *(rf"    {' & '.join(line)} \\" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        MINUS: "$-$",
        "→": r"$\rightarrow$",
    }
)


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it; an arrow of two characters becomes one."""
    return text.replace("->", "→").translate(_LATEX)


def percent(number: Estimate, *, signed: bool = False) -> str:
    """Such as "9.12 ± 0.45", or "+2.10 ± 0.80"; without the spread where it is unknown."""
    value = f"{100 * number.value:{'+' if signed else ''}.2f}".replace("-", MINUS)
    return value if math.isnan(number.spread) else f"{value} ± {100 * number.spread:.2f}"


def _cells(summaries: Sequence[Summary]) -> list[list[str]]:
    """The header and one line per row, as people read them."""
    header = ["Row", "Parameters", "n"]
    for metric in _IN_TABLES:
        header += [SHOWN[metric], "Difference"]
    lines = [header]
    for s in summaries:
        line = [s.row.label, f"{s.num_parameters / 1e6:.2f} M", str(len(s.seeds))]
        for metric in _IN_TABLES:
            line += [percent(s.scores[metric]), percent(s.differences[metric], signed=True) if s.differences else "-"]
        lines.append(line)
    return lines


def _to_csv(lines: Sequence[dict[str, Any]]) -> str:
    """The keys of the first line are the header; what is not a number is left empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow(
            {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in line.items()}
        )
    return stream.getvalue()

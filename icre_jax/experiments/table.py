"""Tables of an experiment: csv in fractions for programs; terminal, Markdown and LaTeX in percent for people."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from icre_jax.evals.latex import escape_latex
from icre_jax.evals.results import METRICS
from icre_jax.experiments.runs import RunScore
from icre_jax.experiments.summary import SHOWN, Estimate, Summary

MINUS = "\N{MINUS SIGN}"


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table for people.

    Attributes:
      name: for references in LaTeX.
      caption: what the numbers are.
      header: of the columns.
      body: the lines, as many cells each as the header has.
      num_names: how many columns hold names, which stand on the left; numbers stand on the right.
    """

    name: str
    caption: str
    header: Sequence[str]
    body: Sequence[Sequence[str]]
    num_names: int = 1

    def is_name(self, column: int) -> bool:
        """Whether a column holds names, or words such as a verdict."""
        return column < self.num_names or self.header[column] == "Verdict"


@dataclasses.dataclass(frozen=True)
class Tables:
    """What an experiment says so far.

    Attributes:
      files: name -> content.
      sheets: for the screen.
      remarks: lines below them.
    """

    files: Mapping[str, bytes]
    sheets: Sequence[Sheet]
    remarks: Sequence[str] = ()


def to_terminal(sheet: Sheet) -> Group:
    """For the terminal: the caption, as wide as that is, and the table."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    for i, name in enumerate(sheet.header):
        view.add_column(name, justify="left" if sheet.is_name(i) else "right", overflow="fold")
    for line in sheet.body:
        view.add_row(*map(Text, line))
    return Group(Text(sheet.caption), view)


def to_markdown(sheets: Sequence[Sheet], remarks: Sequence[str] = ()) -> str:
    """The tables with their captions, for docs, and remarks below them."""
    parts = []
    for sheet in sheets:
        header, *body = ([cell.replace("|", "\\|") for cell in line] for line in (sheet.header, *sheet.body))
        rule = ["---" if sheet.is_name(i) else "---:" for i in range(len(header))]
        parts += [sheet.caption, "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *body))]
    return "\n\n".join([*parts, *remarks]) + "\n"


def to_latex(sheets: Sequence[Sheet], remarks: Sequence[str] = ()) -> str:
    """A table environment for each, for a paper; needs the package booktabs. Remarks join the caption of the first."""
    lines = [r"% \usepackage{booktabs}"]
    for i, sheet in enumerate(sheets):
        header, *body = ([escape_latex(cell) for cell in line] for line in (sheet.header, *sheet.body))
        caption = " ".join([sheet.caption, *remarks]) if i == 0 else sheet.caption
        columns = "".join("l" if sheet.is_name(i) else "r" for i in range(len(header)))
        lines += [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(caption)}}}",
            rf"  \label{{tab:{sheet.name}}}",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            rf"    {' & '.join(header)} \\",
            r"    \midrule",
            *(rf"    {' & '.join(line)} \\" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def to_csv(lines: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> str:
    """The keys of the first line, or `header` where there may be no line; what is not a number is left empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(header or lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow(
            {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in line.items()}
        )
    return stream.getvalue()


def run_columns(run: RunScore) -> dict[str, Any]:
    """What a csv says of a finished run beside its row: its scores (fractions), its cost, what it was scored on."""
    return {
        "seed": run.seed,
        **{metric: run.result.mean[metric] for metric in METRICS},
        "num_parameters": run.num_parameters,
        "num_steps": run.num_steps,
        "training_seconds": round(run.seconds, 3),
        "dataset": run.result.dataset,
        "setting": run.setting,
        "direction": run.result.direction,
        "chance": run.result.chance,
        "checkpoint": "last",
        "data_fingerprint": run.data_fingerprint,
    }


def summary_columns(summary: Summary) -> dict[str, Any]:
    """What a csv says of a row over its seeds: size, number of runs, mean and standard deviation (fractions)."""
    columns: dict[str, Any] = {"num_parameters": summary.num_parameters, "num_runs": len(summary.runs)}
    for metric in SHOWN:
        columns |= {f"{metric}_mean": summary.scores[metric].value, f"{metric}_std": summary.scores[metric].spread}
    return columns


def percent(number: Estimate) -> str:
    """Such as "9.12 ± 0.45"; without the spread where it is unknown."""
    value = f"{100 * number.value:.2f}"
    return value if math.isnan(number.spread) else f"{value} ± {100 * number.spread:.2f}"


def signed(value: float) -> str:
    """A difference in percentage points, such as "+2.10"; "-" for what is not known."""
    if math.isnan(value):
        return "-"
    return f"{round(100 * value, 2) + 0.0:+.2f}".replace("-", MINUS)  # + 0.0: no negative zero


def probability(p: float) -> str:
    """Such as "0.031" or "<0.001"; "-" for what is not known."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"

"""The tables of the ablation: csv in fractions for programs; terminal, Markdown and LaTeX in percent for people."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from icre_jax.evals.latex import escape_latex
from icre_jax.evals.results import METRIC_NAMES, METRICS
from icre_jax.experiments.rows import Row
from icre_jax.experiments.runs import RunScore
from icre_jax.experiments.summary import SHOWN, Estimate, Summary, remarks

MINUS = "\N{MINUS SIGN}"
_IN_TABLES = ("rank1", "mAP")


def to_runs_csv(rows: Sequence[Row], scores: Sequence[RunScore]) -> str:
    """One line per finished run: which, its scores (fractions), its cost, and what it was scored on."""
    labels = {row.name: row.label for row in rows}
    order = list(labels)
    lines = [
        {
            "row": s.row,
            "label": labels[s.row],
            "seed": s.seed,
            **{metric: s.result.mean[metric] for metric in METRICS},
            "num_parameters": s.num_parameters,
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


def percent(number: Estimate, *, signed: bool = False) -> str:
    """Such as "9.12 ± 0.45", or "+2.10 ± 0.80"; without the spread where it is unknown."""
    value = f"{100 * number.value:{'+' if signed else ''}.2f}".replace("-", MINUS)
    return value if math.isnan(number.spread) else f"{value} ± {100 * number.spread:.2f}"


def _cells(summaries: Sequence[Summary]) -> list[list[str]]:
    """The header and one line per row, as people read them."""
    header = ["Row", "Parameters", "n"]
    for metric in _IN_TABLES:
        header += [METRIC_NAMES[metric], "Difference"]
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

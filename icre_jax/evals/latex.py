"""Results for a paper: results.tex, a booktabs table whose caption says under which conditions it was measured."""

import os
from collections.abc import Sequence
from pathlib import Path

from icre_jax.errors import InputError
from icre_jax.evals.results import METRIC_NAMES, METRICS, ProtocolResult
from icre_jax.evals.tables import split_conditions
from icre_jax.files import write_file

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: "\\" + character for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "\N{MINUS SIGN}": "$-$",
        "→": r"$\to$",
    }
)


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it; an arrow of two characters becomes one."""
    return text.replace("->", "→").translate(_SPECIAL)


def to_latex(results: Sequence[ProtocolResult]) -> str:
    """A floating table in percent, mean and standard deviation over the trials, one row per result.

    What all results share stands in the caption: data and protocol, direction, gallery source, trials, feature, flip,
    re-ranking. What goes with a setting follows there; what is left gets a column.

    Args:
      results: at least one.

    Raises:
      ValueError: no result.
    """
    if not results:
        raise ValueError("There is no result to show.")
    conditions = split_conditions(results)
    caption = [conditions.shared, *(f"{setting}: {words}" for setting, words in conditions.of_setting.items())]
    spread = "mean $\\pm$ standard deviation over the trials" if any(r.num_trials > 1 for r in results) else "one trial"
    heads = (["Conditions"] if any(conditions.own) else []) + ["Setting"]
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{'. '.join(escape_latex(part) for part in caption if part)}. In percent, {spread}.}}",
        f"\\begin{{tabular}}{{{'l' * len(heads)}{'r' * len(METRICS)}}}",
        "\\toprule",
        _row([*heads, *METRIC_NAMES.values()]),
        "\\midrule",
    ]
    for result, own in zip(results, conditions.own, strict=True):
        lead = [escape_latex(own)] if any(conditions.own) else []
        lines.append(_row([*lead, escape_latex(result.setting), *(_cell(result, metric) for metric in METRICS)]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def write_latex(folder: str | os.PathLike[str], results: Sequence[ProtocolResult]) -> None:
    """Write `to_latex` to results.tex in `folder`, whole or not at all.

    Raises:
      InputError: the folder cannot be written.
    """
    text = to_latex(results)
    try:
        write_file(Path(folder) / "results.tex", text)
    except OSError as error:
        raise InputError(
            f"The results cannot be written to {folder}: {error}. Give a folder you may write to."
        ) from error


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _cell(result: ProtocolResult, metric: str) -> str:
    mean = f"{100 * result.mean[metric]:.2f}"
    return f"${mean} \\pm {100 * result.std[metric]:.2f}$" if result.num_trials > 1 else mean

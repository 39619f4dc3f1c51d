"""What an ablation leaves beside its work folders."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from icre_jax.errors import InputError
from icre_jax.experiments.plot import draw_png
from icre_jax.experiments.rows import Row
from icre_jax.experiments.runs import RunScore
from icre_jax.experiments.summary import Summary, caption, summarize
from icre_jax.experiments.table import to_latex, to_markdown, to_runs_csv, to_summary_csv
from icre_jax.files import write_file

_MEASURED = ("mean", "std", "cmc")  # fields of a result that a run decides; all others are conditions


def write_files(out: Path, rows: Sequence[Row], scores: Sequence[RunScore]) -> list[Summary]:
    """Write ablation.csv, ablation_summary.csv, ablation.md, ablation.tex and ablation.png, each whole or not at all.

    Args:
      out: an existing folder; files of an earlier state are replaced.
      rows: of the ablation.
      scores: of the finished runs, at least one.

    Returns:
      The rows as they stand in the tables.

    Raises:
      InputError: runs that were scored under different conditions, or a folder that cannot be written.
    """
    _require_one_condition(scores)
    summaries = summarize(rows, scores)
    title = caption(summaries, scores)
    first = scores[0]
    files = {
        "ablation.csv": to_runs_csv(rows, scores).encode(),
        "ablation_summary.csv": to_summary_csv(summaries).encode(),
        "ablation.md": to_markdown(summaries, title).encode(),
        "ablation.tex": to_latex(summaries, title).encode(),
        "ablation.png": draw_png(
            summaries, scores, f"{first.result.dataset}, {first.setting}, after step {first.num_steps:,}"
        ),
    }
    try:
        for name, content in files.items():
            write_file(out / name, content)
    except OSError as error:
        raise InputError(
            f"The tables cannot be written to {out}: {error}. Free space, or choose another --out."
        ) from error
    return summaries


def _require_one_condition(scores: Sequence[RunScore]) -> None:
    first = scores[0]
    for score in scores[1:]:
        ours, theirs = _conditions(score), _conditions(first)
        changed = [f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]
        if changed:
            raise InputError(
                f"Row {score.row}, seed {score.seed} was scored on {'; '.join(changed)} as row {first.row}, seed "
                f"{first.seed}. Score both alike: python -m icre_jax.evaluate --workdir, or train in another --out."
            )


def _conditions(score: RunScore) -> dict[str, object]:
    fields = dataclasses.asdict(score.result) | {
        "data_fingerprint": score.data_fingerprint,
        "num_steps": score.num_steps,
    }
    return {name: value for name, value in fields.items() if name not in _MEASURED}

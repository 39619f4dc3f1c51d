"""Arguments in, one HTML file out."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from icre_jax.errors import InputError
from icre_jax.evals.results import METRIC_NAMES
from icre_jax.files import write_file
from icre_jax.report import plots, scores
from icre_jax.report.numbers import significant
from icre_jax.report.rank_lists import show_rank_lists
from icre_jax.report.records import Evaluation, RankedQuery
from icre_jax.report.tree import describe
from icre_jax.settings.fields import Settings


def write_report(
    path: Path,
    *,
    settings: Settings,
    steps: list[dict[str, Any]],
    timings: list[dict[str, Any]],
    evaluations: list[Evaluation],
    score_curve: list[dict[str, Any]],
    provenance: dict[str, Any],
    rank_lists: list[RankedQuery],
) -> None:
    """Write the report of a run: one HTML file that needs nothing else, whole or not at all.

    The same arguments give the same bytes. What is empty or not finite is said to be so.

    Args:
      path: the file to write; its folder is created.
      settings: the run's.
      steps: per logged step {"step", "epoch", "loss", "loss/<part>", "learning_rate/<group>", any other number}.
      timings: {"step", "images_per_second", "data_wait" (fraction of the time), "peak_memory_bytes"}.
      evaluations: the states "untrained", "last" and "best", as far as they were scored, in the order to show.
      score_curve: per evaluation during training {"step", "epoch", "<setting>/<metric>": fraction}.
      provenance: nested plain data, shown whatever its keys are. Two keys have a place of their own: "data" (the
        section on data) and "wall_clock_seconds" (the tile with the training time).
      rank_lists: queries with their best matches; about ten lists of ten keep the file near 1 MB.

    Raises:
      InputError: the file cannot be written.
      ValueError: an image that is not [H, W, 3] uint8.
    """
    text = render_report(
        settings=settings,
        steps=steps,
        timings=timings,
        evaluations=evaluations,
        score_curve=score_curve,
        provenance=provenance,
        rank_lists=rank_lists,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text)
    except OSError as error:
        raise InputError(f"The report cannot be written to {path}: {error}. Give a path you may write to.") from error


def render_report(
    *,
    settings: Settings,
    steps: Sequence[Mapping[str, Any]],
    timings: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Evaluation],
    score_curve: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    rank_lists: Sequence[RankedQuery],
) -> str:
    """The page `write_report` writes."""
    # No user's text gets into the page unescaped; a name missing here is an error, not an empty space.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files(__package__) / "template.html").read_text(encoding="utf-8"))
    return template.render(
        settings=settings,
        progress=_progress(steps),
        tiles=scores.make_tiles(evaluations, timings, provenance.get("wall_clock_seconds")),
        conditions=scores.shared_conditions(evaluations),
        score_groups=scores.group_scores(evaluations),
        score_header=[*METRIC_NAMES.values(), "Chance, Rank-1"],
        best_note=scores.best_note(evaluations, settings.checkpoint.best_metric),
        cmc_plots=plots.plot_cmc(evaluations),
        cmc_table=scores.cmc_table(evaluations),
        score_plots=plots.plot_scores(score_curve, evaluations),
        score_curve_table=scores.score_curve_table(score_curve),
        loss_plots=plots.plot_losses(steps),
        rate_plots=plots.plot_learning_rates(steps),
        other_plots=plots.plot_others(steps),
        step_table=scores.curve_summary(steps),
        rank_lists=show_rank_lists(list(rank_lists)),
        speed_plots=plots.plot_speed(timings),
        timing_table=scores.curve_summary(timings),
        data_provenance=describe(provenance["data"]) if provenance.get("data") else None,
        provenance=describe({key: value for key, value in provenance.items() if key != "data"}),
        has_provenance=any(key != "data" for key in provenance),
        config=describe(settings.model_dump(mode="json")),
    )


def _progress(steps: Sequence[Mapping[str, Any]]) -> str:
    """How far the log goes."""
    epochs, numbers = plots.series(steps, "epoch"), plots.series(steps, "step")
    if not (np.isfinite(epochs).any() and np.isfinite(numbers).any()):
        return "no step was logged"
    return f"logged until epoch {significant(float(np.nanmax(epochs)))}, step {significant(float(np.nanmax(numbers)))}"

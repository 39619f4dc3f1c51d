"""Arguments in, one HTML file out."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import METRIC_NAMES
from icre_jax.files import write_file
from icre_jax.report import embeddings, plots, scores
from icre_jax.report.numbers import significant
from icre_jax.report.rank_lists import count_images, show_hardest, show_pairs, show_rank_lists
from icre_jax.report.records import Evaluation, ExplainedPair, RankedQuery
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
    learning_rates: Mapping[str, np.ndarray],
    steps_per_epoch: int,
    provenance: dict[str, Any],
    sides: Mapping[Any, Embedded] | None,
    explained: list[ExplainedPair] | str,
    rank_lists: list[RankedQuery],
    hardest: list[RankedQuery],
    open_set: dict[str, Any] | str,
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
      learning_rates: parameter group -> [num_steps], the schedule.
      steps_per_epoch: of the run.
      provenance: nested plain data, shown whatever its keys are. Two keys have a place of their own: "data" (the
        section on data) and "wall_clock_seconds" (the tile with the training time).
      sides: "visible" and "infrared" -> all test images, embedded by the last network; None for no plots of them.
      explained: pairs with their heat maps, or in words why there are none.
      rank_lists: queries with their best matches; about ten lists of ten keep the file near 1 MB.
      hardest: queries with their best right and their best wrong match.
      open_set: the content of open_set.json, or in words why there is none.

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
        learning_rates=learning_rates,
        steps_per_epoch=steps_per_epoch,
        provenance=provenance,
        sides=sides,
        explained=explained,
        rank_lists=rank_lists,
        hardest=hardest,
        open_set=open_set,
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
    learning_rates: Mapping[str, np.ndarray],
    steps_per_epoch: int,
    provenance: Mapping[str, Any],
    sides: Mapping[Any, Embedded] | None,
    explained: Sequence[ExplainedPair] | str,
    rank_lists: Sequence[RankedQuery],
    hardest: Sequence[RankedQuery],
    open_set: Mapping[str, Any] | str,
) -> str:
    """The page `write_report` writes."""
    best_note = scores.best_note(evaluations, settings.checkpoint.best_metric)
    evaluations = scores.join_best(evaluations)
    curve = {} if isinstance(open_set, str) else open_set
    measured = bool(curve)
    num_images = count_images([*rank_lists, *hardest]) + (0 if isinstance(explained, str) else 4 * len(explained))
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
        best_note=best_note,
        cmc_plots=plots.plot_cmc(evaluations),
        cmc_table=scores.cmc_table(evaluations),
        score_plots=plots.plot_scores(score_curve, evaluations),
        score_curve_table=scores.score_curve_table(score_curve),
        loss_plots=plots.plot_losses(steps),
        rate_plots=plots.plot_learning_rates(learning_rates, steps_per_epoch),
        other_plots=plots.plot_others(steps),
        step_table=scores.curve_summary(steps),
        distance_plots=embeddings.plot_distances(sides),
        feature_plots=embeddings.plot_features(sides),
        explained=explained if isinstance(explained, str) else show_pairs(explained, num_images),
        rank_lists=show_rank_lists(rank_lists, num_images),
        hardest=show_hardest(hardest, num_images),
        open_set_plots=embeddings.plot_open_set(curve) if measured else open_set or [],
        open_set_table=embeddings.open_set_table(curve) if measured else scores.Table([], []),
        open_set_people=embeddings.describe_open_set(curve) if measured else [],
        confidence=round(100 * curve["confidence"]) if measured else 0,
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

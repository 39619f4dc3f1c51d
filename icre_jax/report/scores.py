"""The tiles and tables of a report: scores beside each other, and the numbers behind the plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icre_jax.evals.results import CMC_LENGTH, METRIC_NAMES, METRICS, ProtocolResult
from icre_jax.evals.tables import split_conditions
from icre_jax.report.numbers import duration, factor, memory, percent, significant
from icre_jax.report.plots import keys, series
from icre_jax.report.records import Evaluation


@dataclass(frozen=True)
class Tile:
    """A headline number: what it is, the number as (digits, unit) parts, and lines that put it into proportion."""

    title: str
    parts: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Table:
    """Plain text cells; per row a name and its cells."""

    header: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class ScoreRow:
    """One result of one state of the network.

    Attributes:
      label, when: which state, and its epoch and step.
      conditions: "" where the whole table shares them.
      cells: per metric and for chance: the mean, and the standard deviation ("" for none), in percent.
    """

    label: str
    when: str
    conditions: str
    cells: list[tuple[str, str]]


@dataclass(frozen=True)
class ScoreGroup:
    """The same setting at different times."""

    name: str
    queries: str
    rows: list[ScoreRow]


def headline(evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ProtocolResult] | None:
    """The result to put first: of "last", otherwise of the latest given; its first that is not re-ranked."""
    scored = [item for item in evaluations if item.results]
    if not scored:
        return None
    chosen = next((item for item in scored if item.label.startswith("last")), scored[-1])
    # min keeps the first of equals.
    return chosen, min(chosen.results, key=lambda result: result.reranking)


def join_best(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The same without "best" where that is the step of "last", which is then called "last and best"."""
    steps = {item.label: item.step for item in evaluations}
    if "last" not in steps or steps["last"] != steps.get("best"):
        return list(evaluations)
    return [
        replace(item, label="last and best") if item.label == "last" else item
        for item in evaluations
        if item.label != "best"
    ]


def make_tiles(
    evaluations: Sequence[Evaluation], timings: Sequence[Mapping[str, Any]], wall_clock_seconds: object
) -> list[Tile]:
    """Rank-1, mAP, mINP, time and speed, as far as they are known."""
    tiles = []
    first = headline(evaluations)
    if first is not None:
        chosen, result = first
        others = {
            item.label: other
            for item in evaluations
            for other in item.results
            if item is not chosen and _identity(other) == _identity(result)
        }
        for metric in ("rank1", "mAP", "mINP"):
            value = result.mean[metric]
            notes = []
            if metric == "rank1":
                notes.append(_compare(value, result.chance, "chance"))
            notes += [_compare(value, other.mean[metric], label) for label, other in others.items()]
            tiles.append(
                Tile(f"{METRIC_NAMES[metric]}, {result.setting}, {chosen.label}", [(percent(value), "%")], notes)
            )
    if isinstance(wall_clock_seconds, (int, float)):
        words = duration(wall_clock_seconds).split(" ")
        tiles.append(Tile("Training time", list(zip(words[::2], words[1::2], strict=True)), ["wall clock"]))
    speed = series(timings, "images_per_second")
    if np.isfinite(speed).any():
        notes = ["median of the log"]
        wait, peak = series(timings, "data_wait"), series(timings, "peak_memory_bytes")
        if np.isfinite(wait).any():
            notes.append(f"{percent(float(np.nanmedian(wait)))} % waiting for data")
        if np.isfinite(peak).any():
            notes.append(f"{memory(float(np.nanmax(peak)))} peak memory")
        tiles.append(Tile("Speed", [(f"{float(np.nanmedian(speed)):,.0f}", "images/s")], notes))
    return tiles


def _compare(value: float, base: float, label: str) -> str:
    times = factor(value, base) if label != "best" else None
    return f"{times} {label} ({percent(base)} %)" if times else f"{label} {percent(base)} %"


def _identity(result: ProtocolResult) -> tuple[object, ...]:
    """What two results must share to be the same measurement; the number of trials only sharpens it."""
    labels = (result.dataset, result.protocol, result.setting, result.gallery_source, result.direction, result.feature)
    return (*labels, result.flip, result.reranking)


def shared_conditions(evaluations: Sequence[Evaluation]) -> str:
    """The conditions that all results share."""
    return split_conditions([result for item in evaluations for result in item.results]).shared


def _with_conditions(evaluations: Sequence[Evaluation]) -> list[tuple[Evaluation, ProtocolResult, str]]:
    """Every result with the conditions that it does not share with all others."""
    pairs = [(item, result) for item in evaluations for result in item.results]
    split = split_conditions([result for _, result in pairs])
    words = [(split.of_setting.get(result.setting, ""), own) for (_, result), own in zip(pairs, split.own, strict=True)]
    return [(*pair, ", ".join(filter(None, both))) for pair, both in zip(pairs, words, strict=True)]


def group_scores(evaluations: Sequence[Evaluation]) -> list[ScoreGroup]:
    """Every result; the same setting of all evaluations together, in percent, mean ± std if there are more trials."""
    groups: dict[tuple[object, ...], list[tuple[Evaluation, ProtocolResult, str]]] = {}
    for item, result, words in _with_conditions(evaluations):
        groups.setdefault(_identity(result), []).append((item, result, words))
    return [
        ScoreGroup(
            name=members[0][1].setting,
            queries=" / ".join(
                dict.fromkeys(f"{r.num_valid_queries:,} of {r.num_queries:,} queries" for _, r, _ in members)
            ),
            rows=[
                ScoreRow(
                    label=item.label,
                    when=f"epoch {significant(item.epoch)}, step {item.step:,}",
                    conditions=words,
                    cells=[
                        *(
                            (percent(result.mean[m]), percent(result.std[m]) if result.num_trials > 1 else "")
                            for m in METRICS
                        ),
                        (percent(result.chance), ""),
                    ],
                )
                for item, result, words in members
            ],
        )
        for members in groups.values()
    ]


def best_note(evaluations: Sequence[Evaluation], best_metric: str) -> str:
    """How "best" was chosen; "" if there is none."""
    best = next((item for item in evaluations if item.label == "best"), None)
    if best is None:
        return ""
    last = next((item for item in evaluations if item.label == "last"), None)
    if not any(best_metric in result.scalars() for result in best.results):
        return f"“best” is the checkpoint with the highest {best_metric}, which is not a score of this table."
    if best_metric.startswith("val/"):
        return (
            f"“best” is the checkpoint with the highest {best_metric}: it was chosen on validation identities, without "
            "a look at the test set."
        )
    beside = ", “last” beside it was not chosen" if last is not None and last.step != best.step else ""
    return (
        f"“best” is the checkpoint with the highest {best_metric}, a score of this very table: it was chosen on the "
        f"test set, as the field does, and so is a little too good{beside}."
    )


def cmc_table(evaluations: Sequence[Evaluation]) -> Table:
    """Every CMC in percent, one row per evaluation and result, one column per rank."""
    rows = [
        (f"{result.setting}, {item.label}" + (f" ({words})" if words else ""), [percent(value) for value in result.cmc])
        for item, result, words in _with_conditions(evaluations)
    ]
    return Table([str(k) for k in range(1, CMC_LENGTH + 1)], rows)


def score_curve_table(score_curve: Sequence[Mapping[str, Any]]) -> Table:
    """Every score over training in percent, one row per setting and evaluation, one column per metric."""
    # (setting, metric) of each key "all/single/rank1"
    pairs = [(key.rpartition("/")[0], key.rpartition("/")[2]) for key in keys(score_curve)]
    metrics = list(dict.fromkeys(metric for _, metric in pairs))
    rows = []
    for setting in dict.fromkeys(setting for setting, _ in pairs):
        for row in score_curve:
            when = [f"{name} {significant(float(row.get(name, np.nan)))}" for name in ("epoch", "step")]
            values = [row.get(f"{setting}/{metric}" if setting else metric) for metric in metrics]
            cells = ["-" if value is None else percent(float(value)) for value in values]
            rows.append((", ".join([setting, *when] if setting else when), cells))
    return Table([METRIC_NAMES.get(metric, metric) for metric in metrics], rows)


def curve_summary(rows: Sequence[Mapping[str, Any]]) -> Table:
    """First, last, lowest, median and highest of every logged number, and how many are not finite."""
    table = []
    for name in keys(rows):
        given = np.array([float(row[name]) for row in rows if name in row], dtype=np.float64)
        known = given[np.isfinite(given)]
        spread = [np.min(known), np.median(known), np.max(known)] if known.size else [np.nan] * 3
        cells = [significant(float(value)) for value in (given[0], given[-1], *spread)]
        table.append((name, [*cells, str(len(given)), str(len(given) - len(known))]))
    return Table(["first", "last", "lowest", "median", "highest", "logged", "not finite"], table)

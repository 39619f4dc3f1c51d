"""The end of a run: the last and the best scores, results.json, results.csv, results.tex, report.html."""

import dataclasses
from collections.abc import Callable

import numpy as np

from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.ready import count_data
from icre_jax.datasets import OTHER, Modality
from icre_jax.engine import provenance
from icre_jax.engine.state import TrainState, num_parameters
from icre_jax.errors import InputError
from icre_jax.evals.latex import write_latex
from icre_jax.evals.protocol import query_rows, rank_lists
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult, write_results
from icre_jax.evals.tables import table
from icre_jax.machine import hosts
from icre_jax.report import Evaluation, RankedImage, RankedQuery, write_report
from icre_jax.training.run import Run
from icre_jax.training.session import Session

NUM_RANK_LISTS = 8
RANK_LIST_LENGTH = 10
_IMAGE_SIZE = (144, 72)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Scores of a finished run: of the untrained network, after the last step, and at the best saved step."""

    untrained: list[ProtocolResult]
    last: list[ProtocolResult]
    best: list[ProtocolResult]
    best_step: int


def finish(session: Session, state: TrainState) -> Outcome:
    """Score the last state, save it if that was not done, and write what a finished run leaves.

    Every process takes part; process 0 writes. Safe to call again on a finished run: results and report are then
    written anew from the same numbers.

    Raises:
      NotSavedError: the last state could not be saved.
      InputError: the log lacks scores that belong into the results.
    """
    run, log, checkpoints = session.run, session.log, session.checkpoints
    embedded = run.embed(state)
    last = _shared(lambda: run.score(embedded))
    if run.num_steps not in checkpoints.steps:
        num_epochs = run.settings.schedule.num_epochs
        session.save(
            state, hosts.from_first(lambda: log.write_evaluation(run.num_steps, num_epochs, last, session.screen))
        )

    best_step = checkpoints.best_step
    assert best_step is not None  # the last state was just saved with its scores
    outcome = Outcome(
        untrained=_shared(lambda: _logged(session, 0)),
        last=last,
        best=_shared(lambda: _logged(session, best_step)),
        best_step=best_step,
    )
    hosts.from_first(lambda: _write(session, state, embedded[0], outcome))
    return outcome


def _shared(work: Callable[[], list[ProtocolResult]]) -> list[ProtocolResult]:
    """Results that process 0 has, in all processes."""
    return [
        ProtocolResult(**result)
        for result in hosts.from_first(lambda: [dataclasses.asdict(result) for result in work()])
    ]


def _logged(session: Session, step: int) -> list[ProtocolResult]:
    evaluations = session.log.read_evaluations()
    if step not in evaluations:
        raise InputError(
            f"{session.run.workdir / 'metrics.jsonl'} lacks the scores of step {step}. Restore it, or use another "
            "--workdir."
        )
    return evaluations[step]


def _write(session: Session, state: TrainState, embedded: dict[Modality, Embedded], outcome: Outcome) -> None:
    """Results and report."""
    run, log, screen = session.run, session.log, session.screen
    last, best_step = outcome.last, outcome.best_step
    size = num_parameters(state.params)
    facts = {
        label: provenance.collect(run.settings, run.prepared, step=step, checkpoint=label)
        | {"num_parameters": size, "init_from": run.facts.get("init_from")}
        for label, step in (("last", run.num_steps), ("best", best_step))
    }
    for folder, results, label in ((run.workdir, last, "last"), (run.workdir / "best", outcome.best, "best")):
        write_results(folder, results, facts[label])
        write_latex(folder, results)
    shown = [
        Evaluation(label, step, step / run.steps_per_epoch, results)
        for label, step, results in (
            ("untrained", 0, outcome.untrained),
            ("last", run.num_steps, outcome.last),
            ("best", best_step, outcome.best),
        )
    ]
    speed = log.read_speed()
    write_report(
        run.workdir / "report.html",
        settings=run.settings,
        steps=log.read_steps(),
        timings=speed,
        evaluations=shown,
        score_curve=log.read_score_curve(),
        provenance=facts["last"]
        | {
            "wall_clock_seconds": sum(line["seconds"] for line in speed),
            "data": {f"{row['split']}, {row['modality']}": row for row in count_data(run.prepared)},
        },
        rank_lists=_rank_lists(run, embedded),
    )
    screen.console.print(table(last))
    screen.say(f"{_compare(outcome)}\nResults: {run.workdir / 'results.json'}\nReport:  {run.workdir / 'report.html'}")


def _compare(outcome: Outcome) -> str:
    last, untrained = outcome.last[0], outcome.untrained[0]
    rank1, before = last.mean["rank1"], untrained.mean["rank1"]
    beside = (
        f"{rank1 / before:.1f} times the untrained network ({before:.1%})"
        if before
        else "the untrained network finds nobody"
    )
    return f"{last.setting} Rank-1 {rank1:.1%}: {rank1 / last.chance:.1f} times chance ({last.chance:.1%}), {beside}."


def _rank_lists(run: Run, embedded: dict[Modality, Embedded]) -> list[RankedQuery]:
    """Rank lists of queries spread evenly over the query set, on the gallery of trial 0 of the headline setting."""
    evaluator = run.evaluators[0]
    setting = evaluator.protocol.settings[0]
    query, gallery = evaluator.sources[setting.query], evaluator.sources[OTHER[setting.query]]
    asking = query_rows(setting, embedded[setting.query])
    indices = asking[np.linspace(0, len(asking) - 1, NUM_RANK_LISTS).round().astype(int)].tolist()
    lists = []
    for index, ranked in zip(indices, rank_lists(setting, embedded, indices, top=RANK_LIST_LENGTH), strict=True):
        rows = zip(ranked.gallery_index.tolist(), ranked.similarity.tolist(), ranked.correct.tolist(), strict=True)
        lists.append(
            RankedQuery(
                query=_image(query, index, None, None),
                ranked=[_image(gallery, row, similarity, correct) for row, similarity, correct in rows],
            )
        )
    return lists


def _image(source: RecordSource, record: int, similarity: float | None, correct: bool | None) -> RankedImage:
    image = decode(source.image_bytes(record), _IMAGE_SIZE)
    return RankedImage(image, int(source.index.pid[record]), int(source.index.camid[record]), similarity, correct)

"""The end of a run: the last and the best scores, results.json, results.csv, results.tex, report.html."""

import dataclasses
from collections.abc import Callable

from icre_jax.datasets import Modality
from icre_jax.engine import provenance
from icre_jax.engine.state import TrainState, num_parameters
from icre_jax.errors import InputError
from icre_jax.evals.latex import write_latex
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult, write_results
from icre_jax.evals.tables import table
from icre_jax.machine import hosts
from icre_jax.report import Evaluation
from icre_jax.training.page import write_page
from icre_jax.training.session import Session


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Scores of a finished run: of the untrained network, after the last step, and at the best saved step."""

    untrained: list[ProtocolResult]
    last: list[ProtocolResult]
    best: list[ProtocolResult]
    best_step: int


@dataclasses.dataclass(frozen=True, eq=False)
class Last:
    """Of the state after the last step: its scores, and the test images embedded by it."""

    results: list[ProtocolResult]
    embedded: dict[Modality, Embedded]


def save_last(session: Session, state: TrainState) -> Last:
    """Score the last state, and save it if that was not done: whoever asks to stop meanwhile, this is done first.

    Every process takes part.

    Raises:
      NotSavedError: the last state could not be saved.
    """
    run, log = session.run, session.log
    embedded = run.embed(state)
    results = _shared(lambda: run.score(embedded))
    if run.num_steps not in session.checkpoints.steps:
        num_epochs = run.settings.schedule.num_epochs
        session.save(
            state, hosts.from_first(lambda: log.write_evaluation(run.num_steps, num_epochs, results, session.screen))
        )
    return Last(results, embedded[0])


def finish(session: Session, state: TrainState, last: Last) -> Outcome:
    """Write what a finished run leaves.

    Every process takes part; process 0 writes. Safe to call again on a finished run: results and report are then
    written anew from the same numbers.

    Raises:
      InputError: the log lacks scores that belong into the results.
    """
    best_step = session.checkpoints.best_step
    assert best_step is not None  # the last state was just saved with its scores
    outcome = Outcome(
        untrained=_shared(lambda: _logged(session, 0)),
        last=last.results,
        best=_shared(lambda: _logged(session, best_step)),
        best_step=best_step,
    )
    hosts.from_first(lambda: _write(session, state, last.embedded, outcome))
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
    """Results and report, by process 0 alone."""
    run, screen = session.run, session.screen
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
    scored = (("untrained", 0, outcome.untrained), ("last", run.num_steps, last), ("best", best_step, outcome.best))
    shown = [Evaluation(label, step, step / run.steps_per_epoch, results) for label, step, results in scored]
    write_page(session, state, embedded, shown, facts["last"])
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

"""The way through a run: open it, train, score and report; one loop for every config and every number of hosts."""

import contextlib
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from icre_jax.data.pipeline import training_batches
from icre_jax.engine.state import TrainState
from icre_jax.machine import hosts
from icre_jax.machine.stop import StopRequest, stop_request
from icre_jax.settings.fields import Settings
from icre_jax.training.divergence import FiniteWatch
from icre_jax.training.finish import Outcome, finish, save_last
from icre_jax.training.log import Stopwatch, describe_step, reaches_screen, steps_between_lines
from icre_jax.training.session import Session, open_session


@hosts.explain_lost_hosts()
def train_and_evaluate(settings: Settings, workdir: Path, *, console: Console | None = None) -> Outcome | None:
    """Train to the end of the schedule, or continue to it; score; write results and report.

    Args:
      settings: what to do.
      workdir: where everything goes; a folder that holds a run of the same settings continues it.
      console: where progress goes; standard output by default.

    Of several processes (`icre_jax.machine.hosts`) each calls this with the same settings; process 0 alone writes and
    talks.

    Returns:
      The scores, in each process; None if the run was asked to stop (SIGINT, SIGTERM) and saved its state instead.

    Raises:
      InputError: settings, data or workdir cannot be used.
      DivergenceError: a loss is not finite.
      NotSavedError: the first or the last state could not be saved.
      HostError: another process of the run is lost.
    """
    with open_session(settings, workdir, console) as session:
        state = session.start()
        # One request from the first step to the save of the last state: none is lost between its parts.
        with stop_request() as stop:
            state = train(session, state, stop)
            last = save_last(session, state) if session.is_complete(state) else None
        if last is None or any(hosts.exchange(stop.requested)):
            session.screen.say(
                f"Stopped on request; step {int(state.step)} is saved. The same command continues the run."
            )
            return None
        return finish(session, state, last)


def train(session: Session, state: TrainState, stop: StopRequest) -> TrainState:
    """Train to the end, or until `stop` is requested in a process; the state then, saved if it is not the last one."""
    run, settings = session.run, session.run.settings
    start = step = int(state.step)
    speed = Stopwatch(run.plan.batch_size)
    finite = FiniteWatch(run, session.checkpoints)
    scores: dict[str, float] | None = None
    every = steps_between_lines(settings.logging.every_steps, run.num_steps)
    batches = training_batches(
        run.source,
        run.plan,
        data=settings.data,
        settings=settings.augment,
        seed=settings.seed,
        start=start,
        rows=run.rows,
    )
    vote = hosts.Vote()
    with (
        contextlib.closing(batches),
        # A transfer that nobody asked for makes the device wait for the host in every step.
        jax.transfer_guard("disallow"),
    ):
        while step < run.num_steps and not vote.cast(stop.requested):
            with speed.waiting_for_data():
                batch = next(batches)
            state, metrics = run.step(state, {name: batch[name] for name in ("image", "label", "modality")})
            step += 1
            finite.follow(step, batch, metrics)  # looks at the step before: at most two are under way
            speed.count_step()
            if step == start + 1:
                jax.block_until_ready(metrics)
                speed.restart()  # what has passed was mostly compiling

            scores = None
            epoch, step_of_epoch = divmod(step, run.steps_per_epoch)
            if step % every == 0 or step == run.num_steps:
                finite.check()  # reading the numbers waits for them anyway, and the log is to stay strict JSON
                _report(session, step, metrics, speed, every)
            session.screen.advance("training", step, run.num_steps, note=f"epoch {step / run.steps_per_epoch:.1f}")
            if step_of_epoch == 0 and step < run.num_steps:
                with speed.paused(), jax.transfer_guard("allow"):
                    finite.check_state(state)
                    if epoch % settings.evaluation.every_epochs == 0:
                        scores = session.score(state, step)
                    if scores or epoch % settings.checkpoint.every_epochs == 0:
                        session.try_to_save(state, scores)
        with jax.transfer_guard("allow"):
            finite.check_state(state)
            if step < run.num_steps and step not in session.checkpoints.steps:
                session.save(state, scores)
    return state


def _report(session: Session, step: int, metrics: dict[str, Any], speed: Stopwatch, every: int) -> None:
    """A line in the log, as `every` so many steps; and one on the screen, about every `logging.every_steps`."""
    run, log = session.run, session.log
    line = {"step": step, "epoch": step / run.steps_per_epoch}
    line |= {name: float(value) for name, value in jax.device_get(metrics).items()}
    with jax.transfer_guard("allow"):  # a few numbers, in steps that write a line
        line |= {f"learning_rate/{group}": float(rate) for group, rate in run.rates(step - 1).items()}
    log.write_step(line)
    since = speed.read()
    if since is None:
        return
    log.write_speed({"step": step} | since)
    if reaches_screen(step, every=every, most=run.settings.logging.every_steps, num_steps=run.num_steps):
        num_epochs = run.settings.schedule.num_epochs
        session.screen.say(describe_step(line, since, num_epochs=num_epochs, num_steps=run.num_steps))

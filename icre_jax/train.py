"""Train a network: `python -m icre_jax.train --config configs/synthetic.py --workdir DIR`.

Starting the same command again continues where the run stopped. The work folder holds config.json, metrics.jsonl,
timing.jsonl, checkpoints/ and, at the end, results.json, results.csv and report.html.
"""

import argparse
import builtins
import contextlib
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from icre_jax import command, hosts
from icre_jax.checkpoint import Checkpoints
from icre_jax.compile_cache import keep_compiled_programs
from icre_jax.data.pipeline import training_batches
from icre_jax.data.prepared import PreparedDataset
from icre_jax.divergence import FiniteWatch
from icre_jax.errors import InputError, join_findings
from icre_jax.evals import PROTOCOLS, VALIDATION
from icre_jax.evals.protocol import Protocol
from icre_jax.finish import Outcome, finish
from icre_jax.host_memory import keep_freed_memory
from icre_jax.lock import lock_folder
from icre_jax.prepare import describe_data, prepare_data
from icre_jax.replay import replay
from icre_jax.run import Run, assemble, open_workdir, restore, write_config
from icre_jax.runlog import RunLog, Screen, Stopwatch, describe_step, open_console
from icre_jax.saving import save, try_to_save
from icre_jax.settings import Settings, differences, from_json, resolve_paths, to_json
from icre_jax.state import TrainState, num_parameters
from icre_jax.stop import StopRequest


@hosts.telling_of_lost_hosts()
def train_and_evaluate(settings: Settings, workdir: Path, *, console: Console | None = None) -> Outcome | None:
    """Train to the end of the schedule, or continue to it; score; write results and report.

    Args:
      settings: what to do.
      workdir: where everything goes; a folder that holds a run of the same settings continues it.
      console: where progress goes; standard output by default.

    Of several processes (`icre_jax.hosts`) each calls this with the same settings; process 0 alone writes and talks.

    Returns:
      The scores, in each process; None if the run was asked to stop (SIGINT, SIGTERM) and saved its state instead.

    Raises:
      InputError: settings, data or workdir cannot be used.
      DivergenceError: a loss is not finite.
      NotSavedError: the first or the last state could not be saved.
      HostError: another process of the run is lost.
    """
    dataset = settings.data.dataset
    _require_score(settings, PROTOCOLS[dataset], VALIDATION.get(dataset))
    settings = resolve_paths(settings)
    with contextlib.ExitStack() as stack:
        if not hosts.is_first():
            console = Console(quiet=True)
        screen = stack.enter_context(contextlib.closing(Screen(console or open_console())))
        hosts.everywhere(
            functools.partial(_require_same_settings, hosts.from_first(lambda: to_json(settings)), settings)
        )
        workdir = hosts.first_then_others(lambda: open_workdir(workdir, settings))
        hosts.from_first(lambda: stack.enter_context(lock_folder(workdir, flag="--workdir")))
        hosts.require_common_folder(workdir, flag="--workdir")
        prepared = hosts.first_then_others(lambda: prepare_data(settings.data, screen))
        hosts.everywhere(
            functools.partial(_require_same_data, hosts.from_first(lambda: prepared.fingerprint), prepared)
        )
        screen.console.print(describe_data(prepared))
        run = hosts.everywhere(lambda: assemble(settings, workdir, prepared))
        # Own pictures may have one direction only.
        _require_score(settings, run.evaluators[0].protocol, VALIDATION.get(dataset))
        hosts.from_first(lambda: write_config(workdir, settings))
        screen.say(
            f"{settings.name}: ResNet-{settings.model.depth}, {num_parameters(run.initial_state.params):,} parameters, "
            f"{run.plan.num_classes} identities, {run.steps_per_epoch} steps per epoch, batch {run.plan.batch_size} "
            f"on {jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        checkpoints = stack.enter_context(
            contextlib.closing(
                Checkpoints(
                    workdir, keep_latest=settings.checkpoint.keep_latest, best_metric=settings.checkpoint.best_metric
                )
            )
        )
        state, saved_step = hosts.everywhere(lambda: restore(run, checkpoints))
        log = stack.enter_context(contextlib.closing(hosts.everywhere(lambda: _open_log(run, saved_step, stack))))
        if saved_step is None:
            screen.say(_describe_start(settings))
            scores = _evaluate(run, state, 0, log, screen)
            save(run, state, checkpoints, log, scores)
        elif saved_step < run.num_steps:
            screen.say(f"Continuing behind step {saved_step} of {run.num_steps}.")
        # In a notebook the process is not ours to end.
        with StopRequest(second_ends=not hasattr(builtins, "__IPYTHON__")) as stop:
            state = _loop(run, state, saved_step or 0, checkpoints, log, screen, stop)
        if int(state.step) < run.num_steps:
            screen.say(f"Stopped on request; step {int(state.step)} is saved. The same command continues the run.")
            return None
        return finish(run, state, checkpoints, log, screen)


def _require_same_settings(theirs: str, settings: Settings) -> None:
    changed = differences(from_json(theirs), settings)
    if changed:
        raise InputError(
            f"Process 0 was started with another config:\n{join_findings(changed)}\nStart all with the same flags."
        )


def _require_same_data(theirs: str, prepared: PreparedDataset) -> None:
    if prepared.fingerprint != theirs:
        raise InputError(
            f"The data in {prepared.folder} has fingerprint {prepared.fingerprint[:12]}, that of process 0 has "
            f"{theirs[:12]}. Give all hosts the same data set."
        )


def _open_log(run: Run, saved_step: int | None, stack: contextlib.ExitStack) -> RunLog:
    """The log of the run; in all processes but the first a log that nobody reads, gone with `stack`."""
    if hosts.is_first():
        return RunLog(run.workdir, saved_step, tensorboard=run.settings.logging.tensorboard)
    return RunLog(Path(stack.enter_context(tempfile.TemporaryDirectory())), None, tensorboard=False)


def _require_score(settings: Settings, test: Protocol, validation: Protocol | None) -> None:
    """Refuse to choose the best checkpoint by a score that there will not be."""
    allowed = test.metric_names + (validation.metric_names if validation else ())
    if settings.checkpoint.best_metric not in allowed:
        raise InputError(
            f"checkpoint.best_metric is {settings.checkpoint.best_metric!r}; allowed are {', '.join(allowed)} (the "
            f"scores of data.dataset {settings.data.dataset})."
        )


def _describe_start(settings: Settings) -> str:
    if settings.pretrained is not None:
        return f"The backbone starts from {settings.pretrained}."
    advice = (
        ""
        if settings.data.synthetic
        else (
            " The published recipes start from ImageNet's: --config.pretrained=FILE.safetensors (docs/pretrained.md)."
        )
    )
    return f"The backbone starts from random weights.{advice}"


def _loop(
    run: Run, state: TrainState, start: int, checkpoints: Checkpoints, log: RunLog, screen: Screen, stop: StopRequest
) -> TrainState:
    """Train from behind step `start` to the end or to a request to stop; the state then, saved in the second case."""
    settings, step = run.settings, start
    watch = Stopwatch(run.plan.batch_size)
    watch_finite = FiniteWatch(run, checkpoints)
    scores: dict[str, float] | None = None
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
    with contextlib.closing(batches):
        while step < run.num_steps and not vote.cast(stop.requested):
            with watch.waiting_for_data():
                batch = next(batches)
            state, metrics = run.step(state, {name: batch[name] for name in ("image", "label", "modality")})
            step += 1
            watch_finite.follow(step, batch, metrics)
            watch.count_step()
            if step == start + 1:
                jax.block_until_ready(metrics)
                watch.restart()  # what has passed was mostly compiling

            scores = None
            epoch, step_of_epoch = divmod(step, run.steps_per_epoch)
            if step % settings.logging.every_steps == 0 or step == run.num_steps:
                watch_finite.check()  # reading the numbers waits for them anyway, and the log is to stay strict JSON
                _report_step(run, step, metrics, watch, log, screen)
            screen.advance("training", step, run.num_steps, note=f"epoch {step / run.steps_per_epoch:.1f}")
            if step_of_epoch == 0 and step < run.num_steps:
                with watch.paused():
                    watch_finite.check_state(state)
                    if epoch % settings.evaluation.every_epochs == 0:
                        scores = _evaluate(run, state, step, log, screen)
                    if scores or epoch % settings.checkpoint.every_epochs == 0:
                        try_to_save(run, state, checkpoints, log, screen, scores)
    watch_finite.check_state(state)
    if step < run.num_steps and step not in checkpoints.steps:
        save(run, state, checkpoints, log, scores)
    return state


def _evaluate(run: Run, state: TrainState, step: int, log: RunLog, screen: Screen) -> dict[str, float]:
    """Score the network, log it, and return the scores by name."""
    embedded = run.embed(state)
    return hosts.from_first(lambda: log.write_evaluation(step, step / run.steps_per_epoch, run.score(embedded), screen))


def _report_step(run: Run, step: int, metrics: dict[str, Any], watch: Stopwatch, log: RunLog, screen: Screen) -> None:
    line = {"step": step, "epoch": step / run.steps_per_epoch}
    line |= {name: float(value) for name, value in metrics.items()}
    line |= {f"learning_rate/{group}": float(rate(step - 1)) for group, rate in run.rates.items()}
    log.write_step(line)
    speed = watch.read()
    if speed is not None:
        log.write_speed({"step": step} | speed)
        num_epochs = run.settings.schedule.num_epochs
        screen.say(describe_step(line, speed, num_epochs=num_epochs, num_steps=run.num_steps))


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.train", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, help="where everything goes; default: runs/<name of the config>")
    hosts.add_flags(parser)
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="run the step again at which the run of --workdir diverged"
    )
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.replay:
        return _replay(flags, config_flags)
    settings = command.read_config(config_flags)
    keep_compiled_programs()
    keep_freed_memory()
    hosts.join(flags)
    outcome = train_and_evaluate(settings, flags.workdir or Path("runs") / settings.name)
    return 0 if outcome else command.EXIT_STOPPED


def _replay(flags: argparse.Namespace, config_flags: list[str]) -> int:
    if flags.workdir is None or config_flags or flags.distributed:
        raise InputError(
            "--replay needs the --workdir of the run, and takes its settings from there: no --config. One process "
            "does it: no --distributed."
        )
    with contextlib.closing(Screen(open_console())) as screen:
        return 0 if replay(flags.workdir, flags.replay, screen) else command.EXIT_DIVERGED


if __name__ == "__main__":
    command.run(main, leave=hosts.leave)

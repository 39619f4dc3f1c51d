"""What ablation, sweep and noise have in common: runs that are trained where they are missing, and tables of all.

Which rows there are, and what the tables say, is the plan of each: `ablation.py`, `sweep.py` and `noise.py`.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from icre_jax.data.ready import prepare_data
from icre_jax.errors import InputError
from icre_jax.experiments.processes import Command, share_cores, work_off
from icre_jax.experiments.removal import arguments_without, parts_of
from icre_jax.experiments.runs import Row, Run, RunScore, make_run, make_runs, read_score, require_same_config
from icre_jax.experiments.table import Tables, to_terminal
from icre_jax.files import write_file
from icre_jax.machine.lock import lock_folder
from icre_jax.machine.screen import Screen
from icre_jax.report.numbers import duration


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The plan of an ablation, a sweep or a measurement of noise.

    Attributes:
      out: where the work folders and the tables go; absolute.
      runs: what is asked for, in this order.
      others: further runs that are in `out` and belong to its tables.
      removal: whether networks with MPFR or SDCE are also scored with each of their parts taken out.
      make_tables: of at least one score.
      notes: what to say before it starts.
    """

    out: Path
    runs: Sequence[Run]
    others: Sequence[Run]
    removal: bool
    make_tables: Callable[[Sequence[RunScore]], Tables]
    notes: Sequence[str] = ()


def resolve_out(out: Path) -> Path:
    """`out` as an absolute path.

    Raises:
      InputError: it is the work folder of a single run.
    """
    out = out.expanduser().resolve()
    if (out / "config.json").is_file():
        raise InputError(f"{out} is the work folder of a single run. Choose another --out.")
    return out


def plan_runs(
    rows: Sequence[Row], seeds: Sequence[int], found: Sequence[tuple[Row, int]], out: Path
) -> tuple[list[Run], list[Run]]:
    """The runs that are asked for; and the others that were found in `out`."""
    runs = make_runs(rows, seeds, out)
    return runs, [run for run in (make_run(row, seed, out) for row, seed in found) if run not in runs]


def command_lines(experiment: Experiment) -> list[str]:
    """One line for a shell per run that is asked for, finished or not: its training, && its scores without a part."""
    return [
        " && ".join(shlex.join([sys.executable, *command.arguments]) for command in _all_commands(experiment, run))
        for run in experiment.runs
    ]


def carry_out(experiment: Experiment, *, num_parallel: int, screen: Screen) -> bool:
    """Train what is missing, and after every run write the tables of all that is in `out`.

    Args:
      experiment: the plan.
      num_parallel: runs at a time.
      screen: where progress goes.

    Returns:
      Whether all is done; False if it was asked to stop (SIGINT, SIGTERM) and the runs saved their state instead.

    Raises:
      InputError: data or `out` cannot be used, or it holds runs of other settings.
      RunFailedError: a run failed.
    """
    cores, out = share_cores(num_parallel), experiment.out
    everything = [*experiment.runs, *experiment.others]
    for note in experiment.notes:
        screen.say(note)
    for run in everything:
        require_same_config(run)
    with lock_folder(out, flag="--out") as lock:
        scores = {run.folder: score for run in everything if (score := read_score(run))}
        jobs = [_missing_commands(experiment, run, scores.get(run.folder)) for run in experiment.runs]
        num_runs, num_done = len(jobs), sum(not job for job in jobs)
        screen.say(
            f"{num_runs} runs, {num_done} of them finished already; "
            f"{num_parallel} at a time, output in {out}/NAME/seed_N/output.txt"
        )
        for run in experiment.others:
            if run.folder not in scores and (run.folder / "results.json").is_file():
                screen.say(
                    f"Not in the tables: {run.folder}, whose results.json is not what its training wrote at its end "
                    "(icre_jax.evaluate writes there too). Ask for its row and seed, and it is scored again."
                )
        if any(jobs):
            # Once, not by several runs at a time; tables of what is finished need no data.
            prepare_data(experiment.runs[0].settings.data, screen)
        began = time.monotonic()

        def tell(command: Command, seconds: float) -> None:
            nonlocal num_done
            run = command.run
            score = read_score(run)
            assert score is not None  # a run that ends well leaves its results
            scores[run.folder] = score
            rest = _missing_commands(experiment, run, score)
            if rest and command.task == "removal":
                raise InputError(
                    f"{run.folder} has no scores without {', '.join(_missing_parts(run, score))}, although the command "
                    "that makes them ended well. See the end of its output.txt, or leave them out (--no_removal)."
                )
            num_done += not rest
            _write(experiment, list(scores.values()))
            screen.say(
                f"[{num_done}/{num_runs}] {score.row} seed {score.seed}: {_describe(command, score)} | "
                f"{duration(seconds)}, {duration(time.monotonic() - began)} in all"
            )

        all_done = work_off(jobs, cores=cores, lock=lock, on_finished=tell)
        if scores:
            tables = _write(experiment, list(scores.values()))
            for sheet in tables.sheets:
                screen.console.print(to_terminal(sheet))
            for remark in tables.remarks:
                screen.say(remark)
            screen.say(f"Tables: {', '.join(tables.files)} in {out}")
    if not all_done:
        screen.say("Stopped on request; the runs have saved their state. The same command continues.")
    return all_done


def _all_commands(experiment: Experiment, run: Run) -> list[Command]:
    train = Command(run, "train", tuple(run.arguments))
    return [train, *_removal(run, parts_of(run.settings) if experiment.removal else [])]


def _missing_commands(experiment: Experiment, run: Run, score: RunScore | None) -> list[Command]:
    """What is left to do for a run; nothing if it is finished."""
    if score is None:
        return _all_commands(experiment, run)
    return _removal(run, _missing_parts(run, score) if experiment.removal else [])


def _missing_parts(run: Run, score: RunScore) -> list[str]:
    return [part for part in parts_of(run.settings) if part not in score.without]


def _removal(run: Run, parts: Sequence[str]) -> list[Command]:
    return [Command(run, "removal", tuple(arguments_without(run.folder, parts, run.settings)))] if parts else []


def _describe(command: Command, score: RunScore) -> str:
    if command.task == "removal":
        return f"scored without {', '.join(score.without)}"
    mean = score.result.mean
    return f"{score.setting} Rank-1 {mean['rank1']:.1%}  mAP {mean['mAP']:.1%}"


def _write(experiment: Experiment, scores: Sequence[RunScore]) -> Tables:
    """Write every file, whole or not at all; files of an earlier state are replaced."""
    tables = experiment.make_tables(scores)
    try:
        for name, content in tables.files.items():
            write_file(experiment.out / name, content)
    except OSError as error:
        raise InputError(
            f"The tables cannot be written to {experiment.out}: {error}. Free space, or choose another --out."
        ) from error
    return tables

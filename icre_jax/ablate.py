"""Ablate: train every variant of a config with several seeds at one budget, and say which of them beat the baseline.

    python -m icre_jax.ablate --config configs/synthetic.py --out runs/ablation --seeds 0,1,2

Each run is `python -m icre_jax.train` in a work folder of its own, OUT/ROW/seed_N. Starting the same command again goes
on where it stopped. After every run OUT holds the tables so far: ablation.csv, ablation_summary.csv, ablation.md,
ablation.tex and ablation.png.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import optax

from icre_jax import command
from icre_jax.ablation.files import write_files
from icre_jax.ablation.processes import RunFailedError, share_cores, train_all
from icre_jax.ablation.rows import NAMES, Row, plan_rows
from icre_jax.ablation.runs import AblationRun, find_runs, folder_of, read_score, require_same_ablation
from icre_jax.ablation.summary import caption, remarks
from icre_jax.ablation.table import to_table
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.plan import BalancedPlan, num_batches_per_epoch
from icre_jax.data.prepared import PreparedDataset
from icre_jax.errors import InputError
from icre_jax.lock import lock_folder
from icre_jax.models.network import build_network
from icre_jax.prepare import prepare_data
from icre_jax.report.numbers import duration
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Settings
from icre_jax.state import create_state, num_parameters


def ablate(
    names: Sequence[str],
    config_flags: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    num_parallel: int,
    screen: Screen,
) -> bool:
    """Train what is missing, and behind every run write the tables of all that is in `out`.

    Args:
      names: rows to train, of `icre_jax.ablation.rows.NAMES`.
      config_flags: "--config=FILE" and fields for all rows.
      seeds: one run each per row.
      out: where the work folders and the tables go.
      num_parallel: runs at a time.
      screen: where progress goes.

    Returns:
      Whether all is done; False if it was asked to stop (SIGINT, SIGTERM) and the runs saved their state instead.

    Raises:
      InputError: rows, config, data or `out` cannot be used.
      RunFailedError: a run failed.
    """
    cores = share_cores(num_parallel)
    out = out.expanduser().resolve()
    rows, todo, others = _plan(names, config_flags, seeds, out, screen)
    for run in todo + others:
        require_same_ablation(run)
    with lock_folder(out, flag="--out") as lock:
        prepared = prepare_data(rows[0].settings.data, screen)
        num_steps, num_parameters = _measure(rows, prepared)
        scores = [score for run in todo + others if (score := read_score(run, num_steps))]
        finished = {(score.row, score.seed) for score in scores}
        num_runs = len(todo)
        todo = [run for run in todo if (run.row.name, run.seed) not in finished]
        screen.say(
            f"{num_runs} runs of {num_steps:,} steps, {num_runs - len(todo)} of them finished already; "
            f"{num_parallel} at a time, output in {out}/ROW/seed_N/output.txt"
        )
        began = time.monotonic()

        def tell(run: AblationRun, seconds: float) -> None:
            score = read_score(run, num_steps)
            assert score is not None  # a run that ends well leaves its results
            scores.append(score)
            write_files(out, rows, scores, num_parameters)
            done = num_runs - len(todo) + len(scores) - len(finished)
            screen.say(
                f"[{done}/{num_runs}] {score.row} seed {score.seed}: {score.setting} "
                f"Rank-1 {score.result.mean['rank1']:.1%}  mAP {score.result.mean['mAP']:.1%} | {duration(seconds)}, "
                f"{duration(time.monotonic() - began)} in all"
            )

        all_done = train_all(todo, cores=cores, lock=lock, on_finished=tell)
        if scores:
            summaries = write_files(out, rows, scores, num_parameters)
            screen.console.print(to_table(summaries, caption(summaries, scores)))
            for remark in remarks(summaries):
                screen.say(remark)
            screen.say(f"Tables: {out}/ablation.md, .tex, .csv, .png and ablation_summary.csv")
    if not all_done:
        screen.say("Stopped on request; the runs have saved their state. The same command continues.")
    return all_done


def _plan(
    names: Sequence[str], config_flags: Sequence[str], seeds: Sequence[int], out: Path, screen: Screen
) -> tuple[list[Row], list[AblationRun], list[AblationRun]]:
    """All rows; the runs that are asked for; and other runs that are in `out` already and belong to its tables."""
    if (out / "config.json").is_file():
        raise InputError(f"{out} is the work folder of a single run. Choose another --out.")
    chosen = [row.name for row in plan_rows(names, config_flags)]
    found = find_runs(out, NAMES)
    rows = plan_rows([*chosen, *(name for name, _ in found)], config_flags)
    by_name = {row.name: row for row in rows}
    for name in names:
        if name not in by_name:
            screen.say(f"{name}: that is the form of the config itself, the row icre.")
    # Seed by seed, so that a table of all rows is there early.
    wanted = [(name, seed) for seed in seeds for name in chosen]
    others = [run for run in found if run not in wanted and run[0] in by_name]

    def make(runs: Sequence[tuple[str, int]]) -> list[AblationRun]:
        return [AblationRun(by_name[name], seed, folder_of(out, name, seed)) for name, seed in runs]

    return rows, make(wanted), make(others)


def _measure(rows: Sequence[Row], prepared: PreparedDataset) -> tuple[int, dict[str, int]]:
    """Steps of every run, and the number of trained parameters of every row; nothing is put on a device."""
    settings = rows[0].settings
    index = RecordSource(prepared, settings.data.train_splits).index
    sampling = settings.sampling.model_dump()
    num_steps = num_batches_per_epoch(index, **sampling) * settings.schedule.num_epochs
    num_classes = BalancedPlan(index, **sampling, num_batches=1, seed=0).num_classes
    return num_steps, {row.name: _count_parameters(row.settings, num_classes) for row in rows}


def _count_parameters(settings: Settings, num_classes: int) -> int:
    network = build_network(settings.model, num_classes)
    tx, image_size = optax.identity(), settings.data.image_size
    # A shape in place of a seed: a number would take an accelerator that the runs need.
    seed = jax.ShapeDtypeStruct((), np.int32)
    shapes = jax.eval_shape(lambda s: create_state(s, network=network, tx=tx, image_size=image_size), seed)
    return num_parameters(shapes.params)


def read_seeds(text: str) -> list[int]:
    """Seeds of "0,1,2".

    Raises:
      InputError: something that is no seed, or one twice.
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdecimal() and int(word) < 2**31)]
    if wrong:
        raise InputError(f"--seeds {text!r}: {wrong[0]!r} is no seed. Give whole numbers from 0 on, such as 0,1,2.")
    seeds = [int(word) for word in words]
    twice = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]
    if twice:
        raise InputError(f"--seeds {text!r} names {twice[0]} twice; the same run again would not be another sample.")
    return seeds


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.ablate", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="where everything goes; default: runs/<name of the config>_ablation")
    parser.add_argument("--seeds", default="0,1,2", help="one run per row and seed; default: 0,1,2")
    parser.add_argument("--rows", default=",".join(NAMES), help=f"what to train; default: all: {', '.join(NAMES)}")
    parser.add_argument("--num_parallel", type=int, default=1, metavar="N", help="runs at a time, on shares of the CPU")
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.num_parallel < 1:
        raise InputError(f"--num_parallel is {flags.num_parallel}; allowed is 1 and more.")
    names, seeds = [name.strip() for name in flags.rows.split(",")], read_seeds(flags.seeds)
    out = flags.out or Path("runs") / f"{command.read_config(config_flags).name}_ablation"
    with contextlib.closing(Screen(open_console())) as screen:
        try:
            done = ablate(names, config_flags, seeds, out, num_parallel=flags.num_parallel, screen=screen)
        except RunFailedError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.code
    return 0 if done else command.EXIT_STOPPED


if __name__ == "__main__":
    command.run(main)

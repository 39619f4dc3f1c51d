"""The ablation: every row with every seed, each a run in a work folder of its own, and tables of all that is there."""

import time
from collections.abc import Sequence
from pathlib import Path

from icre_jax.data.ready import prepare_data
from icre_jax.errors import InputError
from icre_jax.experiments.files import write_files
from icre_jax.experiments.processes import share_cores, train_all
from icre_jax.experiments.rows import NAMES, Row, plan_rows
from icre_jax.experiments.runs import AblationRun, find_runs, folder_of, read_score, require_same_ablation
from icre_jax.experiments.summary import caption, remarks
from icre_jax.experiments.table import to_table
from icre_jax.machine.lock import lock_folder
from icre_jax.machine.screen import Screen
from icre_jax.report.numbers import duration


def ablate(
    names: Sequence[str],
    config_flags: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    num_parallel: int,
    screen: Screen,
) -> bool:
    """Train what is missing, and after every run write the tables of all that is in `out`.

    Args:
      names: rows to train, of `icre_jax.experiments.rows.NAMES`.
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
        prepare_data(rows[0].settings.data, screen)  # once, not by several runs at a time
        scores = [score for run in todo + others if (score := read_score(run))]
        finished = {(score.row, score.seed) for score in scores}
        num_runs = len(todo)
        todo = [run for run in todo if (run.row.name, run.seed) not in finished]
        screen.say(
            f"{num_runs} runs, {num_runs - len(todo)} of them finished already; "
            f"{num_parallel} at a time, output in {out}/ROW/seed_N/output.txt"
        )
        began = time.monotonic()

        def tell(run: AblationRun, seconds: float) -> None:
            score = read_score(run)
            assert score is not None  # a run that ends well leaves its results
            scores.append(score)
            write_files(out, rows, scores)
            done = num_runs - len(todo) + len(scores) - len(finished)
            screen.say(
                f"[{done}/{num_runs}] {score.row} seed {score.seed}: {score.setting} "
                f"Rank-1 {score.result.mean['rank1']:.1%}  mAP {score.result.mean['mAP']:.1%} | {duration(seconds)}, "
                f"{duration(time.monotonic() - began)} in all"
            )

        all_done = train_all(todo, cores=cores, lock=lock, on_finished=tell)
        if scores:
            summaries = write_files(out, rows, scores)
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

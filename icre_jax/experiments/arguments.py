"""The flags that ablate, sweep and noise share, and what becomes of their plan."""

import argparse
import os
import re
import sys

from icre_jax.errors import InputError
from icre_jax.experiments.experiment import Experiment, carry_out, command_lines
from icre_jax.experiments.processes import RunFailedError
from icre_jax.machine import command
from icre_jax.machine.screen import Screen

_MOST_SEEDS = 10_000
_SHOWN = 200  # characters of a value in a message


def add_flags(parser: argparse.ArgumentParser, *, out: str, seeds: str = "") -> None:
    """Declare them.

    Args:
      parser: of the command.
      out: what the default of --out is, in words.
      seeds: the default of --seeds; empty where the command has no such flag.
    """
    parser.add_argument("--out", type=command.path, help=f"where everything goes; default: {out}")
    if seeds:
        parser.add_argument(
            "--seeds", default=seeds, help=f"one run each for every line of the table; default: {seeds}"
        )
    parser.add_argument("--num_parallel", type=int, default=1, metavar="N", help="runs at a time, on shares of the CPU")
    parser.add_argument(
        "--print_commands", action="store_true", help="print a command line per run, for a scheduler; train nothing"
    )


def carry_out_or_print(flags: argparse.Namespace, experiment: Experiment) -> int:
    """Do what the flags say; the exit code."""
    if flags.print_commands:
        try:
            print(*command_lines(experiment), sep="\n", flush=True)
        except BrokenPipeError:  # `| head` has read enough; what is left must not be tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    with Screen() as screen:
        try:
            done = carry_out(experiment, num_parallel=flags.num_parallel, screen=screen)
        except RunFailedError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.code
    return 0 if done else command.EXIT_STOPPED


def read_seeds(text: str) -> list[int]:
    """Seeds of "0,1,2".

    Raises:
      InputError: something that is no seed, or one twice.
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) > _MOST_SEEDS:
        raise InputError(f"--seeds names {len(words):,} seeds; at most {_MOST_SEEDS:,} are allowed. Name fewer.")
    wrong = [word for word in words if not (re.fullmatch(r"[0-9]{1,10}", word) and int(word) < 2**31)]
    if wrong:
        raise InputError(
            f"--seeds {text[:_SHOWN]!r}: {wrong[0][:_SHOWN]!r} is no seed. Give whole numbers from 0 on, below "
            f"{2**31:,}, such as 0,1,2."
        )
    seeds = [int(word) for word in words]
    twice = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]
    if twice:
        raise InputError(f"--seeds {text!r} names {twice[0]} twice; the same run again would not be another sample.")
    return seeds

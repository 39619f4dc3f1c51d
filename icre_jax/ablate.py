"""Train every variant of a config with several seeds at one budget, and say which beat the baseline.

    python -m icre_jax.ablate --config configs/synthetic.py --out runs/ablation --seeds 0,1,2

Each run is `python -m icre_jax.train` in a work folder of its own, OUT/ROW/seed_N. Starting the same command again goes
on where it stopped. After every run OUT holds the tables so far: ablation.csv, ablation_summary.csv, ablation.md,
ablation.tex and ablation.png.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from icre_jax.experiments.ablation import ablate, read_seeds
from icre_jax.experiments.processes import RunFailedError
from icre_jax.experiments.rows import NAMES
from icre_jax.machine import command
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("ablate", __doc__)
    parser.add_argument("--out", type=Path, help="where everything goes; default: runs/<name of the config>_ablation")
    parser.add_argument("--seeds", default="0,1,2", help="one run per row and seed; default: 0,1,2")
    parser.add_argument("--rows", default=",".join(NAMES), help=f"what to train; default: all: {', '.join(NAMES)}")
    parser.add_argument("--num_parallel", type=int, default=1, metavar="N", help="runs at a time, on shares of the CPU")
    flags, config_flags = command.split_config_flags(parser, arguments)
    names, seeds = [name.strip() for name in flags.rows.split(",")], read_seeds(flags.seeds)
    out = flags.out or Path("runs") / f"{command.read_config(config_flags).name}_ablation"
    with Screen() as screen:
        try:
            done = ablate(names, config_flags, seeds, out, num_parallel=flags.num_parallel, screen=screen)
        except RunFailedError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.code
    return 0 if done else command.EXIT_STOPPED


if __name__ == "__main__":
    command.run(main)

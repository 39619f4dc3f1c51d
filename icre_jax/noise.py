"""Measure how far the scores of one config scatter, before anything is compared with it.

    python -m icre_jax.noise --config configs/instrument.py --out runs/noise

Trains runs that differ in the seed, and runs of seed 0 whose first weights differ by a relative 1e-6: how far these end
apart is what training makes of rounding. Each is `python -m icre_jax.train` in a work folder of its own,
OUT/config/seed_N and OUT/perturbation=N/seed_0. Starting the same command again goes on where it stopped. After every
run OUT holds the tables so far: noise.csv, noise_summary.csv, noise.md, noise.tex and noise.png.
"""

from collections.abc import Sequence
from pathlib import Path

from icre_jax.experiments.arguments import add_flags, carry_out_or_print
from icre_jax.experiments.noise import plan_noise
from icre_jax.machine import command


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("noise", __doc__)
    add_flags(parser, out="runs/<name of the config>_noise")
    parser.add_argument(
        "--runs", type=int, default=8, metavar="N", help="runs of each of the two groups, one in common; default: 8"
    )
    flags, config_flags = command.split_config_flags(parser, arguments)
    out = flags.out or Path("runs") / f"{command.read_config(config_flags).name}_noise"
    return carry_out_or_print(flags, plan_noise(config_flags, flags.runs, out))


if __name__ == "__main__":
    command.run(main)

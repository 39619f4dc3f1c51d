"""Train every variant of a config with several seeds at one budget, and say which effects are resolved.

    python -m icre_jax.ablate --config configs/synthetic.py --out runs/ablation

Each run is `python -m icre_jax.train` in a work folder of its own, OUT/ROW/seed_N; a network with MPFR or SDCE is then
scored with each of its parts taken out. Starting the same command again goes on where it stopped. After every run OUT
holds the tables so far: ablation.csv, ablation_summary.csv, removal.csv, ablation.md, ablation.tex and ablation.png.
"""

from collections.abc import Sequence
from pathlib import Path

from icre_jax.experiments.ablation import plan_ablation
from icre_jax.experiments.arguments import add_flags, carry_out_or_print, read_seeds
from icre_jax.experiments.rows import NAMES
from icre_jax.machine import command


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("ablate", __doc__)
    add_flags(parser, out="runs/<name of the config>_ablation", seeds="0,1,2,3,4,5,6,7")
    parser.add_argument("--rows", default=",".join(NAMES), help=f"what to train; default: all: {', '.join(NAMES)}")
    parser.add_argument("--no_removal", action="store_true", help="do not score the networks with parts taken out")
    parser.add_argument(
        "--margin",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="percentage points below which an effect counts as none; default: 1.0",
    )
    flags, config_flags = command.split_config_flags(parser, arguments)
    names, seeds = [name.strip() for name in flags.rows.split(",")], read_seeds(flags.seeds)
    out = flags.out or Path("runs") / f"{command.read_config(config_flags).name}_ablation"
    plan = plan_ablation(names, config_flags, seeds, out, removal=not flags.no_removal, margin=flags.margin)
    return carry_out_or_print(flags, plan)


if __name__ == "__main__":
    command.run(main)

"""Train a config with other values of some of its fields, and show how the scores change with them.

    python -m icre_jax.sweep --config configs/synthetic.py --out runs/sweep --vary loss.icg_weight=0.2,0.5,1.0,2.0

Without --vary: lambda (loss.icg_weight) and rho_1 (loss.icg_rho1) of the ICG loss, each alone. Each run is
`python -m icre_jax.train` in a work folder of its own, OUT/POINT/seed_N. Starting the same command again goes on where
it stopped. After every run OUT holds the tables so far: sweep.csv, sweep_summary.csv, sweep.md, sweep.tex, sweep.png.
"""

from collections.abc import Sequence
from pathlib import Path

from icre_jax.experiments.arguments import add_flags, carry_out_or_print, read_seeds
from icre_jax.experiments.points import DEFAULT, read_variations
from icre_jax.experiments.sweep import plan_sweep
from icre_jax.machine import command


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("sweep", __doc__)
    add_flags(parser, out="runs/<name of the config>_sweep", seeds="0,1,2")
    default = " and ".join(f"{field}={','.join(values)}" for field, values in DEFAULT.items())
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=V1,V2,...",
        help=f"a field and its values; may be given several times; default: {default}",
    )
    parser.add_argument("--grid", action="store_true", help="all combinations of the values, not each field alone")
    flags, config_flags = command.split_config_flags(parser, arguments)
    variations, seeds = read_variations(flags.vary) or DEFAULT, read_seeds(flags.seeds)
    out = flags.out or Path("runs") / f"{command.read_config(config_flags).name}_sweep"
    return carry_out_or_print(flags, plan_sweep(variations, config_flags, seeds, out, grid=flags.grid))


if __name__ == "__main__":
    command.run(main)

"""Say what a config is and what it costs, without data: `python -m icre_jax.describe --config configs/sysu_mm01.py`.

Parameters per module, FLOPs and memory of training and of embedding, what of it is sourced and what inferred, and all
that beside the baseline of the same config. With full-size networks most of the time, a minute per program on two
CPU cores, goes into compiling; `--measure_steps 0` leaves out the only part that runs them.
"""

import json
from collections.abc import Sequence

import jax

from icre_jax.costs.describe import describe, describe_slice
from icre_jax.machine import command
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("describe", __doc__)
    parser.add_argument("--measure_steps", type=int, default=3, help="timed steps per program, 0 for none; default: 3")
    parser.add_argument(
        "--measure_batch", type=int, metavar="IMAGES", help="of a timed step; default: the config's, 8 on a CPU"
    )
    parser.add_argument(
        "--tpu", metavar="SLICE", help="instead: compile the step for a TPU slice, e.g. v5e:2x2 (needs icre_jax[tpu])"
    )
    parser.add_argument("--json", type=command.path, metavar="FILE", help="write every number there as well")
    flags, config_flags = command.split_config_flags(parser, arguments)
    settings = command.read_config(config_flags)
    if flags.json:
        command.require_writable(flags.json, "--json")
    if flags.tpu:
        # Nothing here runs on a TPU: without this jax would look for one.
        jax.config.update("jax_platforms", "cpu")
    with Screen() as screen:
        if flags.tpu:
            numbers = describe_slice(settings, flags.tpu, screen)
        else:
            numbers = describe(settings, screen, num_steps=flags.measure_steps, step_batch=flags.measure_batch)
        if flags.json:
            command.write_output(flags.json, json.dumps(numbers, indent=2) + "\n", "--json")
            screen.say(f"Numbers: {flags.json}")
    return 0


if __name__ == "__main__":
    command.run(main)

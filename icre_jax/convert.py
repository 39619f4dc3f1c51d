"""Convert weights between published files (safetensors) and orbax checkpoints, both ways.

`python -m icre_jax.convert --from_safetensors FILE --out DIR` makes a checkpoint of our backbone from a torchvision or
timm ResNet. `python -m icre_jax.convert --workdir DIR --to_safetensors FILE` writes the backbone of a trained run, an
export or a network in the box (or of such a checkpoint) with torchvision's names. What was written is read back and
compared bit for bit.
"""

import argparse
from collections.abc import Sequence

from icre_jax.engine.convert import DEPTHS, export_weights, import_weights
from icre_jax.machine import command

# Of each direction: flags it needs, flags it may have.
_FLAGS = {
    "from_safetensors": ({"out"}, {"depth", "width", "specific_until"}),
    "to_safetensors": ({"workdir"}, {"checkpoint", "stem"}),
}


def main(arguments: Sequence[str]) -> int:
    """The command."""
    # Only what was said: a flag of the other direction is refused, not ignored.
    parser = command.make_parser("convert", __doc__, argument_default=argparse.SUPPRESS)
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from_safetensors", type=command.path, metavar="FILE", help="a torchvision or timm ResNet")
    direction.add_argument(
        "--to_safetensors", type=command.path, metavar="FILE", help="new file, with torchvision's names"
    )
    importing = parser.add_argument_group("with --from_safetensors")
    importing.add_argument("--out", type=command.path, metavar="DIR", help="new folder for the checkpoint")
    importing.add_argument("--depth", type=int, choices=DEPTHS, help="of the ResNet; default: 50")
    importing.add_argument(
        "--width",
        type=command.channels,
        help="channels of the stem; default: 64, the published networks",
    )
    importing.add_argument(
        "--specific_until",
        choices=("stem", "layer1"),
        help="last part that each modality has for itself; default: stem",
    )
    exporting = parser.add_argument_group("with --to_safetensors")
    exporting.add_argument(
        "--workdir", metavar="DIR", help="of a run, an export, the name of a network in the box, or an --out of this"
    )
    exporting.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    exporting.add_argument("--stem", choices=("visible", "infrared"), help="whose stem to write, where they differ")
    flags = vars(parser.parse_args(arguments))
    chosen = next(name for name in _FLAGS if name in flags)
    file = flags.pop(chosen)
    needed, allowed = _FLAGS[chosen]
    if missing := sorted(needed - flags.keys()):
        parser.error(f"--{chosen} needs --{missing[0]}")
    if foreign := sorted(flags.keys() - needed - allowed):
        parser.error(f"--{foreign[0]} does not go with --{chosen}")
    if chosen == "from_safetensors":
        import_weights(file, **flags)
        print(f"Backbone of {file} as a checkpoint: {flags['out']} (read back, equal)")
    else:
        step, num_arrays = export_weights(flags["workdir"], file, step=flags.get("checkpoint"), stem=flags.get("stem"))
        print(f"Backbone of step {step} of {flags['workdir']}: {file}, {num_arrays} arrays (read back, equal)")
    return 0


if __name__ == "__main__":
    command.run(main)

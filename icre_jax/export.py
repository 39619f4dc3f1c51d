"""Take a trained network away: `python -m icre_jax.export --workdir DIR --out DIR2 [--checkpoint STEP]`.

DIR2 holds variables/ (an orbax checkpoint of parameters and BatchNorm statistics), config.json and classes.json (the
identity of each class). What was written is read back, and must embed real images to the same bits, before the folder
appears.
"""

from collections.abc import Sequence
from pathlib import Path

from icre_jax.engine.export import NUM_COMPARED, export
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("export", __doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="work folder of a run")
    parser.add_argument("--out", required=True, type=Path, help="a new folder for the network")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    flags = parser.parse_args(arguments)
    keep_compiled_programs()
    with Screen() as screen:
        trained = export(flags.workdir, flags.out, step=flags.checkpoint, listener=screen)
        screen.say(
            f"{flags.out}: step {trained.step} of {flags.workdir}, read back; it embeds {2 * NUM_COMPARED} test "
            "images to the same bits."
        )
    return 0


if __name__ == "__main__":
    command.run(main)

"""Take a trained network away: `python -m icre_jax.export --workdir DIR --out DIR2 [--format FORMAT,...]`.

DIR2 holds the network in each format, config.json, classes.json (the identity of each class), provenance.json and
README.md (the model card). What was written is read back, and must embed real images equally, orbax to the same bits,
before the folder appears. `icre_jax.load` and `python -m icre_jax.embed` read it. The run's data need not be there.
Nothing leaves this machine without --push.
"""

from collections.abc import Sequence

from icre_jax.engine.export import FORMATS, NUM_COMPARED, export
from icre_jax.engine.hub import push, require_hub
from icre_jax.engine.stablehlo import describe_end
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("export", __doc__)
    parser.add_argument("--workdir", required=True, type=command.path, help="work folder of a run")
    parser.add_argument("--out", required=True, type=command.path, help="a new folder for the network")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    parser.add_argument(
        "--format", default="orbax", help=f"one or several of {', '.join(FORMATS)}, with commas; default: orbax"
    )
    parser.add_argument("--half", action="store_true", help="store the kernels of network.safetensors in float16")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to this repository of the Hugging Face hub")
    parser.add_argument("--public", action="store_true", help="let everybody see what is pushed; default: its owner")
    flags = parser.parse_args(arguments)
    if flags.push:
        require_hub(flags.push)
    elif flags.public:
        parser.error("--public is of what is pushed: give --push OWNER/NAME too, or leave it out.")
    formats = [name.strip() for name in flags.format.split(",")]
    keep_compiled_programs()
    with Screen() as screen:
        done = export(
            flags.workdir, flags.out, step=flags.checkpoint, listener=screen, formats=formats, half=flags.half
        )
        equal = "to the same bits" if formats == ["orbax"] else "equally"
        screen.say(
            f"{flags.out}: step {done.step} of {flags.workdir} as {', '.join(formats)}, read back; it embeds "
            f"{2 * NUM_COMPARED} {done.compared} {equal}."
        )
        if "stablehlo" in formats:
            screen.say(describe_end(flags.out))
        if flags.half:
            distance = done.about["float16_cosine_distance"]
            screen.say(f"float16 moved these embeddings by a cosine distance of at most {distance:.1e}.")
        if flags.push:
            address = push(flags.out, flags.push, public=flags.public)
            screen.say(f"Uploaded to {address}, {'for everybody' if flags.public else 'private'}.")
    return 0


if __name__ == "__main__":
    command.run(main)

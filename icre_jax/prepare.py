"""Make a data set ready: render people if the config asks for them, check every image, write records.

    python -m icre_jax.prepare --config configs/synthetic.py
    python -m icre_jax.prepare --make_manifest FOLDER    # list your own images first (docs/own_pictures.md)

`icre_jax.train` does the first by itself when the records are absent.
"""

from collections.abc import Sequence

from icre_jax.data.folders import describe_manifest, write_manifest
from icre_jax.data.ready import describe_data, prepare_data
from icre_jax.machine import command
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("prepare", __doc__)
    parser.add_argument(
        "--make_manifest",
        type=command.path,
        metavar="FOLDER",
        help="instead: write FOLDER/manifest.csv from FOLDER/{train,query,gallery}/{visible,infrared}/<person>/",
    )
    flags, config_flags = command.split_config_flags(parser, arguments)
    with Screen() as screen:
        if flags.make_manifest is not None:
            if config_flags:
                parser.error("--make_manifest takes no config: it only writes the list. Prepare with a second command.")
            screen.console.print(describe_manifest(flags.make_manifest, write_manifest(flags.make_manifest)))
            return 0
        prepared = prepare_data(command.read_config(config_flags).data, screen)
        screen.console.print(describe_data(prepared))
        screen.say(f"Records: {prepared.folder}")
    return 0


if __name__ == "__main__":
    command.run(main)

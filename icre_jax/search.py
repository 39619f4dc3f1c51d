"""Search a gallery for the person on an image: `python -m icre_jax.search --index DIR --images PATH --modality M`.

DIR is what `icre_jax.index` made. PATH is an image, a folder, a list or a manifest; of a folder with visible/ and
infrared/ the images of M are taken, of a manifest its queries and gallery. Each gets the most similar images of the
index. With --calibration FILE (`icre_jax.calibrate`) it gets those above a threshold, or "not in the gallery", with the
rate of false alarms that this was calibrated to. Candidates, not identifications: a person has to decide.
"""

import functools
import json
from collections.abc import Sequence

from icre_jax.datasets import MODALITIES
from icre_jax.fleet.cluster import add_flags, read_flags
from icre_jax.fleet.searching import search_shards
from icre_jax.identify.searching import ENGINES, search_for, to_document
from icre_jax.identify.tables import answers_page, answers_table
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("search", __doc__)
    parser.add_argument("--index", required=True, type=command.path, metavar="DIR", help="folder of the index")
    images_help = "images, folders, lists, manifests"
    parser.add_argument("--images", required=True, nargs="+", type=command.path, metavar="PATH", help=images_help)
    parser.add_argument(
        "--modality",
        required=True,
        choices=MODALITIES,
        help="of the images; of visible/ and infrared/, or of a manifest, take these",
    )
    parser.add_argument("--top", type=int, default=10, help="candidates of an image at most; default: 10")
    parser.add_argument(
        "--calibration", type=command.path, metavar="FILE", help='say "not in the gallery" below its threshold'
    )
    parser.add_argument("--network", help="where the index's network is, if it was moved")
    parser.add_argument("--json", type=command.path, metavar="FILE", help="where to keep the answers as well")
    parser.add_argument("--html", type=command.path, metavar="FILE", help="a page with all images, in one file")
    parser.add_argument("--engine", choices=(*ENGINES, "ray"), default="host", help="who searches; default: host")
    add_flags(parser)
    command.add_pixels_flag(parser)
    flags = parser.parse_args(arguments)
    cluster = read_flags(parser, flags)
    for flag in ("json", "html"):
        if getattr(flags, flag) is not None:
            command.require_writable(getattr(flags, flag), f"--{flag}")
    if flags.json is not None and flags.html is not None and flags.json.resolve() == flags.html.resolve():
        parser.error(f"--json and --html are both {flags.html}, and the page would replace it. Name two files.")
    keep_compiled_programs()
    with Screen() as screen:
        answers = search_for(
            flags.index,
            flags.images,
            flags.modality,
            top=flags.top,
            calibration=flags.calibration,
            network=flags.network,
            max_pixels=flags.max_pixels,
            engine=ENGINES[flags.engine] if cluster is None else functools.partial(search_shards, cluster=cluster),
            listener=screen,
        )
        screen.console.print(answers_table(answers))
        if flags.json is not None:
            text = json.dumps(to_document(answers), indent=2, allow_nan=False)
            command.write_output(flags.json, text + "\n", "--json")
            screen.say(f"Answers: {flags.json}")
        if flags.html is not None:
            command.write_output(flags.html, answers_page(answers), "--html")
            screen.say(f"Page: {flags.html}")
    return 0


if __name__ == "__main__":
    command.run(main)
